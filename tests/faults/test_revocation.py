"""What a tenant takes back is known no more, in no tier; and nobody can take back what is another's."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from typing import Any

import pytest

from isochrone.answers import revocations, rulebook
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import TEXT, Upstream

KEYS = [
    {"id": tenant, "tenant": tenant, "sha256": sha256(f"key-of-{tenant}".encode()).hexdigest()} for tenant in ("a", "b")
]
TENANTS: dict[str, Any] = {"key": KEYS, "auth": {"required": True}}


def bearer(tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{tenant}"}


def cache(answer: Answer) -> str:
    return answer.headers["x-isochrone-cache"]


async def asked(edge: RunningEdge, question: str = "How far?", tenant: str = "a", **options: Any) -> Answer:
    messages = [{"role": "user", "content": question}]
    headers = {**bearer(tenant), **options.pop("headers", {})}
    answer = await edge.chat(messages=messages, headers=headers, **options)
    await edge.settled()
    return answer


async def known_id(edge: RunningEdge, question: str = "How far?", tenant: str = "a") -> str:
    """The id of an answer that is known from now on."""
    await asked(edge, question, tenant)
    hit = await asked(edge, question, tenant)
    assert cache(hit) == "hit"
    return hit.headers["x-isochrone-answer"]


async def revoke(edge: RunningEdge, what: str, tenant: str = "a") -> Answer:
    return await edge.request("DELETE", "/v1/answers" + what, headers=bearer(tenant))


@pytest.mark.parametrize("query", ["pattern=how*&modle=m", "pattern=how*&Model=m", "patern=how*", "pattern=*&tenant=b"])
async def test_a_mistyped_word_takes_nothing_back(near: Upstream, query: str) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        await known_id(edge)
        reply = await revoke(edge, f"?{query}")
        assert (reply.status, reply.fields["error"]["type"]) == (400, "invalid_request_error")
        assert "only 'pattern' and 'model' say what to take back" in reply.fields["error"]["message"]
        assert cache(await asked(edge)) == "hit"


async def test_answer_that_is_taken_back_is_not_known_any_more(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        before = time.time()
        reply = await revoke(edge, f"/{mark}")
        assert (reply.status, reply.fields["id"], reply.fields["object"]) == (200, mark, "answer.revocation")
        assert before <= reply.fields["revoked_at"] <= time.time()
        assert (await asked(edge, headers={"x-isochrone-cache": "only"})).status == 404
        assert cache(await asked(edge)) == "miss"


async def test_answers_to_questions_like_a_pattern_are_taken_back_together(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        for question in ("How far is the Moon?", "HOW FAR is Mars?", "How old is the Moon?"):
            await known_id(edge, question)
        reply = await revoke(edge, "?pattern=how%20far*")
        assert (reply.status, reply.fields["id"], reply.fields["pattern"]) == (200, None, "how far*")
        assert [cache(await asked(edge, f"{how} is the Moon?")) for how in ("How far", "How old")] == ["miss", "hit"]
        assert cache(await asked(edge, "HOW FAR is Mars?")) == "miss"


async def test_pattern_may_be_about_one_model(near: Upstream) -> None:
    async with running_edge(backend(near, models={"m": "ok", "n": "ok"}), **TENANTS) as edge:
        for model in ("m", "n"):
            await asked(edge, model=model)
        await revoke(edge, "?pattern=*&model=n")
        assert [cache(await asked(edge, model=model)) for model in ("m", "n")] == ["hit", "miss"]


async def test_what_is_generated_later_is_known_again(near: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebook, "SKEW_SECONDS", 0.0)
    async with running_edge(backend(near), **TENANTS) as edge:
        await revoke(edge, f"/{await known_id(edge)}")
        assert [cache(await asked(edge)) for _ in range(2)] == ["miss", "hit"]


async def test_answer_is_deleted_and_not_only_hidden(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        await revoke(edge, f"/{mark}")
        assert await edge.edge.pipeline.rooms.desk.library.find(mark, now=time.time()) is None


@pytest.mark.parametrize("stream", [False, True])
async def test_answer_that_was_under_way_is_told_to_who_asked_and_not_kept(near: Upstream, stream: bool) -> None:
    async with running_edge(backend(near, "gated"), deadlines={"first_token": 5.0}, **TENANTS) as edge:
        asking = asyncio.create_task(asked(edge, stream=stream))
        await eventually(lambda: len(near.requests) == 1)
        await revoke(edge, "?pattern=*")
        near.gate.set()
        assert (await asking).text() == TEXT
        assert (await asked(edge, headers={"x-isochrone-cache": "only"})).status == 404


async def test_old_answer_that_was_taken_back_is_no_better_than_an_error(near: Upstream) -> None:
    async with running_edge(backend(near), answers={"ttl": 60, "stale_if_error": 3600}, **TENANTS) as edge:
        mark = await known_id(edge)
        edge.edge.pipeline._now = lambda: time.time() + 600
        near.scripts["ok"] = near.scripts["dead"]
        old = await asked(edge)
        assert (old.status, old.headers["x-isochrone-stale"]) == (200, "error")
        await revoke(edge, f"/{mark}")
        assert (await asked(edge)).status == 503


async def test_nobody_takes_back_what_is_another_tenants(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        replies = [await revoke(edge, what, "b") for what in (f"/{mark}", "/" + "0" * 64, "?pattern=*")]
        assert [reply.status for reply in replies] == [200] * 3
        assert [set(reply.fields) for reply in replies] == [set(replies[0].fields)] * 3
        assert cache(await asked(edge)) == "hit"


async def test_tenant_sees_what_is_known_of_its_own_answer(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        shown = (await edge.request("GET", f"/v1/answers/{mark}", headers=bearer("a"))).fields
        assert shown.items() >= {"id": mark, "object": "answer", "model": "m", "question": "How far?"}.items()
        assert shown["tier"] == "memory"
        assert shown["created"] < time.time() < shown["fresh_until"]


async def test_no_difference_between_an_answer_of_another_tenant_and_none(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        none = sha256(b"nobody has asked that").hexdigest()
        replies = [await edge.request("GET", f"/v1/answers/{some}", headers=bearer("b")) for some in (mark, none)]
        assert [reply.status for reply in replies] == [404, 404]
        bodies = [reply.body.replace(some.encode(), b"ID") for reply, some in zip(replies, (mark, none), strict=True)]
        assert bodies[0] == bodies[1]


async def test_nobody_looks_for_an_answer_that_is_another_tenants(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So how long the look took cannot tell whether it is there."""
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        looked_for: list[str] = []

        async def find(mark: str, *, now: float) -> None:
            looked_for.append(mark)

        monkeypatch.setattr(edge.edge.pipeline.rooms.desk.library, "find", find)
        for tenant in ("b", "a"):
            await edge.request("GET", f"/v1/answers/{mark}", headers=bearer(tenant))
        assert looked_for == [mark]


async def test_answer_that_was_taken_back_is_not_shown(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        await revoke(edge, "?pattern=*")
        gone = await edge.request("GET", f"/v1/answers/{mark}", headers=bearer("a"))
        assert (gone.status, gone.error["code"]) == (404, "answer_not_found")


@pytest.mark.parametrize(
    ("method", "what", "status", "param"),
    [
        ("DELETE", "", 400, "pattern"),
        ("DELETE", "?pattern=", 400, "pattern"),
        ("DELETE", "?pattern=" + "x" * 501, 400, "pattern"),
        ("DELETE", "?pattern=*&model=", 400, "model"),
        ("DELETE", "/%0d%0aid", 404, None),
        ("GET", "/" + "x" * 200, 400, "id"),
        ("GET", "", 405, None),
        ("POST", "/" + "0" * 64, 405, None),
    ],
)
async def test_what_makes_no_sense_is_refused_and_takes_nothing_back(
    near: Upstream, method: str, what: str, status: int, param: str | None
) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        await known_id(edge)
        reply = await edge.request(method, "/v1/answers" + what, headers=bearer("a"))
        assert (reply.status, reply.error["param"]) == (status, param)
        assert cache(await asked(edge)) == "hit"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_who_has_no_key_is_told_nothing(near: Upstream, method: str) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        reply = await edge.request(method, f"/v1/answers/{mark}")
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert cache(await asked(edge)) == "hit"


def directory_of(edge: RunningEdge) -> Any:
    """The memory store that stands for the directory table."""
    answers: Any = edge.edge._answers
    return answers._revocations._store


async def test_edge_that_cannot_tell_the_others_says_so_and_obeys(near: Upstream) -> None:
    async with running_edge(backend(near), **TENANTS) as edge:
        mark = await known_id(edge)
        directory_of(edge).failing = True
        reply = await revoke(edge, f"/{mark}")
        assert (reply.status, reply.error["code"]) == (500, "revocation_not_shared")
        assert reply.headers["retry-after"]
        assert cache(await asked(edge)) == "miss"


async def test_tenant_that_takes_back_without_end_is_stopped_until_it_takes_back_everything(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "MOST_KEPT", 2)
    async with running_edge(backend(near), **TENANTS) as edge:
        replies = [await revoke(edge, f"?pattern={i}") for i in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[-1].error["code"] == "too_many_revocations"
        assert (await revoke(edge, "?pattern=*")).status == 200
        assert (await revoke(edge, "?pattern=*", "b")).status == 200


async def test_who_asks_after_it_does_not_follow_a_generation_of_before(near: Upstream) -> None:
    async with running_edge(backend(near, "gated"), deadlines={"first_token": 5.0}, **TENANTS) as edge:
        before = [asyncio.create_task(asked(edge)) for _ in range(2)]
        await eventually(lambda: len(near.requests) == 1)
        await revoke(edge, "?pattern=*far*")
        after = [asyncio.create_task(asked(edge)) for _ in range(2)]
        await eventually(lambda: len(near.requests) == 2)
        near.gate.set()
        answers = await asyncio.gather(*before, *after)
        assert [cache(answer) for answer in answers] == ["miss", "coalesced"] * 2
        assert len(near.requests) == 2
