"""Policies hold over real sockets: what they deny reaches no backend, whatever else would allow it."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import Upstream

KEYS = [
    {"id": name, "tenant": f"t-{name}", "tags": tags, "sha256": sha256(name.encode()).hexdigest()}
    for name, tags in (("ann", ["staff"]), ("bob", []))
]
ALLOW_ALL = {"id": "all", "effect": "allow"}
STAFF = {"id": "staff", "effect": "allow", "principal": {"tag": ["staff"]}}


def secured(*policies: dict[str, Any]) -> dict[str, Any]:
    return {"auth": {"required": True}, "key": KEYS, "policy": list(policies)}


async def ask(edge: RunningEdge, key: str = "ann", **fields: Any) -> Answer:
    return await edge.chat(headers={"authorization": f"Bearer {key}"}, **fields)


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.fields["error"]["code"]


async def test_who_is_not_allowed_reaches_no_backend_and_is_told_the_rule_alone(upstream: Upstream) -> None:
    no = {"id": "not-bob", "effect": "deny", "principal": {"tenant": ["*-bob"]}}
    async with running_edge(backend(upstream), **secured(ALLOW_ALL, no)) as edge:
        assert (await ask(edge, "ann")).status == 200
        refused = await ask(edge, "bob")
        assert refusal(refused) == (403, "policy_denied")
        assert "not-bob" in refused.fields["error"]["message"]
        assert "*-bob" not in refused.fields["error"]["message"]
        assert len(upstream.requests) == 1


async def test_what_no_policy_allows_is_denied(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), **secured(STAFF)) as edge:
        assert (await ask(edge, "ann")).status == 200
        for path in ("/v1/models", "/v1/status", "/v1/ledger"):
            denied = await edge.request("GET", path, headers={"authorization": "Bearer bob"})
            assert refusal(denied) == (403, "policy_denied")
        assert refusal(await ask(edge, "bob")) == (403, "policy_denied")
        assert len(upstream.requests) == 1


async def test_an_answer_that_is_known_is_not_given_to_who_may_not_ask(upstream: Upstream) -> None:
    """The second key of the same tenant would have it from memory."""
    keys = [{**key, "tenant": "t"} for key in KEYS]
    async with running_edge(backend(upstream), **secured(STAFF) | {"key": keys}) as edge:
        assert (await ask(edge, "ann", temperature=0)).status == 200
        assert (await ask(edge, "ann", temperature=0)).headers["x-isochrone-cache"] == "hit"
        assert refusal(await ask(edge, "bob", temperature=0)) == (403, "policy_denied")


async def test_a_country_that_is_not_known_denies(upstream: Upstream) -> None:
    at_home = {"id": "at-home", "effect": "deny", "condition": {"not_country": ["FR"]}}
    async with running_edge(backend(upstream), **secured(ALLOW_ALL, at_home)) as edge:
        assert refusal(await ask(edge)) == (403, "policy_denied")


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 403), ("192.0.2.0/24", 200)])
async def test_the_address_is_that_of_the_connection(upstream: Upstream, network: str, status: int) -> None:
    no = {"id": "no", "effect": "deny", "condition": {"ip": [network]}}
    async with running_edge(backend(upstream), **secured(ALLOW_ALL, no)) as edge:
        assert (await ask(edge)).status == status


async def test_tokens_count_with_the_most_that_is_asked_for(upstream: Upstream) -> None:
    small = {"id": "small", "effect": "allow", "condition": {"tokens": {"max": 1000}}}
    async with running_edge(backend(upstream), **secured(small)) as edge:
        assert (await ask(edge, max_tokens=100)).status == 200
        assert refusal(await ask(edge, max_tokens=5000)) == (403, "policy_denied")
        assert refusal(await ask(edge, max_tokens=100, n=8, messages=[{"role": "user", "content": "word " * 900}])) == (
            403,
            "policy_denied",
        )


@pytest.mark.parametrize(
    ("context", "path", "fields", "status"),
    [
        (None, "/v1/completions", {"prompt": "a"}, 403),
        (None, "/v1/completions", {"prompt": "a", "max_tokens": 900}, 200),
        (None, "/v1/embeddings", {"input": "a"}, 200),
        (900, "/v1/completions", {"prompt": "a"}, 200),
        (900, "/v1/completions", {"prompt": "a", "n": 2}, 403),
        (2000, "/v1/completions", {"prompt": "a"}, 403),
        (2000, "/v1/completions", {"prompt": "a", "max_tokens": 900}, 200),
    ],
)
@pytest.mark.parametrize("effect", ["allow", "deny"])
async def test_who_says_nothing_of_tokens_may_use_as_many_as_the_model_holds_or_any_number(
    upstream: Upstream, effect: str, context: int | None, path: str, fields: dict[str, Any], status: int
) -> None:
    few = {"id": "few", "effect": "allow", "condition": {"tokens": {"max": 1000}}}
    many = {"id": "many", "effect": "deny", "condition": {"tokens": {"min": 1001}}}
    rules = [few] if effect == "allow" else [ALLOW_ALL, many]
    model = [{"name": "m", **({"context": context} if context else {})}]
    async with running_edge(backend(upstream), model=model, **secured(*rules)) as edge:
        asked: dict[str, Any] = {"json": {"model": "m", **fields}, "headers": {"authorization": "Bearer ann"}}
        assert (await edge.request("POST", path, **asked)).status == status


async def test_light_work_uses_no_more_tokens_than_its_text(upstream: Upstream) -> None:
    few = {"id": "few", "effect": "allow", "condition": {"tokens": {"max": 1000}}}
    async with running_edge(backend(upstream), **secured(few)) as edge:
        assert (await ask(edge, model="edge/tokens")).status in (200, 501)
        long = [{"role": "user", "content": "word " * 5000}]
        assert refusal(await ask(edge, model="edge/tokens", messages=long)) == (403, "policy_denied")


@pytest.mark.parametrize("near", ["ok", "dead", "cut"])
async def test_regions_that_are_denied_never_see_the_request(near: str) -> None:
    elsewhere = {"id": "elsewhere", "effect": "deny", "resource": {"region": [REGIONS[1]]}}
    async with (
        Upstream() as here,
        Upstream() as there,
        running_edge(backend(here, near), backend(there, place=1), **secured(ALLOW_ALL, elsewhere)) as edge,
    ):
        await ask(edge, stream=True)
        assert here.requests
        assert there.requests == []


async def test_a_model_that_stands_in_for_another_must_be_allowed_too() -> None:
    only = {"id": "only-m", "effect": "allow", "resource": {"model": ["m"]}}
    async with Upstream() as near, Upstream() as far:
        spare = backend(far, place=1, models={"other": "ok"})
        model = [{"name": "m", "fallback": ["other"]}]
        async with running_edge(backend(near, "dead"), spare, model=model, **secured(only)) as edge:
            assert (await ask(edge)).status >= 500
            assert far.requests == []


async def test_status_tells_how_many_policies_are_obeyed(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), policy=[ALLOW_ALL]) as edge:
        assert (await edge.status())["policies"] == {"rules": 1, "unread": 0, "refused": None}
    async with running_edge(backend(upstream)) as edge:
        assert (await edge.status())["policies"] is None


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"max_completion_tokens": 1, "max_tokens": 9_000}),
        ("/v1/completions", {"prompt": "a", "max_completion_tokens": 1, "max_tokens": 9_000}),
        ("/v1/completions", {"prompt": "a", "max_tokens": 1_200, "best_of": 8}),
        ("/v1/completions", {"prompt": ["a"] * 5, "max_tokens": 500, "best_of": 4, "n": 2}),
    ],
)
async def test_no_field_hides_how_many_tokens_a_request_may_use(
    upstream: Upstream, path: str, fields: dict[str, Any]
) -> None:
    small = {"id": "small", "effect": "allow", "condition": {"tokens": {"max": 5000}}}
    if path.startswith("/v1/chat"):
        fields = {"messages": [{"role": "user", "content": "a"}], **fields}
    async with running_edge(backend(upstream), **secured(small)) as edge:
        asked: dict[str, Any] = {"json": {"model": "m", **fields}, "headers": {"authorization": "Bearer ann"}}
        assert refusal(await edge.request("POST", path, **asked)) == (403, "policy_denied")
        assert upstream.requests == []


async def test_what_an_embedding_says_of_tokens_means_nothing(upstream: Upstream) -> None:
    small = {"id": "small", "effect": "allow", "condition": {"tokens": {"max": 5000}}}
    async with running_edge(backend(upstream), **secured(small)) as edge:
        asked = {"model": "m", "input": "a", "max_tokens": "many", "n": 0.5}
        reply = await edge.request("POST", "/v1/embeddings", json=asked, headers={"authorization": "Bearer ann"})
        assert reply.status == 200


async def test_a_shared_generation_gives_nobody_a_model_that_is_not_allowed() -> None:
    """Two keys of a tenant ask the same at the same time; only one of them may have what stands in for the model."""
    keys = [{**key, "tenant": "t"} for key in KEYS]
    only = {"id": "only-m", "effect": "deny", "principal": {"key": ["bob"]}, "resource": {"model": ["other"]}}
    async with Upstream() as near, Upstream() as far:
        spare = backend(far, place=1, models={"other": "gated"})
        model = [{"name": "m", "fallback": ["other"]}]
        more = secured(ALLOW_ALL, only) | {"key": keys}
        async with running_edge(backend(near, "dead"), spare, model=model, **more) as edge:
            first = asyncio.create_task(ask(edge, "ann", temperature=0))
            await eventually(lambda: len(far.requests) == 1)
            tried = len(near.requests)
            second = asyncio.create_task(ask(edge, "bob", temperature=0))
            await eventually(lambda: len(near.requests) > tried or second.done())
            far.gate.set()
            assert (await first).status == 200
            assert (await second).status >= 500


async def test_a_model_that_stands_in_must_be_among_the_models_of_the_key() -> None:
    keys = [{**KEYS[0], "models": ["m"]}, {**KEYS[1], "models": ["m", "other"]}]
    async with Upstream() as near, Upstream() as far:
        spare = backend(far, place=1, models={"other": "ok"})
        model = [{"name": "m", "fallback": ["other"]}]
        more: dict[str, Any] = {"auth": {"required": True}, "key": keys}
        async with running_edge(backend(near, "dead"), spare, model=model, **more) as edge:
            assert (await ask(edge, "ann")).status >= 500
            assert far.requests == []
            assert (await ask(edge, "bob")).status == 200
