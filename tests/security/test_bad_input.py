"""Bad input gets an error that names what is wrong, costs no upstream call, and the process answers afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest

from isochrone.api.exchange import Reply, Request
from isochrone.doors import local
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.security.wire import Wire, told, wired
from tests.upstream import TEXT, Exchange, Upstream, chunk

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
USER = {"role": "user", "content": "How far?"}
GOOD: dict[str, Any] = {"model": "m", "messages": [USER]}


def good(**more: Any) -> bytes:
    return json.dumps({**GOOD, **more}).encode()


BAD_BODIES: dict[str, tuple[bytes, int, str, str | None]] = {
    "empty": (b"", 400, "invalid_json", None),
    "cut short": (good()[:-1], 400, "invalid_json", None),
    "two values": (good() + good(), 400, "invalid_json", None),
    "an array": (b"[]", 400, "invalid_json", None),
    "a number": (b"1", 400, "invalid_json", None),
    "NaN": (b'{"model": "m", "temperature": NaN}', 400, "invalid_json", None),
    "Infinity": (b'{"model": "m", "temperature": -Infinity}', 400, "invalid_json", None),
    "a number beyond all bounds": (b'{"model": "m", "temperature": 1e999}', 400, "invalid_json", None),
    "an integer of 5,000 digits": (b'{"model": "m", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_json", None),
    "30,000 levels deep": (b'{"messages": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400, "invalid_json", None),
    "99,000 levels never closed": (b"[" * 99_000, 400, "invalid_json", None),
    "a lone surrogate": (b'{"model": "\\ud800", "messages": [{"role": "user"}]}', 400, "invalid_json", None),
    "not UTF-8": (b'{"model": "\xff\xfe"}', 400, "invalid_json", None),
    "UTF-16": ('{"model": "m"}'.encode("utf-16"), 400, "invalid_json", None),
    "no model": (b'{"messages": [{"role": "user"}]}', 400, "missing_required_parameter", "model"),
    "no messages": (b'{"model": "m"}', 400, "missing_required_parameter", "messages"),
    "empty messages": (good(messages=[]), 400, "invalid_value", "messages"),
    "too many messages": (good(messages=[USER] * 51), 400, "invalid_value", "messages"),
    "messages of a wrong type": (good(messages="How far?"), 400, "invalid_type", "messages"),
    "a role of a wrong type": (good(messages=[{"role": 5}]), 400, "invalid_type", "messages[0].role"),
    "a model of a wrong type": (good(model=["m"]), 400, "invalid_type", "model"),
    "an unknown model": (good(model="gpt-9"), 404, "model_not_found", "model"),
    "a model of many bytes": (good(model="m" * 5000), 400, "invalid_value", "model"),
    "a model with line ends": (good(model="m\r\nx-evil: 1"), 404, "model_not_found", "model"),
    "a million choices": (good(n=1_000_000), 400, "invalid_value", "n"),
    "too hot": (good(temperature=99), 400, "invalid_value", "temperature"),
    "too large": (good(padding="x" * 100_000), 413, "body_too_large", None),
}


def assert_openai_shaped(answer: Answer, status: int, code: str, param: str | None) -> None:
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert set(answer.error) == {"message", "type", "code", "param"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert len(answer.body) < 2000


@pytest.mark.parametrize(("body", "status", "code", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_body_is_refused_before_any_backend_is_asked(
    edge: RunningEdge, upstream: Upstream, body: bytes, status: int, code: str, param: str | None
) -> None:
    answer = await edge.request("POST", CHAT, data=body, headers=JSON)
    assert_openai_shaped(answer, status, code, param)
    assert upstream.requests == []
    assert (await edge.chat()).text() == TEXT


@pytest.mark.parametrize("depth", [*range(100, 1000, 75), *range(930, 1100, 10), 5000])
async def test_nesting_is_either_served_or_refused_and_never_an_accident(edge: RunningEdge, depth: int) -> None:
    body = b'{"model": "m", "messages": [{"role": "user"}], "x": ' + b"[" * depth + b"]" * depth + b"}"
    answer = await edge.request("POST", CHAT, data=body, headers=JSON)
    assert answer.status in (200, 400)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_wrong_content_type_is_415(edge: RunningEdge, content_type: str) -> None:
    answer = await edge.request("POST", CHAT, data=good(), headers={"content-type": content_type})
    assert_openai_shaped(answer, 415, "unsupported_media_type", None)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/", "/V1/models", "/v1//models", "/admin", "/%00", "/é"],
)
async def test_unknown_path_is_404(edge: RunningEdge, path: str) -> None:
    assert_openai_shaped(await edge.request("GET", path), 404, "unknown_url", None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", CHAT, "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/status", "GET"),
        ("PATCH", "/healthz", "GET"),
    ],
)
async def test_wrong_method_is_405_and_names_the_right_one(
    edge: RunningEdge, method: str, path: str, allow: str
) -> None:
    answer = await edge.request(method, path)
    assert_openai_shaped(answer, 405, "method_not_allowed", None)
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1e3", "9" * 5000])
async def test_senseless_page_of_the_ledger_is_refused(edge: RunningEdge, limit: str) -> None:
    answer = await edge.request("GET", "/v1/ledger", params={"limit": limit})
    assert_openai_shaped(answer, 400, "invalid_value", "limit")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-isochrone-timeout", "-1"),
        ("x-isochrone-timeout", "nan"),
        ("x-isochrone-cache", "maybe"),
        ("x-isochrone-recovery", "hope"),
    ],
)
async def test_senseless_wish_is_refused_by_name(edge: RunningEdge, header: str, value: str) -> None:
    answer = await edge.chat(headers={header: value})
    assert_openai_shaped(answer, 400, "invalid_value", header)


# -- what only a raw socket can say ----------------------------------------------------------------------------------


def posted(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /v1/chat/completions HTTP/1.1", b"Host: edge", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body


@pytest.fixture
async def wire(edge: RunningEdge) -> AsyncIterator[Wire]:
    async with wired(edge) as wire:
        yield wire


@pytest.mark.parametrize("value", [b"Bearer \xff\xfe", b"Bearer " + b"k" * 5000, b"\xff", b"Bearer"])
async def test_key_of_any_bytes_is_only_an_unknown_key(upstream: Upstream, value: bytes) -> None:
    async with running_edge(backend(upstream), auth={"required": True}) as edge:
        status, _, body = await told(edge, posted(good(), b"Authorization: " + value))
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "header",
    [
        b"X-Request-Id: \xff",
        b"X-Request-Id: a b",
        b"X-Forwarded-For: \xff, 1.2.3.4",
        b"X-Forwarded-For: " + b"1," * 3000,
        b"Content-Type: \xff",
        b"X-Isochrone-Cache: \xff",
        b"X-Isochrone-Timeout: \xff",
    ],
    ids=lambda header: repr(header[:30]),
)
async def test_header_of_any_bytes_is_no_accident(edge: RunningEdge, header: bytes) -> None:
    assert (await told(edge, posted(good(), header))).status in (200, 400, 415)
    assert (await edge.chat()).status == 200


async def test_body_that_only_claims_to_be_too_large_is_refused_unread(wire: Wire) -> None:
    await wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: edge\r\nContent-Length: 20971520\r\n\r\n")
    status, _, body = await wire.reply()
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")


async def test_chunked_body_is_cut_off_at_the_limit(edge: RunningEdge, upstream: Upstream, wire: Wire) -> None:
    await wire.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while sent <= 100_000:
        await wire.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        sent += 0x2000
    status, _, body = await wire.reply()
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
    assert upstream.requests == []
    assert (await edge.chat()).status == 200


async def test_twenty_megabytes_are_refused_and_the_edge_goes_on() -> None:
    async with Upstream() as upstream, running_edge(backend(upstream)) as edge:
        body = BytesIO(good(padding="x" * 20_000_000))
        answer = await edge.request("POST", CHAT, data=body, headers=JSON)
        assert_openai_shaped(answer, 413, "body_too_large", None)
        assert (await edge.chat()).status == 200


async def test_body_after_expect_is_asked_for(wire: Wire) -> None:
    body = good()
    await wire.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    async with asyncio.timeout(5):
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(body)
    assert (await wire.reply()).status == 200


async def test_client_that_hangs_up_in_its_body_leaves_nothing(edge: RunningEdge, upstream: Upstream) -> None:
    host, port = edge.url.removeprefix("http://").split(":")
    for _ in range(10):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Length: 500\r\n\r\n{")
        writer.close()
        await writer.wait_closed()
    assert (await edge.chat()).status == 200
    assert len(upstream.requests) == 1


async def test_body_whose_packing_is_broken_is_a_named_error(edge: RunningEdge) -> None:
    headers = {**JSON, "content-encoding": "gzip"}
    answer = await edge.request("POST", CHAT, data=b"no gzip at all", headers=headers)
    assert (answer.status, answer.error["code"]) == (400, "invalid_body")
    assert (await edge.chat()).text() == TEXT


async def test_body_that_does_not_come_is_not_waited_for_beyond_measure(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_READ_SECONDS", 0.1)

    async def never_ending() -> AsyncIterator[bytes]:
        yield b'{"model":'
        await asyncio.sleep(60)

    answer = await edge.request("POST", CHAT, data=never_ending(), headers=JSON)
    assert (answer.status, answer.error["code"]) == (408, "body_too_slow")


async def without_end(exchange: Exchange) -> None:
    """Words for as long as somebody takes them."""
    await exchange.begin_stream()
    while not exchange.received.client_left.is_set():
        await exchange.send(chunk({"content": "x" * 20_000}))


async def test_client_that_stops_reading_gives_its_backend_back(
    upstream: Upstream, edge: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WRITE_SECONDS", 0.1)
    upstream.scripts["ok"] = without_end
    host, port = edge.url.removeprefix("http://").split(":")
    body = good(stream=True)
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (CHAT.encode(), len(body), body)
    )
    state = edge.edge.pipeline.rooms.fleet.states[0]
    await eventually(lambda: state.in_flight == 1)
    await eventually(lambda: state.in_flight == 0, within=10)
    writer.close()


async def test_body_that_comes_steadily_is_waited_for(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_READ_SECONDS", 0.2)
    monkeypatch.setattr(local, "_SLOWEST_BYTES_PER_SECOND", 1)
    body = good()

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10):
            yield body[start : start + 10]
            await asyncio.sleep(0.05)

    answer = await edge.request("POST", CHAT, data=in_pieces(), headers=JSON)
    assert answer.text() == TEXT


async def test_fault_of_the_door_itself_is_logged_and_answered_without_a_word_of_it(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Request) -> Reply:
        raise RuntimeError("canary")

    with monkeypatch.context() as broken:
        broken.setattr(edge.edge, "handle", fail)
        answer = await edge.chat()
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert b"canary" not in answer.body
    assert "Fault: RuntimeError" in caplog.text
    assert "canary" not in caplog.text.replace('raise RuntimeError("canary")', "")  # but in our own line
    assert (await edge.chat()).text() == TEXT
