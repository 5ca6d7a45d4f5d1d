"""Limits as a client meets them: at a real edge, with a backend behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from hashlib import sha256
from itertools import count
from typing import Any

import pytest

from isochrone.pii.found import Finder, Found
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import USAGE, Upstream

KEY = "sk-limited"
USED = USAGE["prompt_tokens"] + USAGE["completion_tokens"]
PRICE = {"input": 1000.0, "output": 1000.0}


def key(**limits: Any) -> dict[str, Any]:
    return {"id": "limited", "sha256": sha256(KEY.encode()).hexdigest(), "tenant": "t", **limits}


async def ask(edge: RunningEdge, *, cache: str = "no-store", **options: Any) -> Answer:
    return await edge.chat(headers={"authorization": f"Bearer {KEY}", "x-isochrone-cache": cache}, **options)


async def test_a_request_too_many_gets_429_in_openais_shape_and_no_backend_hears_of_it(near: Upstream) -> None:
    async with running_edge(backend(near), key=[key(requests_per_minute=2)]) as edge:
        replies = [await ask(edge) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["1", "0", "0", "0"]
    assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"2"}
    assert (replies[2].error["type"], replies[2].error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(replies[2].headers["retry-after"]) <= 120
    assert len(near.requests) == 2


async def test_tokens_count_by_what_was_used_and_not_by_what_was_reserved(near: Upstream) -> None:
    async with running_edge(backend(near), key=[key(tokens_per_minute=5000)]) as edge:
        for number in range(1, 4):
            reply = await ask(edge, max_tokens=1000)
            await edge.settled()
            assert reply.status == 200
            assert await remaining(edge) == 5000 - number * USED


async def test_what_several_answers_took_is_not_expected_of_each_of_them(near: Upstream) -> None:
    async with running_edge(backend(near), key=[key(tokens_per_minute=5000)]) as edge:
        assert (await ask(edge, n=3)).status == 200
        await edge.settled()
        front = edge.edge.pipeline.rooms.front
        assert front._forecast.of("m", 0).tokens == round(1.25 * USAGE["completion_tokens"] / 3)


async def test_nothing_is_looked_for_in_a_request_that_is_too_many(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), key=[key(requests_per_minute=1, pii="upstream")]) as edge:
        looked, find_in = count(), Finder.find_in

        def counted(finder: Finder, texts: Sequence[str]) -> list[list[Found]]:
            next(looked)
            return find_in(finder, texts)

        monkeypatch.setattr(Finder, "find_in", counted)
        assert [(await ask(edge)).status for _ in range(3)] == [200, 429, 429]
    assert next(looked) == 1


async def test_a_stream_that_its_client_leaves_pays_what_was_told_and_gets_the_rest_back(near: Upstream) -> None:
    async with running_edge(backend(near, "stalled"), key=[key(tokens_per_minute=5000)]) as edge:
        leaving = asyncio.create_task(ask(edge, stream=True, max_tokens=4000))
        await eventually(lambda: bool(near.requests))
        assert await remaining(edge) < 1000
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        async def is_given_back() -> bool:
            return await remaining(edge) > 4900

        await eventually(is_given_back)
        assert await remaining(edge) < 5000


async def test_a_request_that_fails_gives_its_reservation_back(near: Upstream) -> None:
    async with running_edge(backend(near, "dead"), key=[key(tokens_per_minute=5000)], retry={"attempts": 1}) as edge:
        assert (await ask(edge, max_tokens=4000)).status >= 500
        assert await remaining(edge) == 5000


async def test_a_known_answer_costs_a_request_and_no_tokens(near: Upstream) -> None:
    async with running_edge(backend(near), key=[key(tokens_per_minute=5000, requests_per_minute=9)]) as edge:
        await ask(edge, cache="no-cache")
        await edge.settled()
        before = await remaining(edge)
        reply = await edge.chat(headers={"authorization": f"Bearer {KEY}"})
        assert reply.headers["x-isochrone-cache"] == "hit"
        assert reply.headers["x-ratelimit-remaining-requests"] == "7"
        assert await remaining(edge) == before


async def test_an_old_answer_is_made_anew_only_with_tokens_that_its_caller_has(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"ttl": 60, "stale_while_revalidate": 36_000}
    async with running_edge(backend(near), key=[key(tokens_per_minute=1000)], answers=answers) as edge:
        await ask(edge, cache="", max_tokens=100)
        await edge.settled()
        monkeypatch.setattr(edge.edge.pipeline, "_now", lambda: time.time() + 3600.0)
        front = edge.edge.pipeline.rooms.front
        others = await front.limiter.admit(front.identity._ring.principals[0], "", "m")
        await others.reserve(950, 0.0)
        assert await revalidated(edge, near) == 1
        others.close()
        assert await revalidated(edge, near) == 2
        assert await remaining(edge) == 1000 - 2 * USED


async def revalidated(edge: RunningEdge, upstream: Upstream) -> int:
    """How often a backend was asked, after one more known answer past its time."""
    reply = await ask(edge, cache="", max_tokens=100)
    assert reply.headers["x-isochrone-stale"] == "revalidating"
    await edge.settled()
    return len(upstream.requests)


async def test_a_place_is_held_until_the_last_event_and_free_after_it(near: Upstream) -> None:
    async with running_edge(backend(near, "stalled"), key=[key(concurrency=1)]) as edge:
        first = asyncio.create_task(ask(edge, stream=True))
        await eventually(lambda: bool(near.requests))
        refused = await ask(edge)
        assert (refused.status, "concurrency = 1" in refused.error["message"]) == (429, True)
        await first
        assert (await ask(edge, stream=True)).status == 200


async def test_money_that_is_used_up_is_an_insufficient_quota_and_was_told_before(near: Upstream) -> None:
    dollars = USED * 1000 / 1_000_000
    budget = key(dollars_per_month=2.5 * dollars)
    async with running_edge(backend(near, price=PRICE), key=[budget]) as edge:
        levels = []
        for _ in range(2):
            reply = await ask(edge, max_tokens=USAGE["completion_tokens"])
            levels.append(reply.headers.get("x-isochrone-budget"))
            await edge.settled()
        refused = await ask(edge, max_tokens=1000)
    assert levels[1] in ("50", "80")
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-isochrone-budget"] == "100"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/status"])
async def test_asking_about_the_service_uses_nothing(near: Upstream, path: str) -> None:
    async with running_edge(backend(near), key=[key(requests_per_minute=1)]) as edge:
        for _ in range(3):
            headers = {"authorization": f"Bearer {KEY}"}
            assert (await edge.request("GET", path, headers=headers)).status == 200
        assert (await ask(edge)).status == 200


async def remaining(edge: RunningEdge) -> int:
    """Of the tokens of this minute."""
    (scope,) = [one for one in edge.edge.pipeline.rooms.front.limiter._scopes.all() if one.short]
    assert scope.short is not None
    (quota,) = [quota for quota in scope.short.sheet.quotas if quota.kind.unit == "token"]
    return int(quota.remaining(scope.short.now()))
