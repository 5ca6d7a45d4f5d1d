"""Ejection beside its simplest model, which keeps every outcome; and a fleet that loses at most half of its choices."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isochrone.routing.circuit import JITTER
from isochrone.routing.ejection import (
    CONNECTION_FAILURES,
    EJECTION_CAP_SECONDS,
    OUTCOMES,
    SUCCESS_PERCENT,
    WINDOW_SECONDS,
    Ejection,
    EjectionNote,
)
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Fault
from isochrone.settings import Backend

LONGEST_SECONDS = EJECTION_CAP_SECONDS * (1 + JITTER)
BUCKET_SECONDS = 2
seconds = st.integers(0, 40)


class EjectionMachine(RuleBasedStateMachine):
    """The model: every outcome since the last ejection was over, the row of lost connections, and its own sums."""

    def __init__(self) -> None:
        super().__init__()
        self.ejection = Ejection(lambda: 0.5)
        self.now = 100
        self.outcomes: list[tuple[int, bool]] = []
        self.lost = 0
        self.lost_since = self.until = -inf
        self.times = 0

    def counted(self) -> list[bool]:
        """A bucket is forgotten as a whole."""
        newest = max((at for at, _ in self.outcomes), default=0) // BUCKET_SECONDS * BUCKET_SECONDS
        return [
            success for at, success in self.outcomes if at // BUCKET_SECONDS * BUCKET_SECONDS > newest - WINDOW_SECONDS
        ]

    def is_due(self) -> bool:
        counted = self.counted()
        fails = len(counted) >= OUTCOMES and sum(counted) * 100 < SUCCESS_PERCENT * len(counted)
        return fails or self.lost >= CONNECTION_FAILURES

    @rule(seconds=seconds)
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(lasted=seconds, times=st.integers(1, 15))
    def attempts_succeed(self, lasted: int, times: int) -> None:
        begun = self.now - lasted
        for _ in range(times):
            self.ejection.on_connected(begun=begun)
            self.ejection.on_success(self.now, begun=begun)
        if begun >= self.lost_since:
            self.lost = 0
        if begun >= self.until:
            self.outcomes += [(self.now, True)] * times

    @rule(lasted=seconds, times=st.integers(1, 6), fault=st.sampled_from(Fault))
    def attempts_fail(self, lasted: int, times: int, fault: Fault) -> None:
        begun = self.now - lasted
        for _ in range(times):
            self.ejection.on_failure(self.now, begun=begun, fault=fault)
            if begun < self.until:
                continue
            self.outcomes.append((self.now, False))
            if fault is not Fault.ANSWER:
                self.lost_since = self.lost_since if self.lost else self.now
                self.lost += 1
            elif begun >= self.lost_since:
                self.lost = 0

    @rule()
    def it_is_ejected_if_due(self) -> None:
        why = self.ejection.due()
        assert bool(why) == self.is_due()
        if not why:
            return
        self.ejection.eject(self.now, why)
        calm = (self.now - self.until) // 30 if self.times else 0
        self.times = max(0, int(self.times - calm)) + 1
        self.until = self.now + [10, 20, 25][min(self.times, 3) - 1]
        self.outcomes, self.lost = [], 0

    @invariant()
    def is_aside_as_long_as_the_model_says(self) -> None:
        assert self.ejection.retry_in(self.now) == max(0, self.until - self.now)
        assert self.ejection.holds(self.now) == (self.now < self.until)

    @invariant()
    def counts_what_the_model_counts(self) -> None:
        counted = self.counted()
        assert self.ejection.outcomes.successes == sum(counted)
        assert self.ejection.outcomes.failures == len(counted) - sum(counted)

    @invariant()
    def is_back_within_half_a_minute(self) -> None:
        assert not self.ejection.holds(self.now + 30)

    @invariant()
    def another_edge_that_hears_of_it_leaves_it_aside_as_long(self) -> None:
        other = Ejection(lambda: 0.5)
        if note := self.ejection.export():
            other.absorb(note, self.now)
        assert other.retry_in(self.now) == self.ejection.retry_in(self.now)


TestEjection = EjectionMachine.TestCase
TestEjection.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

notes = st.builds(
    EjectionNote,
    at=st.floats(0, 200),
    times=st.integers(1, 9),
    seconds=st.floats(0, 1000),
    reason=st.just("why"),
    unreachable=st.booleans(),
)


@given(st.lists(st.tuples(notes, st.floats(0, 200)), max_size=20))
@settings(max_examples=200)
def test_nothing_that_other_edges_say_keeps_a_backend_aside_for_long(said: list[tuple[EjectionNote, float]]) -> None:
    ejection, now = Ejection(lambda: 0.5), 0.0
    for note, now in sorted(said, key=lambda pair: pair[1]):
        ejection.absorb(note, now)
    assert ejection.retry_in(now) <= LONGEST_SECONDS + 2


MODELS = "abc"
blows = st.tuples(st.integers(0, 5), st.sampled_from(MODELS), st.sampled_from(Fault), st.integers(0, 3))


@given(
    st.lists(st.sets(st.sampled_from(MODELS), min_size=1), min_size=1, max_size=6),
    st.lists(st.one_of(blows, notes), max_size=150),
)
@settings(max_examples=80, deadline=None)
def test_never_more_than_half_of_the_choices_of_any_model_are_ejected(
    served: list[set[str]], history: list[tuple[int, str, Fault, int] | EjectionNote]
) -> None:
    fleet = Fleet(
        [
            Backend(name=f"b{i}", base_url="http://127.0.0.1:9/v1", models={name: name for name in sorted(names)})
            for i, names in enumerate(served)
        ],
        edge_region="us-east-1",
    )
    now = 100.0
    for event in history:
        if isinstance(event, EjectionNote):
            fleet.states[int(event.at) % len(served)].absorb_ejection(event, now)
        else:
            index, model, fault, pause = event
            now += pause
            for offer in fleet.states[index % len(served)].offers:
                if offer.model == model:
                    offer.on_failure(now, "failed", begun=now, fault=fault)
                    offer.on_failure(now, "failed", begun=now, fault=fault)
                    offer.on_success(now, begun=now)
        for model in fleet.models:
            offers = fleet.offers(model)
            ejected = sum(offer.backend.ejection.holds(now) for offer in offers)
            assert ejected <= len(offers) // 2
