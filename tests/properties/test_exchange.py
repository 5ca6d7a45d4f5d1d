"""Edges with wrong clocks, and a table that comes and goes: no backend is locked out, and in the end all know the last
word of the probes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isochrone.routing.circuit import JITTER, OPEN_CAP_SECONDS
from isochrone.routing.ejection import EJECTION_CAP_SECONDS
from isochrone.routing.exchange import SPARED_SECONDS, Exchange
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Fault
from isochrone.routing.probe import Probe
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryFleetStore

EDGES = range(3)
BACKENDS = [
    Backend(name=name, base_url="https://127.0.0.1:1/v1", models={"m": "m"}, region="eu-west-1") for name in ("a", "b")
]
who = st.sampled_from(EDGES)
which = st.sampled_from(range(len(BACKENDS)))


class Edge:
    """One process; its fleet's clock began at 0, and the time of day that it reads is wrong by `skew`."""

    def __init__(self, region: ExchangeMachine, skew: int, up: int) -> None:
        self._region, self._up = region, up
        self.fleet = Fleet(BACKENDS, edge_region="eu-west-1")
        self.exchange = Exchange(
            self.fleet,
            region.table,
            clock=lambda: region.now + skew,
            monotonic=self.monotonic,
            chance=lambda: 0.0,
        )

    def monotonic(self) -> float:
        return self._region.now - 1_000_000.0 + self._up

    async def share(self) -> None:
        await self.exchange.refresh(max_age=0)
        await self.exchange.publish()


def run(work: Coroutine[Any, Any, None]) -> None:
    """With a loop, because timeouts need one; nothing here waits."""
    with asyncio.Runner() as runner:
        runner.run(work)


class ExchangeMachine(RuleBasedStateMachine):
    """The model: what the last probe of each backend saw, of those whose edge then told it before another probed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.table = MemoryFleetStore(clock=lambda: self.now)
        self.edges: list[Edge] = []
        self.reached: dict[int, bool] = {}

    @initialize(skews=st.lists(st.integers(-90, 90), min_size=3, max_size=3), up=st.integers(0, 10_000))
    def edges_begin(self, skews: list[int], up: int) -> None:
        self.edges = [Edge(self, skew, up * number) for number, skew in enumerate(skews)]

    def _tick(self, seconds: float = 1.0) -> None:
        self.now += seconds

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self._tick(seconds)

    @rule(edge=who)
    def shares(self, edge: int) -> None:
        self._tick()
        run(self.edges[edge].share())

    @rule()
    def table_goes_or_comes_back(self) -> None:
        self.table.failing = not self.table.failing

    @rule(edge=who, backend=which, reached=st.booleans())
    def holder_of_the_duty_probes(self, edge: int, backend: int, reached: bool) -> None:
        """It has heard of the duty through the table, so the table was there, and it has heard the rest, too."""
        self._all_share()
        self._tick()
        state = self.edges[edge].fleet.states[backend]
        state.on_probe(Probe(self.edges[edge].monotonic(), reached=reached, reason="" if reached else "gone"))
        self.reached[backend] = reached

    @rule(edge=who, backend=which, fault=st.sampled_from(Fault), times=st.integers(1, 6))
    def attempts_fail(self, edge: int, backend: int, fault: Fault, times: int) -> None:
        offer = self.edges[edge].fleet.offers("m")[backend]
        for _ in range(times):
            now = self.edges[edge].monotonic()
            offer.on_failure(now, "broken", begun=now, fault=fault)

    def _all_share(self) -> None:
        self.table.failing = False
        self._tick(SPARED_SECONDS)
        for _ in range(2):
            for edge in self.edges:
                run(edge.share())

    @invariant()
    def nobody_is_shut_out_for_longer_than_the_caps(self) -> None:
        longest = max(OPEN_CAP_SECONDS, EJECTION_CAP_SECONDS) * (1 + JITTER)
        for edge in self.edges:
            for offer in edge.fleet.offers("m"):
                assert offer.retry_in(edge.monotonic()) <= longest

    def teardown(self) -> None:
        if not self.edges:
            return
        self._all_share()
        for backend, reached in self.reached.items():
            assert {edge.fleet.states[backend].probe.last.reached for edge in self.edges} == {reached}


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = settings(max_examples=100, stateful_step_count=20)
