"""A known answer is told again at once, in either form, to its own tenant only."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from isochrone.api.requests import CHAT
from isochrone.upstream.gathering import Gathering
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import (
    DONE,
    FUNCTION,
    REASONING,
    TEXT,
    USAGE,
    Exchange,
    Upstream,
    chunk,
    completion,
    event,
    words,
)

KEYS = [
    {"id": tenant, "tenant": tenant, "sha256": sha256(f"key-of-{tenant}".encode()).hexdigest()} for tenant in ("a", "b")
]


def bearer(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{tenant}"}


def cache(answer: Answer) -> str:
    return answer.headers["x-isochrone-cache"]


async def asked_and_settled(edge: RunningEdge, **options: Any) -> Answer:
    answer = await edge.chat(**options)
    await edge.settled()
    return answer


@pytest.mark.parametrize("first", [False, True], ids=["body first", "stream first"])
@pytest.mark.parametrize("second", [False, True], ids=["then body", "then stream"])
async def test_answer_is_a_miss_once_and_a_hit_afterwards_in_either_form(
    near: Upstream, first: bool, second: bool
) -> None:
    async with running_edge(backend(near)) as edge:
        miss = await asked_and_settled(edge, stream=first)
        hit = await edge.chat(stream=second)
        assert (cache(miss), cache(hit)) == ("miss", "hit")
        assert miss.text() == hit.text() == TEXT
        assert hit.headers["x-isochrone-backend"] == "pool-0"
        assert hit.headers["x-isochrone-attempts"] == "0"
        assert len(near.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_hit_has_usage_and_thoughts_and_an_id_of_its_own(near: Upstream, stream: bool) -> None:
    async with running_edge(backend(near, "reasoning")) as edge:
        miss = await asked_and_settled(edge, stream=True, stream_options={"include_usage": True})
        hit = await edge.chat(stream=stream, stream_options={"include_usage": True})
        assert (hit.text("reasoning_content"), hit.text()) == ("".join(REASONING), TEXT)
        whole = hit.chunks[-1] if stream else hit.fields
        assert whole["usage"] == USAGE | {"prompt_tokens_details": {"cached_tokens": USAGE["prompt_tokens"]}}
        assert whole["id"] != miss.chunks[0]["id"]
        if stream:
            assert hit.events[-1] == b"[DONE]"


async def test_no_store_neither_reads_nor_writes(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        headers = {"x-isochrone-cache": "no-store"}
        assert cache(await asked_and_settled(edge, headers=headers)) == "bypass"
        assert cache(await asked_and_settled(edge)) == "miss"
        assert cache(await edge.chat(headers=headers)) == "bypass"
        assert len(near.requests) == 3


async def test_no_cache_refreshes(near: Upstream) -> None:
    async with running_edge(backend(near, "failing-once")) as edge:
        await asked_and_settled(edge)
        assert cache(await asked_and_settled(edge, headers={"x-isochrone-cache": "no-cache"})) == "miss"
        assert cache(await edge.chat()) == "hit"
        assert len(near.requests) == 3


async def test_only_never_asks_a_backend(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        answer = await edge.chat(headers={"x-isochrone-cache": "only"})
        assert (answer.status, answer.error["code"]) == (404, "not_cached")
        assert near.requests == []
        await asked_and_settled(edge)
        assert cache(await edge.chat(headers={"x-isochrone-cache": "only"})) == "hit"


async def test_senseless_cache_header_is_refused(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        answer = await edge.chat(headers={"x-isochrone-cache": "sometimes"})
        assert (answer.status, answer.error["param"]) == (400, "x-isochrone-cache")


async def test_other_tenant_sees_nothing_of_a_known_answer(near: Upstream) -> None:
    async with running_edge(backend(near), key=KEYS, auth={"required": True}) as edge:
        assert cache(await asked_and_settled(edge, headers=bearer("a"))) == "miss"
        other = await asked_and_settled(edge, headers=bearer("b"))
        assert cache(other) == "miss"
        only = await edge.chat(headers={**bearer("b"), "x-isochrone-cache": "only"}, temperature=0)
        assert only.status == 404
        assert cache(await edge.chat(headers=bearer("a"))) == "hit"
        assert len(near.requests) == 2


async def test_other_tenants_ledger_is_not_shown(near: Upstream) -> None:
    async with running_edge(backend(near), key=KEYS, auth={"required": True}) as edge:
        await asked_and_settled(edge, headers=bearer("a"))
        own = await edge.request("GET", "/v1/ledger", headers=bearer("a"))
        other = await edge.request("GET", "/v1/ledger", headers=bearer("b"))
        assert [entry["tenant"] for entry in own.fields["data"]] == ["a"]
        assert other.fields["data"] == []


async def test_request_that_differs_in_a_field_nobody_knows_is_another_one(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await asked_and_settled(edge)
        assert cache(await edge.chat(guided_regex="[a-z]+")) == "miss"


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"temperature": 0.8}, {"tools": [{"type": "function"}]}, {"logprobs": True}]
)
async def test_answer_that_may_not_be_kept_says_bypass(near: Upstream, more: dict[str, Any]) -> None:
    async with running_edge(backend(near)) as edge:
        assert cache(await asked_and_settled(edge, **more)) == "bypass"
        assert cache(await edge.chat(**more)) == "bypass"


async def two_choices(exchange: Exchange) -> None:
    """Both at once, one of them cut off by its limit, with log probabilities."""
    logprobs: Any = {"content": [{"token": "An ", "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}
    body = completion()
    choices = [
        {**body["choices"][0], "index": index, "logprobs": logprobs, "finish_reason": finish}
        for index, finish in enumerate(("stop", "length"))
    ]
    if not exchange.wants_stream:
        await exchange.json({**body, "choices": choices})
        return
    pieces = [
        event({**body, "object": "chat.completion.chunk", "usage": None, "choices": [piece]})
        for choice in choices
        for piece in (
            {"index": choice["index"], "delta": choice["message"], "logprobs": logprobs, "finish_reason": None},
            {"index": choice["index"], "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]},
        )
    ]
    await exchange.stream([*pieces, event({**body, "choices": []}), DONE])


def told(answer: Answer) -> list[Any]:
    """The choices of an answer in either form."""
    if not answer.chunks:
        return [(one["message"], one["logprobs"], one["finish_reason"]) for one in answer.fields["choices"]]
    gathering = Gathering()
    for one in answer.chunks:
        gathering.add(one)
    body = gathering.body(CHAT, model="m", usage=None, now=0)
    return [(one["message"], one["logprobs"], one["finish_reason"]) for one in body["choices"]]


@pytest.mark.parametrize(
    ("script", "more", "also"),
    [
        ("tools", {"tools": [{"type": "function", "function": FUNCTION}]}, ["tools"]),
        ("two-choices", {"n": 2, "logprobs": True}, ["choices", "logprobs", "length"]),
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["body first", "stream first"])
@pytest.mark.parametrize("second", [False, True], ids=["then body", "then stream"])
async def test_what_the_operator_wants_kept_too_is_kept_and_told_again_whole(
    near: Upstream, script: str, more: dict[str, Any], also: list[str], first: bool, second: bool
) -> None:
    near.scripts["two-choices"] = two_choices
    async with running_edge(backend(near, script), answers={"also": also}) as edge:
        miss = await asked_and_settled(edge, stream=first, **more)
        hit = await edge.chat(stream=second, **more)
        assert (cache(miss), cache(hit)) == ("miss", "hit")
        assert told(hit) == told(miss)
        assert len(near.requests) == 1


async def test_hit_tells_usage_also_where_the_engine_told_none(near: Upstream) -> None:
    async with running_edge(backend(near, "without-usage")) as edge:
        await asked_and_settled(edge, stream=True)
        hit = await edge.chat()
        assert cache(hit) == "hit"
        assert hit.fields["usage"]["completion_tokens"] > 0


async def test_memory_forgets_when_its_time_is_over(near: Upstream) -> None:
    async with running_edge(backend(near), answers={"exact": False}) as edge:
        assert cache(await asked_and_settled(edge)) == "bypass"
        assert cache(await edge.chat()) == "bypass"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/status", "/v1/nowhere"])
async def test_no_proxy_on_the_way_may_keep_a_reply(near: Upstream, path: str) -> None:
    async with running_edge(backend(near)) as edge:
        answer = await (edge.chat() if path.endswith("completions") else edge.request("GET", path))
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["vary"] == "authorization"


async def test_fallbacks_answer_is_not_kept_as_the_models_own(near: Upstream, far: Upstream) -> None:
    resort = backend(far, place=1, models={"other": "ok"})
    async with running_edge(backend(near, "dead"), resort, model=[{"name": "m", "fallback": ["other"]}]) as edge:
        answers = [await asked_and_settled(edge, stream=stream) for stream in (False, True, False)]
        assert [cache(answer) for answer in answers] == ["miss"] * 3
        assert {answer.headers["x-isochrone-backend"] for answer in answers} == {"pool-1"}


async def test_tenants_see_no_counts_of_known_answers_where_there_are_keys(near: Upstream) -> None:
    async with running_edge(backend(near), auth={"required": True}, key=KEYS) as edge:
        for _ in range(2):
            await asked_and_settled(edge, headers=bearer("a"))
        seen = (await edge.request("GET", "/v1/status", headers=bearer("b"))).fields["counters"]
        assert seen["status_200"] == 2
        assert not [name for name in seen if name.startswith("cache_")]


async def test_look_up_counts_into_the_callers_time(near: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(backend(near)) as edge:

        async def never(*_: object, **__: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(edge.edge.pipeline.rooms.desk.library, "look_up", never)
        answer = await edge.chat(headers={"x-isochrone-timeout": "0.2"})
        assert (answer.status, answer.error["code"]) == (504, "deadline_passed")


async def test_answer_whose_usage_was_not_heard_because_the_client_left_is_not_kept(near: Upstream) -> None:
    async def usage_comes_late(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send(*words(), chunk(finish="stop"))
        await exchange.client_gone()

    near.scripts["ok"] = usage_comes_late
    async with running_edge(backend(near)) as edge:
        asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "How far?"}]}
        async with edge.session.post(edge.url + "/v1/chat/completions", json=asked) as response:
            async for line in response.content:
                if b'"stop"' in line:
                    break
            response.close()
        state = edge.edge.pipeline.rooms.fleet.states[0]
        await eventually(lambda: state.in_flight == 0)
        await edge.settled()
        assert [entry["outcome"] for entry in await edge.ledger()] == ["ok"]
        only = await edge.chat(stream=True, headers={"x-isochrone-cache": "only"})
        assert only.error["code"] == "not_cached"


async def test_a_miss_that_may_be_kept_names_the_answer_that_it_becomes(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        miss, hit = await asked_and_settled(edge), await edge.chat(stream=True)
        assert miss.headers["x-isochrone-answer"] == hit.headers["x-isochrone-answer"]
        unkept = await edge.chat(temperature=1.0)
        assert "x-isochrone-answer" not in unkept.headers
