"""What one edge takes back, another one of the same tables obeys, resident or frozen between requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from isochrone import listening
from isochrone.answers import rulebook
from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.contract.conftest import PATIENT
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import Upstream

ONLY = {"x-isochrone-cache": "only"}


@pytest.fixture
async def pool() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def shared(ministack: str, settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """The sections of a configuration whose edges share their tables, on an emulator that is given time."""
    async with connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
    state = {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)}
    return {"service": {"name": settings.service.name}, "state": state}


async def two(stack: AsyncExitStack, pool: Upstream, shared: dict[str, Any]) -> list[RunningEdge]:
    return [await stack.enter_async_context(running_edge(backend(pool), **shared)) for _ in range(2)]


async def known_at(edge: RunningEdge) -> Answer:
    """The answer from what is known there; 404 where it is not."""
    return await edge.chat(headers=ONLY)


async def asked_everywhere(edges: list[RunningEdge]) -> str:
    """The id of an answer that every edge has in its memory."""
    await edges[0].chat()
    await edges[0].settled()
    answers = [await known_at(edge) for edge in edges]
    assert [answer.status for answer in answers] == [200, 200]
    return answers[0].headers["x-isochrone-answer"]


@pytest.mark.parametrize("what", ["/{mark}", "?pattern=*FAR*"])
async def test_answer_in_the_memory_of_another_edge_is_not_known_there_any_more(
    pool: Upstream, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("isochrone.life._REVOCATIONS_SECONDS", 0.05)
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        mark = await asked_everywhere([here, there])
        reply = await here.request("DELETE", "/v1/answers" + what.format(mark=mark))
        assert reply.status == 200
        assert (await known_at(here)).status == 404

        async def obeyed() -> bool:
            return (await known_at(there)).status == 404

        await eventually(obeyed, within=10.0)


async def test_edge_without_chores_asks_before_it_gives_a_known_answer(
    pool: Upstream, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a function, which is frozen between requests: here nothing is read but by who asks."""
    monkeypatch.setattr("isochrone.life._REVOCATIONS_SECONDS", 3600.0)
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        mark = await asked_everywhere([here, there])
        await here.request("DELETE", f"/v1/answers/{mark}")
        monkeypatch.setattr(listening.Listening, "_is_due", lambda *_: True)
        assert (await known_at(there)).status == 404


async def test_edge_that_starts_later_knows_what_was_taken_back(
    pool: Upstream, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        await asked_everywhere([here, there])
        await there.request("DELETE", "/v1/answers?pattern=*")
        late = await stack.enter_async_context(running_edge(backend(pool), **shared))
        assert (await known_at(late)).status == 404
        assert (await late.chat()).status == 200


async def test_answer_that_is_taken_back_leaves_nothing_in_the_table(
    pool: Upstream, shared: dict[str, Any], settings: Settings, ministack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        mark = await asked_everywhere([here, there])
        await asyncio.gather(*(edge.request("DELETE", f"/v1/answers/{mark}") for edge in (here, there)))
        client = await stack.enter_async_context(connect(REGIONS[0], endpoint_url=ministack, environ={}))
        scan = {"TableName": f"{settings.service.name}-answers"}
        assert (await client.call("Scan", scan, dict[str, Any]))["Items"] == []


async def test_answer_of_after_it_is_kept_in_place_of_one_whose_leases_had_counted_further(
    pool: Upstream, shared: dict[str, Any], settings: Settings, ministack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    monkeypatch.setattr(rulebook, "SKEW_SECONDS", 0.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        mark = await asked_everywhere([here, there])
        client = await stack.enter_async_context(connect(REGIONS[0], endpoint_url=ministack, environ={}))
        store = DynamoAnswerStore(client, table_name(settings, "answers"))
        now = time.time()
        value = await store.get(mark, now=now)
        assert value
        assert await store.put(mark, value, tenant="anonymous", expires=now + 60, fresh_until=now + 60, fence=50)
        await here.request("DELETE", "/v1/answers?pattern=*")
        assert (await here.chat()).headers["x-isochrone-cache"] == "miss"
        await here.settled()
        late = await stack.enter_async_context(running_edge(backend(pool), **shared))
        assert (await known_at(late)).status == 200


async def test_edge_that_remembers_what_was_taken_back_finds_what_another_one_has_made_since(
    pool: Upstream, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    monkeypatch.setattr(rulebook, "SKEW_SECONDS", 0.0)
    async with AsyncExitStack() as stack:
        here, there = await two(stack, pool, shared)
        await asked_everywhere([here, there])
        await here.request("DELETE", "/v1/answers?pattern=*")
        assert (await here.chat()).headers["x-isochrone-cache"] == "miss"
        await here.settled()
        monkeypatch.setattr(listening.Listening, "_is_due", lambda *_: True)
        assert (await known_at(there)).status == 200
        assert len(pool.requests) == 2
