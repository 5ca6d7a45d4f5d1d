"""The retry budget beside its promise: whatever the edges, clocks and outages of the table, the fleet keeps to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from isochrone.stores.memory import MemoryFleetStore
from isochrone.upstream.budget import WINDOW_SECONDS, RetryBudget

EDGES = (0, 1, 2)
# Rounding of ratio x requests.
EPSILON = 1e-6


def run(work: Coroutine[Any, Any, None]) -> None:
    """What never waits for anything needs no loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class BudgetMachine(RuleBasedStateMachine):
    """The model: requests and retries of the whole fleet, by window. `FRESH`: whoever asks has heard of all."""

    FRESH = True

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000 * WINDOW_SECONDS
        self.table = MemoryFleetStore(clock=lambda: self.now)
        self.requests: Counter[int] = Counter()
        self.retries: Counter[int] = Counter()

    @initialize(ratio=st.floats(0, 1), floor=st.integers(0, 20))
    def edges_begin(self, ratio: float, floor: int) -> None:
        self.ratio, self.floor = ratio, floor if ratio else 0
        self.edges = [RetryBudget(ratio, floor=floor) for _ in EDGES]

    def everybody_hears(self) -> None:
        for edge in self.edges:
            run(edge.share(self.table, self.now))

    def allowed(self) -> float:
        return max(self.ratio * self.recent(self.requests), self.floor) - self.recent(self.retries)

    def recent(self, counts: Counter[int]) -> int:
        window = int(self.now // WINDOW_SECONDS)
        return counts[window - 1] + counts[window]

    @rule(seconds=st.integers(0, 40))
    def time_passes(self, seconds: int) -> None:
        if self.FRESH:
            self.everybody_hears()
        self.now += seconds

    @rule(at=st.sampled_from(EDGES), times=st.integers(1, 60))
    def requests_come_in(self, at: int, times: int) -> None:
        for _ in range(times):
            self.edges[at].deposit(self.now)
        self.requests[int(self.now // WINDOW_SECONDS)] += times

    @rule(at=st.sampled_from(EDGES), times=st.integers(1, 20))
    def attempts_fail(self, at: int, times: int) -> None:
        for _ in range(times):
            if self.FRESH:
                # The last to listen knows of all the others; an edge listens when it has something to tell.
                self.everybody_hears()
                self.requests_come_in(at, 1)
                run(self.edges[at].share(self.table, self.now))
            allowed = self.allowed()
            if self.edges[at].withdraw(self.now):
                self.retries[int(self.now // WINDOW_SECONDS)] += 1
                self.check(allowed)

    def check(self, allowed: float) -> None:
        assert allowed >= 1 - EPSILON


TestFreshBudget = BudgetMachine.TestCase
TestFreshBudget.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class StaleBudgetMachine(BudgetMachine):
    """Edges hear of each other when they happen to, or never. Then each spends no more than if it were the only one."""

    FRESH = False

    @rule(at=st.sampled_from(EDGES), gone=st.booleans())
    def edge_listens(self, at: int, gone: bool) -> None:
        self.table.failing = gone
        run(self.edges[at].share(self.table, self.now))

    def check(self, allowed: float) -> None:
        """Each may have its own floor, or its own ratio of what it knows: no more than all requests."""
        window = int(self.now // WINDOW_SECONDS)
        bound = len(EDGES) * max(self.ratio * self.recent(self.requests), self.floor)
        assert self.retries[window] <= bound + EPSILON


TestStaleBudget = StaleBudgetMachine.TestCase
TestStaleBudget.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
