"""A backend is sent no more requests in a day than it takes, whoever sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from isochrone.routing.daily import DAY, DailyCaps
from isochrone.routing.fleet import BackendState
from isochrone.routing.places import Home
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryFleetStore
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Upstream

pytestmark = pytest.mark.anyio

NOON = 20_000 * DAY + 43_200.0


class World:
    """One fleet table, and clocks that the test sets."""

    def __init__(self, cap: int | None, *, share: float = 1.0) -> None:
        self.now = NOON
        self.store = MemoryFleetStore(clock=lambda: self.now)
        self.facts = Backend(name="free", base_url="http://127.0.0.1:9/v1", models={"m": "m"}, requests_per_day=cap)
        self.share = share

    def edge(self, *, alone: bool = False) -> Edge:
        return Edge(self, Home(None if alone else self.store))


class Edge:
    """One process: its own memory of the caps, and its own state of the backend."""

    def __init__(self, world: World, home: Home) -> None:
        self.state = BackendState(world.facts, edge_region="us-east-1")
        self.caps = DailyCaps(
            lambda _: home, local_share=world.share, wall=lambda: world.now, clock=lambda: world.now - NOON
        )

    async def sent(self, requests: int) -> int:
        """How many of so many requests may be sent."""
        return sum([await self.caps.take(self.state) for _ in range(requests)])


async def test_a_backend_without_a_cap_is_not_counted() -> None:
    world = World(None)
    world.store.failing = True
    assert await world.edge().sent(5) == 5


async def test_two_edges_send_together_no_more_than_the_cap() -> None:
    world = World(7)
    one, other = world.edge(), world.edge()
    assert await one.sent(4) + await other.sent(10) + await one.sent(10) == 7


async def test_two_edges_that_send_at_the_same_time_send_together_exactly_the_cap() -> None:
    world = World(50)
    edges = [world.edge(), world.edge()]
    sent = await asyncio.gather(*(edge.caps.take(edge.state) for edge in edges * 40))
    assert sum(sent) == 50


async def test_an_edge_that_starts_anew_does_not_begin_to_count_anew() -> None:
    world = World(3)
    assert await world.edge().sent(2) == 2
    assert await world.edge().sent(9) == 1


async def test_the_cap_counts_anew_with_the_day_in_utc_and_until_then_the_backend_is_not_planned_with() -> None:
    world = World(2)
    edge = world.edge()
    assert await edge.sent(3) == 2
    assert edge.state.spent_until == DAY / 2
    world.now += DAY / 2
    assert await edge.sent(3) == 2


async def test_the_day_is_that_of_the_tables_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    assert await world.edge().sent(2) == 2
    monkeypatch.setattr(MemoryFleetStore, "offset", property(lambda _: DAY / 2))
    assert await world.edge().sent(3) == 2


async def test_of_a_large_cap_some_are_taken_at_once_and_it_is_used_up_but_not_exceeded() -> None:
    world = World(2_500)
    calls = 0
    take = world.store.take

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        return await take(*arguments, **options)  # type: ignore[arg-type]

    world.store.take = counted  # type: ignore[assignment]
    edge = world.edge()
    assert await edge.sent(2_500) == 2_500
    assert calls <= 1_300
    assert await edge.sent(3) == 0


@pytest.mark.parametrize(("share", "sent"), [(1.0, 10), (0.25, 3)])
async def test_while_the_table_is_gone_a_process_goes_on_with_its_share(share: float, sent: int) -> None:
    world = World(10, share=share)
    world.store.failing = True
    assert await world.edge().sent(20) == sent


async def test_without_a_table_a_process_counts_for_itself() -> None:
    assert await World(4).edge(alone=True).sent(9) == 4


async def test_a_table_that_keeps_silent_holds_a_request_for_a_moment_only_and_is_then_left_alone() -> None:
    world = World(4)
    silent = 0

    async def say_nothing(*_: object, **__: object) -> object:
        nonlocal silent
        silent += 1
        return await asyncio.Event().wait()

    world.store.take = say_nothing  # type: ignore[assignment]
    edge = world.edge()
    async with asyncio.timeout(30):
        assert await edge.sent(9) == 4
    assert silent == 1


# -- in an edge --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


async def by(edge: RunningEdge, number: int) -> list[str]:
    """Who answered so many requests, one after the other."""
    answers = [await edge.chat(messages=[{"role": "user", "content": str(i)}]) for i in range(number)]
    return [answer.headers.get("x-isochrone-backend") or answer.error["code"] for answer in answers]


async def test_a_backend_that_has_had_its_requests_is_passed_over(upstream: Upstream) -> None:
    free, paid = backend(upstream, requests_per_day=2), backend(upstream, place=1)
    async with running_edge(free, paid) as edge:
        assert await by(edge, 4) == ["pool-0", "pool-0", "pool-1", "pool-1"]
        seen = {one["name"]: one["why"] for one in (await edge.status())["backends"]}
    assert seen == {"pool-0": "has had its 2 requests of the day", "pool-1": None}
    assert len(upstream.requests) == 4


async def test_where_all_have_had_theirs_the_caller_is_told_until_when(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, requests_per_day=1)) as edge:
        assert await by(edge, 2) == ["pool-0", "daily_cap_reached"]
        refused = await edge.chat(messages=[{"role": "user", "content": "again"}])
    assert refused.status == 429
    assert "pool-0 its 1" in refused.error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= DAY
    assert len(upstream.requests) == 1


async def test_a_backend_that_was_found_spent_gives_its_place_back(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, requests_per_day=1, max_concurrency=1)) as edge:
        await by(edge, 2)
        assert (await edge.status())["backends"][0]["in_flight"] == 0
        assert edge.edge.pipeline.rooms.means.places.waiting == 0
        assert not any(slots.used for slots in edge.edge.pipeline.rooms.means.places._slots.values())


async def test_a_known_answer_costs_no_request_of_the_day(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, requests_per_day=1)) as edge:
        answers = [await edge.chat(messages=[{"role": "user", "content": "same"}], temperature=0) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3


async def test_a_share_that_is_used_up_ends_the_outage_and_not_the_day() -> None:
    world = World(100, share=0.1)
    edge = world.edge()
    world.store.failing = True
    assert await edge.sent(20) == 10
    assert edge.state.spent_until <= 5.0
    world.store.failing = False
    world.now += 5.0
    assert await edge.sent(3) == 3


async def test_what_was_let_through_without_the_table_counts_when_it_is_back() -> None:
    world = World(30, share=0.5)
    edges = [world.edge(), world.edge()]
    world.store.failing = True
    assert [await edge.sent(20) for edge in edges] == [15, 15]
    world.store.failing = False
    world.now += 5.0
    assert [await edge.sent(20) for edge in edges] == [15, 0]


async def test_what_was_let_through_without_the_table_is_told_once_by_all_who_come_with_it() -> None:
    world = World(100)
    edge = world.edge()
    world.store.failing = True
    assert await edge.sent(10) == 10
    world.store.failing = False
    world.now += 5.0
    world.store.fail_next = 1
    assert await edge.sent(1) == 1
    world.now += 5.0
    await asyncio.gather(*(edge.caps.take(edge.state) for _ in range(5)))
    assert await edge.sent(100) == 100 - 10 - 1 - 5
