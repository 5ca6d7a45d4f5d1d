"""Edges of one region tell each other what they see, each on its own clock; without the table each goes on alone."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from isochrone.routing.circuit import OPEN_CAP_SECONDS
from isochrone.routing.engines import EngineLoad
from isochrone.routing.exchange import DOCUMENT, FRESH_SECONDS, SPARED_SECONDS, Exchange
from isochrone.routing.fleet import Fleet, Offer
from isochrone.routing.health import Fault, Standing
from isochrone.routing.probe import Probe
from isochrone.routing.snapshot import SPEED_SECONDS
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryFleetStore
from isochrone.stores.protocols import StoreUnavailable

BACKENDS = [
    Backend(name=name, base_url="https://127.0.0.1:1/v1", models={"m": "m", "n": "n"}, region="eu-west-1")
    for name in ("pool-a", "pool-b")
]


class Table(MemoryFleetStore):
    """A fleet table that counts what it is asked."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock)
        self.reads = self.writes = 0
        self.slow = False

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        self.reads += 1
        if self.slow:
            await asyncio.sleep(60)
        return await super().read(name, now=now)

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        self.writes += 1
        await asyncio.sleep(0)
        return await super().write(name, document, version=version, expires=expires)


class Region:
    """The table and true time, in epoch seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.table = Table(lambda: self.now)

    def edge(self, *, ahead: float = 0.0, up: float = 500.0) -> Edge:
        """A process whose clock is `ahead`, and whose machine has been up for so many seconds."""
        return Edge(self, ahead, up - self.now)


class Edge:
    def __init__(self, region: Region, ahead: float, up: float) -> None:
        self._region, self._ahead, self._up = region, ahead, up
        self.fleet = Fleet(BACKENDS, edge_region="eu-west-1")
        self.exchange = Exchange(
            self.fleet,
            region.table,
            clock=lambda: region.now + ahead,
            monotonic=self.monotonic,
            chance=random.Random(1).random,
        )

    def monotonic(self) -> float:
        return self._region.now + self._up

    def offer(self, backend: int = 0, model: str = "m") -> Offer:
        return self.fleet.offers(model)[backend]

    def standing(self, backend: int = 0, model: str = "m") -> Standing:
        return self.offer(backend, model).standing(self.monotonic())

    def fails(self, times: int = 3, fault: Fault = Fault.ANSWER) -> None:
        for _ in range(times):
            now = self.monotonic()
            self.offer().on_failure(now, "answered 500", begun=now, fault=fault)

    def succeeds(self) -> None:
        now = self.monotonic()
        self.offer().on_first_token(now, begun=now)
        self.offer().on_success(now, begun=now)

    def probes(self, *, reached: bool, **seen: Any) -> None:
        self.fleet.states[0].on_probe(
            Probe(self.monotonic(), reached=reached, reason="" if reached else "gone", **seen)
        )

    async def share(self) -> None:
        await self.exchange.refresh(max_age=0)
        await self.exchange.publish()


@pytest.fixture
def region() -> Region:
    return Region()


async def test_open_circuit_of_one_edge_is_open_at_the_other_and_only_for_that_model(region: Region) -> None:
    a, b = region.edge(), region.edge(up=90_000.0)
    a.fails()
    await a.exchange.publish()
    region.now += 1
    await b.exchange.refresh()
    assert b.standing() is Standing.EJECTED
    assert b.offer().why(b.monotonic()) == "answered 500"
    assert b.offer().retry_in(b.monotonic()) == pytest.approx(a.offer().retry_in(a.monotonic()))
    assert b.standing(model="n") is Standing.HEALTHY
    assert b.standing(backend=1) is Standing.HEALTHY


async def test_circuit_that_one_edge_closed_is_closed_at_the_other(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.fails()
    await a.share()
    await b.share()
    region.now += OPEN_CAP_SECONDS
    b.succeeds()
    await b.share()
    await a.share()
    assert (a.standing(), b.standing()) == (Standing.HEALTHY, Standing.HEALTHY)


async def test_what_a_probe_saw_is_known_to_all(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.probes(reached=True, rtt_ms=7.5, load=EngineLoad(waiting=3, running=2, kv_use=0.5))
    await a.share()
    await b.share()
    state = b.fleet.states[0]
    assert state.waiting(b.monotonic()) == 3
    assert state.measured_rtt_ms == 7.5
    assert state.probe.last.load == EngineLoad(waiting=3, running=2, kv_use=0.5)
    assert not b.fleet.states[1].probe.is_there


async def test_backend_that_a_probe_reached_again_is_back_at_all_edges(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.probes(reached=False)
    await a.share()
    await b.share()
    assert b.standing() is Standing.UNREACHABLE
    region.now += 5
    a.probes(reached=True)
    await a.share()
    await b.share()
    assert b.standing() is Standing.HEALTHY


async def test_ejection_is_shared(region: Region) -> None:
    a, b = region.edge(), region.edge()
    for _ in range(5):
        a.offer().backend.ejection.on_failure(a.monotonic(), begun=a.monotonic(), fault=Fault.DROPPED)
    a.offer().backend.eject_if_due(a.monotonic(), "reset")
    await a.share()
    await b.share()
    assert b.fleet.states[0].ejection.retry_in(b.monotonic()) == a.fleet.states[0].ejection.retry_in(a.monotonic())
    assert b.standing(model="n") is Standing.EJECTED


async def test_how_soon_a_backend_answers_is_told_now_and_then_and_with_other_news(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.offer().speed.on_first_token(800.0, now=a.monotonic())
    await a.share()
    await b.share()
    assert b.offer().speed.first_token_ms(b.monotonic()) == pytest.approx(800.0)
    region.now += 1
    a.offer().speed.on_first_token(900.0, now=a.monotonic())
    await a.share()
    assert region.table.writes == 1
    region.now += SPEED_SECONDS
    a.offer().speed.on_first_token(950.0, now=a.monotonic())
    await a.share()
    assert region.table.writes == 2


@pytest.mark.parametrize("ahead", [-90.0, 90.0])
async def test_clock_that_is_wrong_by_a_minute_and_a_half_locks_no_backend_out(region: Region, ahead: float) -> None:
    a, b = region.edge(ahead=ahead), region.edge(ahead=-ahead)
    a.fails()
    await a.share()
    await b.share()
    assert b.offer().retry_in(b.monotonic()) <= OPEN_CAP_SECONDS * 1.1
    region.now += OPEN_CAP_SECONDS * 1.1
    for _ in range(3):
        await a.share()
        await b.share()
    assert b.offer().takes_requests(b.monotonic())
    b.succeeds()
    assert b.standing() is Standing.HEALTHY
    for _ in range(3):
        await b.share()
        await a.share()
        region.now += 1
    assert b.standing() is Standing.HEALTHY
    assert a.offer().takes_requests(a.monotonic())


async def test_newer_word_wins_though_its_edges_clock_is_behind(region: Region) -> None:
    a, b, c = region.edge(ahead=90.0), region.edge(ahead=-90.0), region.edge()
    a.probes(reached=False)
    await a.share()
    await b.share()
    region.now += 5
    b.probes(reached=True)
    await b.share()
    await c.share()
    await a.share()
    assert c.standing() is Standing.HEALTHY
    assert a.standing() is Standing.HEALTHY


async def test_edge_that_hears_an_older_word_before_it_told_its_own_still_tells_it(region: Region) -> None:
    a, b, c = region.edge(), region.edge(), region.edge()
    a.probes(reached=False)
    await a.share()
    region.now += 1
    b.probes(reached=True)
    await b.share()
    await c.share()
    assert c.standing() is Standing.HEALTHY


async def test_what_follows_from_a_word_that_was_heard_is_not_told_again(region: Region) -> None:
    """A lost probe opens circuits: at each edge that hears of it, without each saying so."""
    edges = [region.edge() for _ in range(3)]
    for _ in range(5):
        edges[0].probes(reached=False)
        for edge in (*edges, *edges):
            await edge.share()
        region.now += 5
    assert region.table.writes == 5
    assert all(edge.standing() is not Standing.HEALTHY for edge in edges)


async def test_nothing_is_written_when_nothing_is_new(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.fails()
    for _ in range(5):
        await a.share()
        await b.share()
        region.now += 1
    assert region.table.writes == 1


async def test_news_of_edges_that_write_at_the_same_moment_is_not_lost(region: Region) -> None:
    edges = [region.edge() for _ in range(3)]
    for edge in edges:
        await edge.share()
    edges[0].fails()
    now = edges[1].monotonic()
    for _ in range(3):
        edges[1].offer(1, "n").on_failure(now, "broken", begun=now, fault=Fault.ANSWER)
    edges[2].probes(reached=True, rtt_ms=1.0)
    await asyncio.gather(*(edge.exchange.publish() for edge in edges))
    late = region.edge()
    await late.exchange.refresh()
    assert late.standing() is Standing.EJECTED
    assert late.standing(1, "n") is Standing.EJECTED
    assert late.fleet.states[0].probe.is_there


async def test_memory_is_read_from_while_it_is_young(region: Region) -> None:
    edge = region.edge()
    for _ in range(10):
        await edge.exchange.refresh()
    assert region.table.reads == 1
    region.now += FRESH_SECONDS
    await asyncio.gather(*(edge.exchange.refresh() for _ in range(10)))
    assert region.table.reads == 2


async def test_without_the_table_an_edge_goes_on_with_what_it_knows_and_says_so_once(
    region: Region, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="isochrone")
    a, b = region.edge(), region.edge()
    a.probes(reached=False)
    await a.share()
    await b.share()
    region.table.failing = True
    for _ in range(3):
        region.now += SPARED_SECONDS
        await b.share()
    assert b.standing() is Standing.TRIAL
    assert b.exchange.failures == 3
    assert len(caplog.records) == 1


async def test_table_that_comes_back_hears_what_was_seen_meanwhile(region: Region) -> None:
    a, b = region.edge(), region.edge()
    region.table.failing = True
    await a.share()
    a.fails()
    await a.share()
    region.table.failing = False
    region.now += SPARED_SECONDS
    a.fails()
    await a.share()
    await b.share()
    assert b.standing() is Standing.EJECTED


async def test_table_that_does_not_answer_costs_a_request_a_moment_and_the_next_ones_nothing(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.routing.exchange.READ_SECONDS", 0.01)
    edge = region.edge()
    region.table.slow = True
    for _ in range(5):
        await edge.exchange.refresh()
        region.now += 1
    assert (region.table.reads, edge.exchange.failures) == (1, 1)


async def test_refusal_in_the_middle_of_a_write_raises_nothing(region: Region) -> None:
    edge = region.edge()
    edge.fails()
    region.table.fail_next = 1
    await edge.exchange.publish()
    assert edge.exchange.failures == 1
    with pytest.raises(StoreUnavailable):
        region.table.failing = True
        await region.table.read(DOCUMENT, now=0)


async def test_edges_of_another_configuration_share_what_both_know(region: Region) -> None:
    a, b = region.edge(), region.edge()
    a.fails()
    await a.share()
    document, version = await region.table.read(DOCUMENT, now=region.now)
    assert document is not None
    document["backends"]["pool-z"] = document["backends"]["pool-a"]
    document["backends"]["pool-b"] = {"circuit m": {"stamp": 1.0, "note": {"at": "never"}}}
    await region.table.write(DOCUMENT, document, version=version, expires=region.now + 60)
    await b.share()
    assert (b.standing(), b.standing(backend=1)) == (Standing.EJECTED, Standing.HEALTHY)
    b.probes(reached=True)
    await b.share()
    document, _ = await region.table.read(DOCUMENT, now=region.now)
    assert document is not None
    assert set(document["backends"]) == {"pool-a", "pool-b"}
