"""Identical requests at a running edge: who shares a generation, who does not, and what becomes of it when it fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.faults.test_cache import KEYS, bearer, cache
from tests.upstream import TEXT, Exchange, Upstream, completion, ending, words


async def slowly(exchange: Exchange) -> None:
    """Says its first words, and the rest when the gate is open."""
    if not exchange.wants_stream:
        await exchange.backend.gate.wait()
        await exchange.json(completion())
        return
    await exchange.begin_stream()
    await exchange.send(*words()[:4])
    await exchange.backend.gate.wait()
    await exchange.send(*words()[4:], *ending(exchange))
    await exchange.end()


@pytest.fixture
def slow(near: Upstream) -> Upstream:
    near.scripts["slowly"] = slowly
    return near


async def asked(edge: RunningEdge, upstream: Upstream, *askers: dict[str, Any]) -> list[Answer]:
    """All of them at once; the backend goes on when the edge has taken all of them in."""
    asking = [asyncio.create_task(edge.chat(**asker)) for asker in askers]
    await eventually(lambda: bool(upstream.requests))
    await asyncio.sleep(0.2)
    upstream.gate.set()
    return await asyncio.gather(*asking)


async def test_fifty_at_once_share_one_call_each_in_its_own_form(slow: Upstream) -> None:
    told = {"include_usage": True}
    forms: list[dict[str, Any]] = [{"stream": True}, {"stream": False}, {"stream": True, "stream_options": told}]
    askers = [{**forms[number % 3], "headers": {"x-request-id": f"r{number}"}} for number in range(50)]
    async with running_edge(backend(slow, "slowly")) as edge:
        answers = await asked(edge, slow, *askers)
        entries = await edge.ledger()
    assert len(slow.requests) == len(entries) == 1
    assert [answer.text() for answer in answers] == [TEXT] * 50
    assert sorted(map(cache, answers)) == ["coalesced"] * 49 + ["miss"]
    assert {answer.headers["x-isochrone-backend"] for answer in answers} == {"pool-0"}
    assert [answer.headers["x-request-id"] for answer in answers] == [f"r{number}" for number in range(50)]
    streams = [answer for answer, asker in zip(answers, askers, strict=True) if asker["stream"]]
    assert all(answer.events[-1] == b"[DONE]" for answer in streams)
    with_usage = [b'"usage"' in answer.body for answer in answers]
    assert with_usage == [number % 3 != 0 for number in range(50)]


@pytest.mark.parametrize(
    "other",
    [
        {"headers": {"x-isochrone-cache": "no-cache"}},
        {"headers": {"x-isochrone-cache": "no-store"}},
        {"headers": {"x-isochrone-recovery": "restart"}},
        {"headers": {"x-isochrone-recovery": "error"}},
        {"headers": {"x-isochrone-priority": "9"}},
        {"temperature": 0.7},
        {"seed": 7},
    ],
    ids=["no-cache", "no-store", "restart", "error", "more urgent", "varied", "another field"],
)
async def test_one_that_wants_it_otherwise_has_a_generation_of_its_own(slow: Upstream, other: dict[str, Any]) -> None:
    async with running_edge(backend(slow, "slowly")) as edge:
        asking = asyncio.create_task(edge.chat())
        await eventually(lambda: len(slow.requests) == 1)
        own = asyncio.create_task(edge.chat(**other))
        await eventually(lambda: len(slow.requests) == 2)
        slow.gate.set()
        assert [(await one).text() for one in (asking, own)] == [TEXT] * 2


@pytest.mark.parametrize(
    "sections", [{"answers": {"coalesce": False}}, {"model": [{"name": "m", "answers": {"coalesce": False}}]}]
)
async def test_nobody_shares_where_that_is_switched_off(slow: Upstream, sections: dict[str, Any]) -> None:
    async with running_edge(backend(slow, "slowly"), **sections) as edge:
        asking = [asyncio.create_task(edge.chat()) for _ in range(3)]
        await eventually(lambda: len(slow.requests) == 3)
        slow.gate.set()
        assert {cache(answer) for answer in await asyncio.gather(*asking)} == {"miss"}


async def test_tenants_share_nothing(slow: Upstream) -> None:
    async with running_edge(backend(slow, "slowly"), key=KEYS, auth={"required": True}) as edge:
        asking = [asyncio.create_task(edge.chat(headers=bearer(tenant))) for tenant in "aabb"]
        await eventually(lambda: len(slow.requests) == 2)
        slow.gate.set()
        answers = await asyncio.gather(*asking)
    assert sorted(map(cache, answers)) == ["coalesced", "coalesced", "miss", "miss"]
    assert len(slow.requests) == 2


async def test_answers_that_are_not_kept_are_shared_too(slow: Upstream) -> None:
    async with running_edge(
        backend(slow, "slowly"), answers={"rule": [{"name": "none", "pattern": "far", "ttl": 0}]}
    ) as edge:
        answers = await asked(edge, slow, *[{"stream": number % 2 == 0} for number in range(6)])
        assert [answer.text() for answer in answers] == [TEXT] * 6
        assert len(slow.requests) == 1
        await edge.settled()
        await edge.chat()
    assert len(slow.requests) == 2


@pytest.mark.parametrize("script", ["cut", "stalled", "error-after-words", "senseless-after-words"])
async def test_a_stream_that_dies_is_gone_on_with_for_all(near: Upstream, far: Upstream, script: str) -> None:
    async with running_edge(backend(near, script), backend(far, place=1)) as edge:
        answers = await asyncio.gather(*(edge.chat(stream=True) for _ in range(8)))
    assert [(answer.text(), answer.events[-1]) for answer in answers] == [(TEXT, b"[DONE]")] * 8
    assert (len(near.requests), len(far.requests)) == (1, 1)


@pytest.mark.parametrize("script", ["cut", "stalled", "error-after-words"])
async def test_a_stream_that_nobody_can_end_is_a_success_for_nobody(near: Upstream, script: str) -> None:
    async with running_edge(backend(near, script), retry={"attempts": 1}) as edge:
        answers = await asyncio.gather(*(edge.chat(stream=True) for _ in range(8)))
        await edge.settled()
        again = await edge.chat(stream=True)
    for answer in (*answers, again):
        assert "error" in answer.chunks[-1]
        assert b"[DONE]" not in answer.body
    assert cache(again) == "miss"
    assert len(near.requests) == 2


async def test_a_failure_has_one_successor_and_a_refusal_none(near: Upstream) -> None:
    for script, calls, first, others in (("failing-once", 2, 503, 200), ("context-length", 1, 400, 400)):
        near.requests.clear()
        async with running_edge(backend(near, script), retry={"attempts": 1}) as edge:
            statuses = sorted([answer.status for answer in await asyncio.gather(*(edge.chat() for _ in range(10)))])
        assert statuses == sorted([first, *[others] * 9])
        assert len(near.requests) == calls


async def test_the_backend_is_let_go_within_a_second_when_the_last_asker_has_left(near: Upstream) -> None:
    async with running_edge(backend(near, "endless")) as edge:
        begun = [asyncio.Event() for _ in range(3)]
        asking = [asyncio.create_task(edge.chat(stream=True, on_first=event.set)) for event in begun]
        await asyncio.gather(*(event.wait() for event in begun))
        asking[0].cancel()
        asking[1].cancel()
        await asyncio.sleep(0.2)
        assert not near.requests[0].client_left.is_set()
        asking[2].cancel()
        await asyncio.wait_for(near.requests[0].client_left.wait(), 1.0)
        await asyncio.gather(*asking, return_exceptions=True)
        await edge.settled()
    assert len(near.requests) == 1


async def test_an_edge_that_is_closed_lets_the_backend_go_and_tells_who_still_listens(near: Upstream) -> None:
    async with running_edge(backend(near, "endless")) as edge:
        begun = asyncio.Event()
        asking = asyncio.create_task(edge.chat(stream=True, on_first=begun.set))
        await begun.wait()
        await edge.edge.close()
        answer = await asking
    assert "error" in answer.chunks[-1]
    assert near.requests[0].client_left.is_set()
