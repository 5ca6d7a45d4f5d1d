"""Who may generate an answer, beside its promise: whatever the order, the clocks and the deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from isochrone.answers.generations import Ended, Generations, Held, Lease, Outcome
from isochrone.stores.memory import MemoryFleetStore

T = TypeVar("T")
MARK = "ab" * 32
NAMES = ("a", "b", "c")
SECONDS = 600.0
who = st.sampled_from(NAMES)
outcomes = st.sampled_from(list(Outcome))


class GenerationMachine(RuleBasedStateMachine):
    """The model: the lease that was granted last, and how it ended, if it did."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = self.reading = 1_000_000.0
        self.store = MemoryFleetStore(clock=lambda: self.reading)
        self.skew = dict.fromkeys(NAMES, 0.0)
        self.processes = {name: self._process(name) for name in NAMES}
        self.granted: list[Lease] = []
        self.ended: Outcome | None = None
        self.seen: dict[str, Held] = {}

    def teardown(self) -> None:
        self.runner.close()

    def _process(self, name: str) -> Generations:
        def clock() -> float:
            self.reading = self.now + self.skew[name]
            return self.reading

        return Generations(self.store, clock=clock)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @initialize(a=st.integers(-90, 90), b=st.integers(-90, 90))
    def clocks_are_wrong(self, a: int, b: int) -> None:
        self.skew = {"a": float(a), "b": float(b), "c": 0.0}

    @rule(seconds=st.integers(0, 120))
    def time_passes(self, seconds: int) -> None:
        """Never beyond the term: a deadline ends every generation by then."""
        self.now += seconds if self.ended else min(seconds, 5)

    @property
    def is_held(self) -> bool:
        return bool(self.granted) and self.ended is None

    def _hear(self, name: str, claim: Lease | Held | Ended | None) -> None:
        if isinstance(claim, Lease):
            assert not self.granted or claim.fence > self.granted[-1].fence, "a fence must grow"
            self.granted.append(claim)
            self.ended = None
        elif isinstance(claim, Held):
            self.seen[name] = claim

    @rule(name=who)
    def somebody_asks(self, name: str) -> None:
        claim = self.run(self.processes[name].take(MARK, seconds=SECONDS))
        assert isinstance(claim, Held) == self.is_held
        if isinstance(claim, Held):
            assert (claim.fence, claim.turn) == (self.granted[-1].fence, self.granted[-1].turn)
        else:
            assert isinstance(claim, Lease) and claim.turn == 0
        self._hear(name, claim)

    @precondition(lambda self: self.is_held)
    @rule(outcome=outcomes, parts=st.integers(0, 3), name=who)
    def the_holder_ends(self, outcome: Outcome, parts: int, name: str) -> None:
        self.run(self.processes[name].end(self.granted[-1], outcome, parts=parts))
        self.ended = outcome

    @precondition(lambda self: len(self.granted) > 1)
    @rule(outcome=outcomes, name=who)
    def one_who_was_fenced_wakes_up_and_ends(self, outcome: Outcome, name: str) -> None:
        """It must change nothing; the rules after this one find out."""
        self.run(self.processes[name].end(self.granted[-2], outcome))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def a_follower_takes_over_from_whom_it_has_heard_nothing_of(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.seen)))
        held, last = self.seen.pop(name), self.granted[-1]
        claim = self.run(self.processes[name].take(MARK, seconds=SECONDS, turn=held.turn + 1, version=held.fence))
        if self.is_held and last.fence == held.fence:
            assert isinstance(claim, Lease) and claim.turn == held.turn + 1
        elif self.is_held:
            assert isinstance(claim, Held) and claim.fence == last.fence, "exactly one of them wins"
        elif self.ended in (Outcome.FAILED, Outcome.REFUSED) and last.turn > held.turn:
            assert not isinstance(claim, Held)
        self._hear(name, claim)

    @precondition(lambda self: self.granted)
    @rule(name=who)
    def somebody_watches(self, name: str) -> None:
        last = self.granted[-1]
        seen = self.run(self.processes[name].watch(Held(MARK, last.fence, last.turn, SECONDS)))
        if self.is_held:
            assert isinstance(seen, Held) and seen.fence == last.fence
        else:
            assert isinstance(seen, Ended) and seen.outcome in (self.ended, Outcome.LEFT)


TestGenerations = GenerationMachine.TestCase
TestGenerations.settings = settings(max_examples=100, stateful_step_count=30)
