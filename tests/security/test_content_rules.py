"""What may not be asked is refused at the edge, and remembered; nothing of it reaches a model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isochrone.audit.reading import files_in, lines_of
from isochrone.audit.verification import verify
from tests.faults.harness import RunningEdge, backend, eventually, running_edge
from tests.upstream import Exchange, Upstream, completion

pytestmark = pytest.mark.anyio

RULES = [{"name": "no-bombs", "pattern": "build a bomb"}]


class Moderation:
    """A script of OpenAI's moderations: flags "bad"; `status` other than 200 is all it says."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.status = 200

    async def __call__(self, exchange: Exchange) -> None:
        texts = exchange.received.fields["input"]
        self.asked.append(texts)
        results = [{"flagged": "bad" in text, "categories": {"hate": "bad" in text}} for text in texts]
        await exchange.json({"id": "modr-1", "results": results}, self.status)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
def moderation(upstream: Upstream) -> Moderation:
    script = Moderation()
    upstream.scripts["omni"] = script
    return script


@asynccontextmanager
async def edge_with(upstream: Upstream, folder: Path, **sections: Any) -> AsyncIterator[RunningEdge]:
    backends = [backend(upstream), backend(upstream, place=1, name="mod", models={"omni": "omni"})]
    async with running_edge(*backends, audit={"to": "file", "folder": str(folder)}, **sections) as edge:
        yield edge


def moderated(**more: Any) -> dict[str, Any]:
    return {"moderation": "mod", "moderation_model": "omni", **more}


async def say(edge: RunningEdge, text: str, **fields: Any) -> Any:
    return await edge.chat(messages=[{"role": "user", "content": text}], **fields)


def generated(upstream: Upstream) -> int:
    return sum(received.path.endswith("/chat/completions") for received in upstream.requests)


def entries(folder: Path, record: str = "request") -> list[dict[str, Any]]:
    lines = [line for path in folder.rglob("*") if path.is_file() for line in path.read_text().splitlines()]
    return [entry for line in lines if (entry := json.loads(line)).get("record") == record]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_breaks_a_rule_is_refused_as_openai_does_and_audited(
    upstream: Upstream, tmp_path: Path, stream: bool
) -> None:
    async with edge_with(upstream, tmp_path, content={"rule": RULES}) as edge:
        refused = await say(edge, "How do I BUILD A BOMB?", stream=stream)
        served = await say(edge, "How do I build a boat?", stream=stream)
        counters = (await edge.status())["counters"]
    assert (refused.status, served.status) == (400, 200)
    assert refused.error["code"] == "content_policy_violation"
    assert refused.error["type"] == "invalid_request_error"
    assert generated(upstream) == 1
    assert counters["content_refused"] == 1
    (denied,) = [entry for entry in entries(tmp_path) if entry["status"] == 400]
    assert (denied["decision"], denied["rule"]) == ("denied", "content/no-bombs")


async def test_what_moderation_flags_reaches_no_model_and_what_it_does_not_is_answered(
    upstream: Upstream, moderation: Moderation, tmp_path: Path
) -> None:
    async with edge_with(upstream, tmp_path, content=moderated()) as edge:
        assert (await say(edge, "fine")).status == 200
        flagged = await say(edge, "bad")
    assert (flagged.status, flagged.error["code"]) == (400, "content_policy_violation")
    assert "hate" in flagged.error["message"]
    assert generated(upstream) == 1
    assert [entry["rule"] for entry in entries(tmp_path) if entry["status"] == 400] == ["moderation/hate"]


@pytest.mark.parametrize(("on_error", "status"), [("allow", 200), ("deny", 503)])
async def test_a_moderation_that_fails_lets_through_or_refuses_as_configured(
    upstream: Upstream, moderation: Moderation, tmp_path: Path, on_error: str, status: int
) -> None:
    moderation.status = 500
    async with edge_with(upstream, tmp_path, content=moderated(on_error=on_error)) as edge:
        answer = await say(edge, "fine")
    assert answer.status == status
    if status == 503:
        assert answer.error["code"] == "moderation_unavailable"
        assert int(answer.headers["retry-after"]) >= 1


async def test_moderation_is_not_shown_personal_data_that_backends_do_not_see(
    upstream: Upstream, moderation: Moderation, tmp_path: Path
) -> None:
    async with edge_with(upstream, tmp_path, content=moderated(), pii={"mode": "upstream"}) as edge:
        await say(edge, "Mail jane@example.com")
    assert moderation.asked == [["Mail [EMAIL_1]"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_flagged_afterwards_is_counted_and_audited(
    upstream: Upstream, moderation: Moderation, tmp_path: Path, stream: bool
) -> None:
    async def says_bad(exchange: Exchange) -> None:
        if exchange.wants_stream:
            await exchange.stream(
                [
                    b'data: {"choices":[{"index":0,"delta":{"content":"bad"}}]}\n\n',
                    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
                    b"data: [DONE]\n\n",
                ]
            )
        else:
            await exchange.json(completion({"content": "bad"}))

    upstream.scripts["ok"] = says_bad
    async with edge_with(upstream, tmp_path, content=moderated(after=1.0)) as edge:
        answer = await say(edge, "fine", stream=stream)
        assert answer.status == 200
        await edge.settled()

        async def is_counted() -> bool:
            counters: dict[str, int] = (await edge.status())["counters"]
            return counters.get("content_flagged_after") == 1

        await eventually(is_counted, within=5.0)
    (flag,) = entries(tmp_path, "flag")
    assert flag["request_id"] == answer.headers["x-request-id"]
    assert [flag[name] for name in ("rule", "tenant", "model", "backend")] == [
        "moderation/hate",
        "anonymous",
        "m",
        "pool-0",
    ]
    assert verify(lines_of(files_in([tmp_path]))).is_intact


async def test_a_known_answer_is_not_given_to_who_may_not_ask(
    upstream: Upstream, moderation: Moderation, tmp_path: Path
) -> None:
    """The same question was let through while nobody could judge it."""
    moderation.status = 500
    async with edge_with(upstream, tmp_path, content=moderated()) as edge:
        assert (await say(edge, "bad")).status == 200
        await edge.settled()
        moderation.status = 200
        edge.edge.pipeline.rooms.front.screen._moderation._rests_until = 0.0  # type: ignore[union-attr]
        assert (await say(edge, "bad")).status == 400


async def test_a_model_whose_rule_is_broken_does_not_stand_in_for_another() -> None:
    """The rule is for the model that stands in alone: the one that is asked for may have the request."""
    rules = [{"name": "no-bombs", "pattern": "build a bomb", "models": ["other"]}]
    model = [{"name": "m", "fallback": ["other"]}]
    async with Upstream() as near, Upstream() as far:
        spare = backend(far, place=1, models={"other": "ok"})
        async with running_edge(backend(near, "dead"), spare, model=model, content={"rule": rules}) as edge:
            refused = await edge.chat(messages=[{"role": "user", "content": "How to build a bomb?"}])
            assert refused.status >= 500
            assert (near.requests != [], far.requests) == (True, [])
            assert (await edge.chat()).status == 200
            broken = await edge.chat(model="other", messages=[{"role": "user", "content": "build a bomb"}])
            assert broken.fields["error"]["code"] == "content_policy_violation"


async def test_the_names_in_a_schema_are_read_too(upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {"how to build a bomb": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    async with running_edge(backend(upstream), content={"rule": RULES}) as edge:
        assert (await edge.chat(tools=tools)).fields["error"]["code"] == "content_policy_violation"
        assert upstream.requests == []
    words = [{"name": "of-the-api", "pattern": "properties|messages|parameters|content"}]
    async with running_edge(backend(upstream), content={"rule": words}) as edge:
        assert (await edge.chat(tools=tools)).status == 200
