"""The circuit beside its simplest model, told of attempts that overlap in every way; and what edges tell each other."""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isochrone.routing.circuit import (
    CONSECUTIVE_FAILURES,
    DOUBT_SECONDS,
    JITTER,
    LAPSE_SECONDS,
    OPEN_CAP_SECONDS,
    STEADY_SECONDS,
    TRIAL_SECONDS,
    Circuit,
    CircuitNote,
    State,
)

LONGEST_SECONDS = OPEN_CAP_SECONDS * (1 + JITTER)
seconds = st.integers(0, 16).map(lambda halves: halves / 2)


class Attempt:
    """One in flight: `trial` is its number where it is the trial."""

    def __init__(self, begun: float, trial: int | None) -> None:
        self.begun = begun
        self.trial = trial


class CircuitMachine(RuleBasedStateMachine):
    """The model: the row of failures and when it began; how often it opened, when, and until when; who holds the trial,
    and since when that one is telling."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = 0.5
        self.circuit = Circuit(lambda: self.chance)
        self.now = 100.0
        self.attempts: list[Attempt] = []
        self.row = 0
        self.row_since = self.heard = -inf
        self.openings = 0
        self.opened_at = self.until = self.closed_at = self.youngest_success = -inf
        self.failed_at = -inf
        self.failed_to_reach = False
        self.holder: Attempt | None = None
        self.telling_since = inf

    # -- the model -----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        if not self.openings:
            return State.CLOSED
        if self.now < self.until:
            return State.OPEN
        return State.CLOSED if self.now - self.telling_since >= STEADY_SECONDS else State.HALF_OPEN

    def trial_is_out(self) -> bool:
        return self.holder is not None and self.now - self.holder.begun < TRIAL_SECONDS

    def opens(self) -> None:
        self.openings += 1
        self.opened_at = self.now
        self.until = self.now + [4.0, 8.0, 12.0][min(self.openings, 3) - 1] * (0.9 + 0.2 * self.chance)
        self.holder, self.telling_since = None, inf

    def closes(self, at: float) -> None:
        self.row = 0
        if self.openings:
            self.closed_at = at
            self.openings, self.holder, self.telling_since = 0, None, inf

    def ends(self, attempt: Attempt) -> None:
        self.attempts.remove(attempt)
        if attempt.trial is not None:
            self.circuit.free_trial(attempt.trial, self.now)
        if attempt is self.holder:
            self.holder = None
            if self.now - self.telling_since < STEADY_SECONDS:
                self.telling_since = inf

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(seconds=seconds)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(chance=st.sampled_from([0.0, 0.5, 0.999]))
    def chance_changes(self, chance: float) -> None:
        self.chance = chance

    @rule()
    def an_attempt_begins(self) -> None:
        may = self.state() is State.HALF_OPEN and not self.trial_is_out()
        trial = self.circuit.claim_trial(self.now)
        assert (trial is not None) == may
        self.attempts.append(Attempt(self.now, trial))
        if may:
            self.holder = self.attempts[-1]

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def an_attempt_says_a_token(self, data: Any) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.circuit.on_first_token(self.now, begun=attempt.begun)
        self.heard = max(self.heard, attempt.begun)
        if self.trial_is_out() and attempt.begun >= self.until:
            self.telling_since = min(self.telling_since, self.now)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def an_attempt_succeeds(self, data: Any) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.circuit.on_success(begun=attempt.begun)
        self.heard = max(self.heard, attempt.begun)
        self.youngest_success = max(self.youngest_success, attempt.begun)
        if attempt.begun >= self.opened_at and self.heard >= self.row_since:
            self.closes(attempt.begun)
        self.ends(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), unreachable=st.booleans())
    def an_attempt_fails(self, data: Any, unreachable: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        self.circuit.on_failure(self.now, "failed", begun=attempt.begun, unreachable=unreachable)
        if attempt.begun >= self.opened_at:
            self.failed_at, self.failed_to_reach = self.now, unreachable
            if not self.row:
                self.row_since = self.now
            self.row += 1
            if attempt.begun >= self.until if self.openings else self.row >= CONSECUTIVE_FAILURES:
                self.opens()
        self.ends(attempt)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def an_attempt_ends_by_nobodys_fault(self, data: Any) -> None:
        self.ends(data.draw(st.sampled_from(self.attempts)))

    @rule()
    def a_probe_does_not_get_through(self) -> None:
        self.circuit.on_lost(self.now, "no answer")
        if not self.openings:
            self.openings, self.opened_at, self.until = 1, self.now, self.now
            self.failed_at, self.failed_to_reach = self.now, True
        self.until = max(self.until, self.now + 12 * (0.9 + 0.2 * self.chance))

    @rule(ago=st.integers(0, 50), openings=st.integers(0, 4), lasts=st.integers(4, 12), unreachable=st.booleans())
    def another_edge_speaks(self, ago: int, openings: int, lasts: int, unreachable: bool) -> None:
        at, lasts = self.now - ago, lasts if openings else 0
        self.circuit.absorb(CircuitNote(at, openings, float(lasts), unreachable=unreachable), self.now)
        if at <= max(self.opened_at, self.closed_at) or self.now >= at + lasts + LAPSE_SECONDS:
            return
        if not openings:
            self.closes(at)
        elif at > self.youngest_success:
            self.openings, self.opened_at, self.until = openings, at, at + lasts
            self.holder, self.telling_since = None, inf
            self.failed_at, self.failed_to_reach = at, unreachable

    @rule(ago=st.integers(0, 20))
    def something_gets_through(self, ago: int) -> None:
        self.circuit.on_reached(self.now - ago)
        if self.failed_to_reach and self.now - ago >= self.failed_at:
            self.failed_to_reach = False
            self.closes(self.now - ago)

    # -- what always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def stands_where_the_model_says(self) -> None:
        state = self.state()
        assert self.circuit.state(self.now) is state
        assert self.circuit.failures_in_a_row == self.row
        passes = state is State.CLOSED or (state is State.HALF_OPEN and not self.trial_is_out())
        assert self.circuit.lets_through(self.now) == passes

    @invariant()
    def no_opening_is_longer_than_the_cap_or_for_good(self) -> None:
        assert 0 <= self.circuit.retry_in(self.now) <= LONGEST_SECONDS
        assert self.circuit.lets_through(self.now + LONGEST_SECONDS + TRIAL_SECONDS)

    @invariant()
    def doubts_are_fresh_failures_only(self) -> None:
        assert 0 <= self.circuit.doubts(self.now) < CONSECUTIVE_FAILURES
        assert self.circuit.doubts(self.now + DOUBT_SECONDS) == 0

    @invariant()
    def another_edge_that_hears_of_it_stands_alike(self) -> None:
        note = self.circuit.export()
        if note is None or self.now >= note.at + note.seconds + LAPSE_SECONDS or note.seconds > LONGEST_SECONDS:
            return  # it was long ago, or probes keep it open: edges hear of those themselves
        other = Circuit(lambda: 0.5)
        other.absorb(note, self.now)
        assert other.export() == (note if note.openings else None)
        assert other.retry_in(self.now) == self.circuit.retry_in(self.now)


TestCircuit = CircuitMachine.TestCase
TestCircuit.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

notes = st.builds(
    CircuitNote,
    at=st.floats(0, 200),
    openings=st.integers(0, 5),
    seconds=st.floats(0, 1000),
    reason=st.text(max_size=5),
    unreachable=st.booleans(),
)


@given(st.lists(st.tuples(notes, st.floats(0, 200)), max_size=20), st.floats(0, 200))
@settings(max_examples=200)
def test_nothing_that_other_edges_say_keeps_a_circuit_open_for_long(
    said: list[tuple[CircuitNote, float]], now: float
) -> None:
    circuit = Circuit(lambda: 0.5)
    for note, at in sorted(said, key=lambda pair: pair[1]):
        circuit.absorb(note, at)
        now = max(now, at)
    assert circuit.retry_in(now) <= LONGEST_SECONDS + 2
    assert circuit.lets_through(now + LONGEST_SECONDS + 2)


@given(notes, st.floats(0, 200))
@settings(max_examples=200)
def test_hearing_the_same_twice_changes_nothing(note: CircuitNote, now: float) -> None:
    circuit = Circuit(lambda: 0.5)
    circuit.absorb(note, now)
    once = circuit.export(), circuit.state(now), circuit.reason
    circuit.absorb(note, now)
    assert (circuit.export(), circuit.state(now), circuit.reason) == once
