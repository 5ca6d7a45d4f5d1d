"""Leases beside their promise: whatever the clocks and the crashes, two processes never hold one at a time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isochrone.routing.leases import Lease, Leases
from isochrone.stores.memory import MemoryFleetStore

T = TypeVar("T")
NAMES = ("a", "b")
who = st.sampled_from(NAMES)
terms = st.integers(1, 30)


def run(work: Coroutine[Any, Any, T]) -> T:
    """What never waits for anything needs no loop."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


class LeaseMachine(RuleBasedStateMachine):
    """The model: until when, in true time, each process may think that it holds the lease."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.reading = self.now
        self.store = MemoryFleetStore(clock=lambda: self.reading)
        self.skew = dict.fromkeys(NAMES, 0.0)
        self.leases = {name: self._born(name) for name in NAMES}
        self.held: dict[str, tuple[Lease, float]] = {}
        self.highest = 0

    def _born(self, name: str) -> Leases:
        def clock() -> float:
            self.reading = self.now + self.skew[name]
            return self.reading

        return Leases(self.store, name, clock)

    @initialize(a=st.integers(-90, 90), b=st.integers(-90, 90))
    def clocks_are_wrong(self, a: int, b: int) -> None:
        self.skew = {"a": float(a), "b": float(b)}

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def a_night_passes(self) -> None:
        self.now += 40_000

    @rule(name=who, seconds=terms)
    def takes(self, name: str, seconds: int) -> None:
        self._granted(name, run(self.leases[name].take("duty", seconds)), seconds)

    @rule(name=who, seconds=terms)
    def renews(self, name: str, seconds: int) -> None:
        if name in self.held:
            lease, _ = self.held.pop(name)
            self._granted(name, run(self.leases[name].renew(lease, seconds)), seconds)

    @rule(name=who)
    def releases(self, name: str) -> None:
        if name in self.held:
            lease, _ = self.held.pop(name)
            run(self.leases[name].release(lease))

    @rule(name=who)
    def crashes_and_begins_anew(self, name: str) -> None:
        self.held.pop(name, None)
        self.leases[name] = self._born(name)

    @rule(name=who)
    def waits_for_it_as_long_as_it_takes(self, name: str) -> None:
        """Nobody else asks meanwhile, so it must come."""
        first = run(self.leases[name].take("duty", 5))
        if first is None:
            self.now += 30
            first = run(self.leases[name].take("duty", 5))
        assert first is not None
        self._granted(name, first, 5)

    def _granted(self, name: str, lease: Lease | None, seconds: int) -> None:
        if lease:
            assert lease.version > self.highest, "a fencing number must grow"
            self.highest = lease.version
            self.held[name] = (lease, self.now + seconds)

    @invariant()
    def at_most_one_holds_it(self) -> None:
        assert sum(until > self.now for _, until in self.held.values()) <= 1


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=150, stateful_step_count=40)
