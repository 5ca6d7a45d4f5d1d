"""What a caller shows to prove who he is never reaches a backend, on whatever way one is asked: WAYS walks them all.

Warming, which needs tables, is in tests/contract/test_warming.py.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import pytest

from tests.faults.harness import RunningEdge, backend, eventually, running_edge
from tests.upstream import Exchange, Received, Upstream

pytestmark = pytest.mark.anyio

KEY = "canary" + "0" * 40
SHOWN = {
    "Authorization": f"Bearer {KEY}",
    **dict.fromkeys(("Proxy-Authorization", "X-Forwarded-Authorization"), f"Basic {KEY}"),
    "Cookie": f"session={KEY}",
    **dict.fromkeys(("X-Api-Key", "Api-Key", "X-Amz-Security-Token", "X-Amzn-Oidc-Data", "X-Amz-Date"), KEY),
    **dict.fromkeys(("OpenAI-Organization", "Canary"), "canary"),
}
KEYS = [{"id": "canary-id", "tenant": "canary-tenant", "sha256": sha256(KEY.encode()).hexdigest()}]
# All that a backend is told beside the body.
OURS = frozenset(
    {"host", "content-type", "content-length", "accept", "authorization", "x-request-id", "x-isochrone-timeout"}
)
PROBED = frozenset({"host", "accept", "accept-encoding", "user-agent"})

USUAL: Mapping[str, Any] = {}

Act = Callable[[RunningEdge, Upstream], Awaitable[Any]]


class Way(NamedTuple):
    """How a caller makes an edge ask backends: scripts of the near and the far one, what he does, and how many requests
    each of them must have had then, at least."""

    act: Act
    near: str = "ok"
    far: str = "ok"
    asked: tuple[int, int] = (1, 0)
    facts: Mapping[str, Any] = USUAL
    sections: Mapping[str, Any] = USUAL


def asks(path: str = "/v1/chat/completions", **fields: Any) -> Act:
    async def act(edge: RunningEdge, near: Upstream) -> None:
        asked = {"model": "m", "messages": [{"role": "user", "content": "How far?"}]} | fields
        asked = {name: value for name, value in asked.items() if value is not None}
        answer = await edge.request("POST", f"{path}?api_key={KEY}", json=asked, headers=SHOWN, on_first=near.gate.set)
        assert answer.status == 200, answer.body
        await edge.settled()

    return act


async def asks_when_it_is_stale(edge: RunningEdge, near: Upstream) -> None:
    await asks()(edge, near)
    edge.edge.pipeline._now = lambda: time.time() + 3600.0  # by then it is stale
    await asks()(edge, near)


async def waits_for_a_probe(edge: RunningEdge, near: Upstream) -> None:
    await asks()(edge, near)
    seen = near.probes
    await eventually(lambda: near.probes >= seen + 2, within=10.0)


MODERATED = {"content": {"moderation": "pool-1", "moderation_model": "omni", "after": 1.0}}
VECTOR = {"input": "How far?", "messages": None}
WAYS = {
    "a body": Way(asks()),
    "a stream": Way(asks(stream=True)),
    "the older route": Way(asks("/v1/completions", prompt="How far?", messages=None)),
    "vectors": Way(asks("/v1/embeddings", **VECTOR), near="vectors"),
    "another backend": Way(asks(), near="dead", asked=(1, 1)),
    "another try": Way(asks(), near="failing-once", asked=(2, 0), facts={"models": {"n": "ok"}}),
    "a hedge": Way(
        asks(stream=True),
        near="silent",
        asked=(1, 1),
        sections={"model": [{"name": "m", "hedge_after": 0.05}], "deadlines": {"first_token": 5.0}},
    ),
    "a continuation": Way(asks(stream=True), near="cut", far="goes-on", asked=(1, 1), facts={"prefill": True}),
    "one that is refused": Way(
        asks(stream=True), near="cut", far="refuses-to-go-on", asked=(1, 2), facts={"prefill": True}
    ),
    "telling it again": Way(asks(stream=True), near="cut", asked=(1, 1)),
    "moderation before and after": Way(asks(), asked=(1, 2), sections=MODERATED),
    "a refresh": Way(
        asks_when_it_is_stale, asked=(2, 0), sections={"answers": {"ttl": 60, "stale_while_revalidate": 36_000}}
    ),
    "probes": Way(waits_for_a_probe, sections={"routing": {"probe_interval": 0.1}}),
}


async def moderates(exchange: Exchange) -> None:
    await exchange.json({"results": [{"flagged": False} for _ in exchange.received.fields["input"]]})


async def gives_vectors(exchange: Exchange) -> None:
    await exchange.json({"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 2}})


@pytest.fixture
async def near() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.scripts["vectors"] = gives_vectors
        yield upstream


@pytest.fixture
async def far() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.scripts["omni"] = moderates
        yield upstream


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_nothing_that_a_caller_shows_reaches_a_backend_on_any_way(
    near: Upstream, far: Upstream, way: Way
) -> None:
    facts = {"models": {"m": way.far, "omni": "omni"}, "api_key_env": "POOL_KEY", "engine": "vllm", **way.facts}
    backends = [
        backend(near, way.near, api_key_env="POOL_KEY", engine="vllm"),
        backend(far, way.far, place=1, **facts),
    ]
    async with running_edge(*backends, key=KEYS, auth={"required": True}, **way.sections) as edge:
        await way.act(edge, near)
    assert len(near.requests) >= way.asked[0] and len(far.requests) >= way.asked[1]
    for received in (*near.requests, *far.requests):
        assert names_in(received) <= OURS
        assert received.header("authorization") == ["Bearer pool-secret"]
    for received in (*near.probed, *far.probed):
        assert names_in(received) <= PROBED
    assert [one for one in (*near.requests, *far.requests, *near.probed, *far.probed) if holds_a_canary(one)] == []
    if "probe_interval" in way.sections.get("routing", {}):
        assert near.probed


def names_in(received: Received) -> set[str]:
    return {name.lower() for name, _ in received.headers}


def holds_a_canary(received: Received) -> bool:
    return "canary" in f"{received.path} {received.headers} {received.body!r}".lower()
