"""What reaches a backend is what the caller asked for, and nothing that is the caller's own."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import TEXT, USAGE, Exchange, Upstream, chunk, completion, ending, words

RICH: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Wie weit? 🌍\u2028é\u0000"}]},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [{"id": "c", "type": "x"}]},
        {"role": "tool", "tool_call_id": "c", "content": ""},
    ],
    "temperature": 0,
    "top_k": 40,
    "min_p": 0.05,
    "seed": 2**63,
    "guided_json": {"type": "object", "properties": {"km": {"type": "number"}}},
    "chat_template_kwargs": {"enable_thinking": False},
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_object"},
    "tiny": 1e-300,
    "nothing": None,
    "": {"": [[], {}, False]},
}
KEY = {"id": "k", "tenant": "t", "sha256": sha256(b"callers-own-key").hexdigest()}


def canonical(fields: dict[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


async def test_unknown_fields_reach_the_backend_unharmed(near: Upstream) -> None:
    async with running_edge(backend(near, assemble=False)) as edge:
        answer = await edge.request("POST", "/v1/chat/completions", json=RICH)
        assert answer.status == 200
        assert canonical(near.requests[0].fields) == canonical({**RICH, "model": "ok"})


async def test_body_that_is_assembled_asks_for_a_stream_with_usage_and_changes_nothing_else(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await edge.request("POST", "/v1/chat/completions", json=RICH)
        expected = {**RICH, "model": "ok", "stream": True, "stream_options": {"include_usage": True}}
        assert canonical(near.requests[0].fields) == canonical(expected)


async def test_stream_asks_for_usage_and_changes_nothing_else(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        options = {"include_usage": False, "continuous_usage_stats": True}
        await edge.request("POST", "/v1/chat/completions", json={**RICH, "stream": True, "stream_options": options})
        expected = {**RICH, "model": "ok", "stream": True, "stream_options": {**options, "include_usage": True}}
        assert canonical(near.requests[0].fields) == canonical(expected)


async def test_key_of_a_message_that_stands_twice_is_forwarded_once(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        body = b'{"model": "m", "messages": [{"role": "user", "content": "a", "content": "b"}]}'
        answer = await edge.request(
            "POST", "/v1/chat/completions", data=body, headers={"content-type": "application/json"}
        )
        assert answer.status == 200
        assert near.requests[0].fields["messages"] == [{"role": "user", "content": "b"}]
        assert near.requests[0].body.count(b'"content"') == 1


async def test_callers_headers_stay_here(near: Upstream) -> None:
    async with running_edge(backend(near, api_key_env="POOL_KEY"), key=[KEY], auth={"required": True}) as edge:
        headers = {
            "authorization": "Bearer callers-own-key",
            "cookie": "session=1",
            "connection": "keep-alive, x-secret",
            "x-secret": "s",
            "te": "trailers",
            "proxy-authorization": "Basic eA==",
            "x-forwarded-for": "203.0.113.9",
            "x-api-key": "callers-own-key",
            "openai-organization": "org",
            "x-request-id": "mine-1",
        }
        answer = await edge.chat(headers=headers)
        assert (answer.status, answer.headers["x-request-id"]) == (200, "mine-1")
        received = near.requests[0]
        assert received.header("authorization") == ["Bearer pool-secret"]
        assert received.header("x-request-id") == ["mine-1"]
        names = {name.lower() for name, _ in received.headers}
        ours = {"authorization", "x-request-id", "x-isochrone-timeout"}
        assert names <= {"host", "content-type", "content-length", "accept"} | ours
        assert b"callers-own-key" not in received.body


async def test_backend_without_a_key_is_asked_without_one(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await edge.chat(headers={"authorization": "Bearer callers-own-key"})
        assert near.requests[0].header("authorization") == []


async def test_backends_headers_stay_there(near: Upstream) -> None:
    async def chatty(exchange: Any) -> None:
        from tests.upstream import completion

        more = {"set_cookie": "a=1", "x_internal": "10.0.0.7", "connection": "close", "server": "vllm"}
        await exchange.json(completion(), 200, **more)
        exchange.hang_up()

    near.scripts["chatty"] = chatty
    async with running_edge(backend(near, "chatty")) as edge:
        answer = await edge.chat()
        assert answer.status == 200
        assert not {"set-cookie", "x-internal"} & set(answer.headers)
        assert "vllm" not in answer.headers.get("server", "")


async def test_body_of_a_backend_is_passed_on_byte_by_byte(near: Upstream) -> None:
    raw = (
        b'{ "choices":[ {"message" : {"content":"\\u00e9 \xc3\xa9"},"finish_reason":"stop", "x":1e-9}],  "odd": [],'
        b'"usage":{ "prompt_tokens":1 } }\n'
    )

    async def odd(exchange: Any) -> None:
        await exchange.head(content_type="application/json", content_length=str(len(raw)))
        await exchange.write(raw)

    near.scripts["odd"] = odd
    async with running_edge(backend(near, "odd")) as edge:
        assert (await edge.chat()).body == raw


@pytest.mark.parametrize("usage", ["many", 7, ["x"], None, {"prompt_tokens": "three"}])
async def test_senseless_usage_does_not_cost_the_answer(near: Upstream, usage: Any) -> None:
    async def script(exchange: Any) -> None:
        from tests.upstream import completion

        await exchange.json(completion(usage=usage))

    near.scripts["usage"] = script
    async with running_edge(backend(near, "usage")) as edge:
        assert (await edge.chat()).text() == TEXT
        assert (await edge.ledger())[0]["outcome"] == "ok"


async def test_usage_comes_only_to_those_who_asked(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        headers = {"x-isochrone-cache": "no-store"}
        plain = await edge.chat(stream=True, headers=headers)
        asked = await edge.chat(stream=True, stream_options={"include_usage": True}, headers=headers)
        assert [data for data in plain.chunks if data.get("usage")] == []
        assert [data["usage"] for data in asked.chunks if data.get("usage")] == [USAGE]
        entries = await edge.ledger()
        assert {(entry["input_tokens"], entry["output_tokens"]) for entry in entries} == {(7, 9)}


async def test_other_routes_are_forwarded_to_their_own_paths(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        vectors = await edge.request("POST", "/v1/embeddings", json={"model": "m", "input": "x"})
        text = await edge.request("POST", "/v1/completions", json={"model": "m", "prompt": "x"})
        assert vectors.fields["data"][0]["embedding"] == [0.25, -0.5]
        assert text.fields["choices"][0]["text"] == TEXT
        assert [received.path for received in near.requests] == ["/v1/embeddings", "/v1/completions"]


async def test_price_and_tokens_of_every_attempt_are_in_the_ledger(near: Upstream, far: Upstream) -> None:
    price = {"input": 1.0, "output": 2.0}
    async with running_edge(backend(near, "dead"), backend(far, place=1, price=price)) as edge:
        await edge.chat(headers={"x-request-id": "r1"})
        first, second = sorted(await edge.ledger(), key=lambda entry: int(entry["attempt"]))
        assert (first["outcome"], first["cost"], first["backend"]) == ("broken", 0.0, "pool-0")
        assert (second["outcome"], second["backend"], second["request_id"]) == ("ok", "pool-1", "r1")
        assert second["cost"] == pytest.approx((7 * 1.0 + 9 * 2.0) / 1e6)


async def test_connection_to_a_backend_is_used_again(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        for number in range(6):
            await edge.chat(stream=bool(number % 2), headers={"x-isochrone-cache": "no-store"})
        assert {received.connection for received in near.requests} == {1}


async def test_head_of_a_route_is_answered_without_a_body(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        answer = await edge.request("HEAD", "/v1/models")
        assert (answer.status, answer.body) == (200, b"")


async def test_health_and_readiness_ask_nobody(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await near.stop()
        assert await _statuses(edge, "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/m") == [200] * 5
        await near.start()


async def _statuses(edge: RunningEdge, *paths: str) -> list[int]:
    return [(await edge.request("GET", path)).status for path in paths]


async def half_characters(exchange: Exchange) -> None:
    """An engine that cuts its text by UTF-16 units, and ends it with half a character."""
    if exchange.wants_stream:
        texts = (r"far \ud83c", r"\udf0d, or near", r" \ud83c.")
        pieces = [chunk({"content": "TEXT"}).replace(b"TEXT", text.encode()) for text in texts]
        await exchange.stream([*words()[:1], *pieces, *ending(exchange)])
    else:
        await exchange.json(completion({"content": "far 🌍, or near \ud83c."}))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("told_as_stream", [False, True])
async def test_half_a_character_costs_no_more_than_itself(near: Upstream, stream: bool, told_as_stream: bool) -> None:
    near.scripts["half-characters"] = half_characters
    async with running_edge(backend(near, "half-characters", assemble=told_as_stream)) as edge:
        answer = await edge.chat(stream=stream)
        assert (answer.status, answer.text()) == (200, "far 🌍, or near \ufffd.")
        await edge.settled()
        assert (await edge.chat(stream=not stream)).text() == answer.text()
        assert len(near.requests) == 1
