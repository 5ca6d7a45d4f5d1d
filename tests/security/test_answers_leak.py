"""Nobody is answered with what another one is known to have asked, and nobody can tell that it is known.

Each tier of known answers is tried by each asker that it is not for: a request served by it would be a leak between
tenants, or a wrong answer. The rows in CONTROLS are served, so that the matrix cannot pass by knowing nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from isochrone.answers.memory_tier import MemoryTier
from isochrone.stores.memory import MemoryAnswerStore, MemoryDirectoryStore
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import Upstream

QUESTION = "How do I reset my password?"
STANDARD = "Where is my invoice?"
SIMILAR = "how do i  reset my password ?!"
# Whoever reads a scope from what a caller can write would find the first tenant in every request.
FORGED = {"user": "a", "tenant": "a", "scope": "a", "metadata": {"tenant": "a"}}
FORGED_HEADERS = {"x-tenant": "a", "x-isochrone-tenant": "a", "x-isochrone-scope": "a", "openai-organization": "a"}
SERVED = {"hit", "semantic", "curated", "coalesced"}
TIERS = ("memory", "store", "stale", "in flight", "semantic", "in flight in other words", "curated")
SEMANTIC = ("semantic", "in flight in other words")
IN_FLIGHT = ("in flight", "in flight in other words")
LANDED = tuple(tier for tier in TIERS if tier not in IN_FLIGHT)
HOUR = 3600.0


def key(id: str, tenant: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "tenant": tenant, "sha256": sha256(f"key-{id}".encode()).hexdigest(), **more}


def bearer(id: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-{id}"}


KEYS = [
    key("a", "a"),
    key("a2", "a"),
    key("a-eu", "a", regions=["us-east-1", "eu-west-1"]),
    key("a-private", "a", private=True),
    key("b", "b"),
]


@asynccontextmanager
async def world(upstream: Upstream, folder: Path, tier: str = "memory") -> AsyncIterator[RunningEdge]:
    """An edge with every tier on, the one that must be loaded only when it is tried; a alone has a curated answer."""
    curated = folder / "curated.jsonl"
    entry = {"id": "password", "phrasings": [STANDARD], "answer": "In your account.", "tenants": ["a"]}
    curated.write_text(json.dumps(entry) + "\n")
    script = "gated" if tier in IN_FLIGHT else "ok"
    async with running_edge(
        backend(upstream, models={"m": script, "alias": script}),
        key=KEYS,
        auth={"required": True},
        answers={
            "semantic": tier in SEMANTIC,
            "ttl": 60,
            "stale_while_revalidate": 36_000,
            "curated": str(curated),
        },
        semantic={"shadow": 0.0, "merge_window": 30.0},
        deadlines={"first_token": 5.0},
    ) as edge:
        yield edge


async def ask(edge: RunningEdge, question: str = QUESTION, *, key: str = "a", **options: Any) -> Answer:
    """One question; a system prompt goes before it. A standard question is only answered when nothing else is said."""
    said = {} if question == STANDARD else FORGED
    messages = [{"role": "user", "content": question}]
    if system := options.pop("system", None):
        messages.insert(0, {"role": "system", "content": system})
    headers = {**bearer(key), **options.pop("headers", {})}
    return await edge.chat(messages=messages, headers=headers, **{**said, **options})


async def settled(edge: RunningEdge, *args: Any, **options: Any) -> Answer:
    answer = await ask(edge, *args, **options)
    await edge.settled()
    return answer


# -- what is known, by tier; each gives the question that it would answer ---------------------------------------------

Know = Callable[[RunningEdge, Upstream], Awaitable[str]]


async def in_memory(edge: RunningEdge, _: Upstream) -> str:
    await settled(edge)
    return QUESTION


async def in_store(edge: RunningEdge, upstream: Upstream) -> str:
    await in_memory(edge, upstream)
    edge.edge.pipeline.rooms.desk.library._memory = MemoryTier(max_bytes=1_000_000, ttl=300)
    return QUESTION


async def past_its_time(edge: RunningEdge, upstream: Upstream) -> str:
    await in_memory(edge, upstream)
    edge.edge.pipeline._now = lambda: time.time() + HOUR
    return QUESTION


async def in_flight(edge: RunningEdge, upstream: Upstream) -> str:
    before = len(upstream.requests)
    edge.edge.pipeline._background.start(ask(edge))  # the edge waits for it when it closes
    await eventually(lambda: len(upstream.requests) == before + 1)
    return QUESTION


async def in_other_words(edge: RunningEdge, upstream: Upstream) -> str:
    await in_memory(edge, upstream)
    return SIMILAR


async def in_flight_in_other_words(edge: RunningEdge, upstream: Upstream) -> str:
    await in_flight(edge, upstream)
    return SIMILAR


async def curated(edge: RunningEdge, _: Upstream) -> str:
    return STANDARD


KNOWN: dict[str, Know] = dict(
    zip(
        TIERS,
        (in_memory, in_store, past_its_time, in_flight, in_other_words, in_flight_in_other_words, curated),
        strict=True,
    )
)

# -- who asks ---------------------------------------------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "another tenant": {"key": "b"},
    "another tenant with a forged scope": {"key": "b", "headers": FORGED_HEADERS},
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "another system prompt": {"system": "Answer like a pirate."},
    "tools": {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]},
    "another model of the same engine": {"model": "alias"},
    "another place": {"headers": {"x-isochrone-regions": REGIONS[0]}},
    "a key with another policy": {"key": "a-eu"},
    "a private key": {"key": "a-private"},
    "no-store": {"headers": {"x-isochrone-cache": "no-store"}},
}
# What a standard question is answered with depends on who asks, not on how its answer would be generated.
CELLS = [(tier, who) for tier in TIERS for who in (*OTHERS, *(OTHERWISE if tier != "curated" else ()))]
CONTROLS: dict[str, dict[str, Any]] = {"the same key": {}, "another key of the tenant": {"key": "a2"}}


async def asked_of(edge: RunningEdge, upstream: Upstream, tier: str, who: dict[str, Any]) -> tuple[Answer, int]:
    """The answer, and how many requests of this asker reached the backend."""
    question = await KNOWN[tier](edge, upstream)
    before = len(upstream.requests)
    answer = await let_through(upstream, tier, ask(edge, question, **who))
    return answer, len(upstream.requests) - before


async def let_through(upstream: Upstream, tier: str, asking: Coroutine[Any, Any, Answer]) -> Answer:
    """A generation that others might follow goes on when they have had the time to."""
    task = asyncio.create_task(asking)
    if tier in IN_FLIGHT:
        await asyncio.sleep(0.1)  # nobody tells that an asker waits
        upstream.gate.set()
    return await task


@pytest.mark.parametrize(("tier", "who"), CELLS)
async def test_what_is_known_is_not_for(upstream: Upstream, tmp_path: Path, tier: str, who: str) -> None:
    async with world(upstream, tmp_path, tier) as edge:
        answer, reached = await asked_of(edge, upstream, tier, {**OTHERS, **OTHERWISE}[who])
        assert answer.status == 200
        assert answer.headers["x-isochrone-cache"] in ("miss", "bypass")
        assert reached == 1


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("who", CONTROLS)
async def test_what_is_known_is_for(upstream: Upstream, tmp_path: Path, tier: str, who: str) -> None:
    """Sharing within a tenant is what a tenant is for; a key that must not share is marked private."""
    async with world(upstream, tmp_path, tier) as edge:
        answer, reached = await asked_of(edge, upstream, tier, CONTROLS[who])
        assert answer.headers["x-isochrone-cache"] in SERVED
        assert reached <= (tier == "stale")  # which is made anew behind it


async def test_old_answer_of_another_tenant_is_no_help_in_an_outage(upstream: Upstream, tmp_path: Path) -> None:
    async with world(upstream, tmp_path) as edge:
        await past_its_time(edge, upstream)
        upstream.scripts["ok"] = upstream.scripts["dead"]
        assert (await ask(edge, key="b")).status == 503
        assert (await ask(edge, key="b", headers={"x-isochrone-cache": "only"})).status == 404
        assert (await ask(edge)).headers["x-isochrone-cache"] == "hit"


async def test_nothing_that_a_private_key_asks_is_looked_up_or_kept(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    async with world(upstream, tmp_path, "semantic") as edge:
        for stream in (False, True):
            answer = await settled(edge, key="a-private", stream=stream)
            assert answer.headers["x-isochrone-cache"] == "bypass"
        assert [call for call in calls.made if call.startswith("MemoryAnswerStore")] == []
        entries = (await edge.request("GET", "/v1/ledger", headers=bearer("a"))).fields["data"]
        assert [entry["answer"] for entry in entries] == [None, None]
        for question in (QUESTION, SIMILAR):
            assert (await ask(edge, question, headers={"x-isochrone-cache": "only"})).status == 404


async def test_private_key_is_told_what_the_operator_says_to_all(upstream: Upstream, tmp_path: Path) -> None:
    async with world(upstream, tmp_path) as edge:
        assert (await ask(edge, STANDARD, key="a-private")).headers["x-isochrone-cache"] == "curated"


# -- what another tenant can see --------------------------------------------------------------------------------------


class Calls:
    """The calls to stores in memory, by what they were, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for store, names in (
            (MemoryAnswerStore, ("get", "put", "delete", "search", "learn")),
            (MemoryDirectoryStore, ("items", "put", "delete")),
        ):
            for name in names:
                monkeypatch.setattr(store, name, self._noting(getattr(store, name), f"{store.__name__}.{name}"))

    def _noting(self, method: Callable[..., Awaitable[Any]], what: str) -> Callable[..., Awaitable[Any]]:
        async def noting(*args: Any, **options: Any) -> Any:
            self.made.append(what)
            return await method(*args, **options)

        return noting


def visible(answer: Answer) -> dict[str, Any]:
    """All of a reply but its ids, and how many milliseconds the plan thought of."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    if "x-isochrone-answer" in headers:
        headers["x-isochrone-answer"] = "ID"
    headers["x-isochrone-reason"] = re.sub(r"[\d.]+", "#", headers.get("x-isochrone-reason", ""))
    return {"status": answer.status, "headers": headers, "body": re.sub(rb'"id": ?"[^"]*"', b"ID", answer.body)}


async def seen_by_b(
    upstream: Upstream, folder: Path, calls: Calls, tier: str, *, is_known: bool, stream: bool
) -> tuple[dict[str, Any], list[str]]:
    """What b sees of a reply, and the calls to the stores that it took, where a has an answer or something else."""
    upstream.gate.clear()
    async with world(upstream, folder, tier) as edge:
        question = await KNOWN[tier](edge, upstream)
        asked = question if is_known else {QUESTION: "Who?", SIMILAR: "who is it ?!", STANDARD: "Whose?"}[question]
        await edge.edge.pipeline.rooms.desk._revocations.refresh()  # type: ignore[union-attr]
        calls.made.clear()
        answer = await let_through(upstream, tier, ask(edge, asked, key="b", stream=stream))
        await edge.settled()
        return visible(answer), list(calls.made)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tier", LANDED)
async def test_reply_to_another_tenant_and_the_work_for_it_are_those_of_a_true_miss(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, stream: bool
) -> None:
    """The same calls in the same order, so time tells as little as the reply."""
    calls = Calls(monkeypatch)
    worlds = [
        await seen_by_b(upstream, tmp_path, calls, tier, is_known=is_known, stream=stream) for is_known in (True, False)
    ]
    assert worlds[0] == worlds[1]
    assert worlds[0][0]["headers"]["x-isochrone-cache"] == "miss"


@pytest.mark.parametrize("tier", IN_FLIGHT)
async def test_reply_to_another_tenant_beside_a_generation_is_that_of_a_true_miss(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    calls = Calls(monkeypatch)
    worlds = [
        await seen_by_b(upstream, tmp_path, calls, tier, is_known=is_known, stream=True) for is_known in (True, False)
    ]
    assert worlds[0][0] == worlds[1][0]


async def what_b_reads(edge: RunningEdge) -> dict[str, Any]:
    """What the edge tells b of itself, but for the fleet: that backends are busier is no secret."""
    status = (await edge.request("GET", "/v1/status", headers=bearer("b"))).fields
    ledger = (await edge.request("GET", "/v1/ledger", headers=bearer("b"))).fields
    return {"counters": status["counters"], "answers": status["answers"], "ledger": ledger}


@pytest.mark.parametrize("tier", LANDED)
async def test_no_count_that_another_tenant_reads_tells_a_known_answer_from_a_new_one(
    upstream: Upstream, tmp_path: Path, tier: str
) -> None:
    seen = []
    for question in (None, "What is something else entirely?"):
        async with world(upstream, tmp_path, tier) as edge:
            known = await KNOWN[tier](edge, upstream)
            answer = await settled(edge, question or known)
            assert (answer.headers["x-isochrone-cache"] in SERVED) is (question is None)
            seen.append(await what_b_reads(edge))
    assert seen[0] == seen[1]


async def test_counts_for_all_to_see_are_named_and_not_left_over(upstream: Upstream, tmp_path: Path) -> None:
    """A count that somebody adds tomorrow is not shown before somebody has thought of who may see it."""
    async with world(upstream, tmp_path) as edge:
        edge.edge.pipeline.rooms.counters.add("something_new")
        shown = (await what_b_reads(edge))["counters"]
        assert {name.partition("_")[0] for name in shown} <= {"answered", "status", "streams"}


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/chat/completions", "/v1/ledger", "/v1/status", "/v1/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_no_reply_may_be_kept_on_its_way(upstream: Upstream, tmp_path: Path, method: str, path: str) -> None:
    async with world(upstream, tmp_path) as edge:
        for headers in ({}, bearer("a")):
            answer = await edge.request(method, path, headers=headers)
            assert answer.headers["cache-control"] == "private, no-store"
            assert answer.headers["vary"] == "authorization"
