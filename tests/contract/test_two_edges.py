"""What two edges keep together, of one region or of two, through real tables and over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from isochrone.settings import Settings
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.contract.conftest import PATIENT
from tests.faults.harness import REGIONS, RunningEdge, backend, eventually, running_edge
from tests.upstream import TEXT, Exchange, Upstream, ok

NO_STORE = {"x-isochrone-cache": "no-store"}
# Requests here may wait for an emulator that shares two cores with other tests.
DEADLINES = {"connect": 5.0, "first_token": 5.0, "stall": 5.0, "total": 60.0}


class Crowd:
    """A script that knows how many requests it had at once."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.1)
            await ok(exchange)
        finally:
            self.now -= 1


@pytest.fixture
async def pools() -> AsyncIterator[list[Upstream]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Upstream()) for _ in range(2)]


@pytest.fixture
async def shared(ministack: str, settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """The sections of a configuration whose edges share their tables."""
    await create_in(REGIONS[0], ministack, settings)
    state = {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)}
    return {"service": {"name": settings.service.name}, "state": state, "deadlines": DEADLINES}


async def create_in(region: str, ministack: str, settings: Settings) -> None:
    async with connect(region, endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)


async def two(
    stack: AsyncExitStack, *backends: dict[str, Any], regions: Sequence[str] = REGIONS[:1] * 2, **sections: Any
) -> list[RunningEdge]:
    return [await stack.enter_async_context(running_edge(*backends, region=region, **sections)) for region in regions]


async def test_two_edges_never_ask_a_backend_for_more_than_it_takes_at_once(
    pools: list[Upstream], shared: dict[str, Any]
) -> None:
    crowd = Crowd()
    pools[0].scripts["crowd"] = crowd
    async with AsyncExitStack() as stack:
        edges = await two(stack, backend(pools[0], "crowd", max_concurrency=3), **shared, routing={"max_wait": 60})
        asking = [edge.chat(headers=NO_STORE) for edge in edges for _ in range(10)]
        answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200] * 20
    assert 1 < crowd.most <= 3


@pytest.fixture
async def in_two_regions(
    ministack: str, settings: Settings, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Tables in the first two regions. The emulator is given time, so that what is told apart is not its speed."""
    monkeypatch.setattr("isochrone.routing.slots._PATIENCE_SECONDS", 20.0)
    await create_in(REGIONS[1], ministack, settings)
    return {**shared, "regions": REGIONS[:2], "routing": {"max_wait": 60}}


@pytest.mark.parametrize("stands", [*REGIONS[:2], "sa-east-1"])
async def test_edges_of_two_regions_never_ask_a_backend_for_more_than_it_takes_at_once(
    pools: list[Upstream], in_two_regions: dict[str, Any], stands: str
) -> None:
    """Wherever the backend stands: beside one of them, or where no edge is."""
    crowd = Crowd()
    pools[0].scripts["crowd"] = crowd
    facts = backend(pools[0], "crowd", region=stands, max_concurrency=3)
    async with AsyncExitStack() as stack:
        edges = await two(stack, facts, **in_two_regions)
        asking = [edge.chat(headers=NO_STORE) for edge in edges for _ in range(10)]
        answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200] * 20
    assert 1 < crowd.most <= 3


async def test_edges_go_on_with_limits_of_their_own_when_the_home_of_a_backend_is_gone(
    pools: list[Upstream], shared: dict[str, Any]
) -> None:
    """Its region has no tables."""
    crowd = Crowd()
    pools[0].scripts["crowd"] = crowd
    async with AsyncExitStack() as stack:
        far = backend(pools[0], "crowd", place=2, max_concurrency=3)
        edges = await two(stack, far, **shared, routing={"max_wait": 60})
        asking = [edge.chat(headers=NO_STORE) for edge in edges for _ in range(10)]
        answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200] * 20
    assert 3 < crowd.most <= 6


async def test_edge_leaves_a_backend_alone_that_another_one_found_dead(
    pools: list[Upstream], shared: dict[str, Any]
) -> None:
    async with AsyncExitStack() as stack:
        one, other = await two(stack, backend(pools[0], "dead"), backend(pools[1], place=1), **shared)
        answers = await asyncio.gather(*(one.chat(headers=NO_STORE) for _ in range(4)))
        assert [answer.text() for answer in answers] == [TEXT] * 4
        assert (await one.status())["backends"][0]["offers"][0]["circuit"] != "closed"

        async def other_knows() -> bool:
            return bool((await other.status())["backends"][0]["offers"][0]["circuit"] == "open")

        await eventually(other_knows, within=3.5)
        asked = len(pools[0].requests)
        answer = await other.chat(headers=NO_STORE)
        assert (answer.text(), answer.headers["x-isochrone-attempts"]) == (TEXT, "1")
        assert len(pools[0].requests) == asked


async def test_one_edge_probes_for_both(pools: list[Upstream], shared: dict[str, Any]) -> None:
    facts = backend(pools[0], engine="vllm")
    async with AsyncExitStack() as stack:
        edges = await two(stack, facts, **shared, routing={"probe_interval": 0.2})

        async def both_know() -> bool:
            seen = [(await edge.status())["backends"][0]["probe"] for edge in edges]
            return all(seen)

        await eventually(both_know, within=10)
        before, clock = pools[0].probes, asyncio.get_running_loop().time
        begun = clock()
        await eventually(lambda: pools[0].probes >= before + 2 * 8, within=30)
        rounds, seconds = (pools[0].probes - before) / 2, clock() - begun  # two calls each: health and metrics
    assert rounds <= seconds / 0.2 + 1


async def test_edges_go_on_alone_when_their_tables_are_gone(pools: list[Upstream], shared: dict[str, Any]) -> None:
    shared["state"]["endpoint_url"] = "http://127.0.0.1:9"
    async with AsyncExitStack() as stack:
        (edge, _) = await two(stack, backend(pools[0], max_concurrency=2), **shared)
        for _ in range(5):
            assert (await edge.chat(headers=NO_STORE)).text() == TEXT

        async def it_says_so() -> bool:
            return bool((await edge.status())["fleet"]["failures"])

        await eventually(it_says_so, within=10)
