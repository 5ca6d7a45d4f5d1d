"""What a running edge says of what its known answers saved, and to whom."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.harness import backend, eventually, running_edge
from tests.faults.test_cache import KEYS, asked_and_settled, bearer
from tests.upstream import USAGE, Upstream

PRICE = {"input": 1.0, "output": 2.0}


async def test_a_hit_is_seen_with_what_it_saved_in_status_and_metrics(near: Upstream) -> None:
    async with running_edge(backend(near, price=PRICE)) as edge:
        miss = await asked_and_settled(edge)
        hit = await edge.chat()
        status = (await edge.status())["answers"]
        metrics = (await edge.request("GET", "/metrics")).body.decode()
        (entry,) = await edge.ledger()
    assert (status["requests"], status["hits"], status["hit_ratio"]) == (2, 1, 0.5)
    assert status["tiers"]["memory"]["hits"] == 1
    assert status["dollars_saved"] == pytest.approx(entry["cost"])
    assert status["tokens_saved"] == USAGE["completion_tokens"]
    assert 0 <= status["seconds_saved"] < 10
    assert 'isochrone_answers_total{tier="memory"} 1' in metrics
    assert "isochrone_answers_missed_total 1" in metrics
    assert entry["answer"] == hit.headers["x-isochrone-answer"]
    assert miss.status == 200


async def test_another_tenant_sees_nothing_of_it(near: Upstream) -> None:
    async with running_edge(backend(near), auth={"required": True}, key=KEYS) as edge:
        await asked_and_settled(edge, headers=bearer("a"))
        await edge.chat(headers=bearer("a"))
        seen = {
            tenant: (await edge.request("GET", "/v1/status", headers=bearer(tenant))).fields["answers"]
            for tenant in ("a", "b")
        }
    assert (seen["a"]["hits"], seen["a"]["requests"]) == (1, 2)
    assert (seen["b"]["hits"], seen["b"]["requests"], seen["b"]["tiers"]) == (0, 0, {})


async def test_what_may_not_be_known_is_neither_hit_nor_miss(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await asked_and_settled(edge, headers={"x-isochrone-cache": "no-store"})
        await asked_and_settled(edge, temperature=0.7)
        status = (await edge.status())["answers"]
        entries = await edge.ledger()
    assert (status["requests"], status["hit_ratio"]) == (0, None)
    assert [entry["answer"] for entry in entries] == [None, None]


async def test_a_refresh_that_was_asked_for_is_no_miss(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await asked_and_settled(edge)
        await asked_and_settled(edge, headers={"x-isochrone-cache": "no-cache"})
        assert (await edge.status())["answers"]["requests"] == 1


async def test_sums_reach_the_store_by_themselves_and_once_more_at_the_end(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.life._ROLLUP_SECONDS", 0.05)
    async with running_edge(backend(near)) as edge:
        savings = edge.edge.pipeline.rooms.savings
        await asked_and_settled(edge)
        await eventually(lambda: not savings._waiting, within=5)
        await edge.chat()
    assert not savings._waiting


@pytest.mark.parametrize("stream", [False, True])
async def test_who_shares_a_generation_is_a_hit_that_saved_its_dollars(near: Upstream, stream: bool) -> None:
    async with running_edge(backend(near, "gated", price=PRICE)) as edge:
        asking = [asyncio.create_task(edge.chat(stream=stream)) for _ in range(3)]
        await eventually(lambda: len(near.requests) == 1)
        near.gate.set()
        answers = await asyncio.gather(*asking)
        await edge.settled()
        status = (await edge.status())["answers"]
        (entry,) = await edge.ledger()
    assert sorted(answer.headers["x-isochrone-cache"] for answer in answers) == ["coalesced", "coalesced", "miss"]
    assert (status["requests"], status["tiers"]["coalesced"]["hits"]) == (3, 2)
    assert status["dollars_saved"] == pytest.approx(2 * entry["cost"])
