"""Heads of requests and replies: one way to read them, and nothing passes through that nobody named.

FRAMINGS   where one request ends and the next begins: exactly one reading, or 400 and the connection is closed
TARGETS    what path is meant: one normal form, or 400, 404
SECRETS    what a caller sends to prove who they are, and what only the platform may say: never seen by a backend
"""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.api.errors import ApiError
from isochrone.api.exchange import Request
from isochrone.api.head import path_of
from isochrone.upstream import attempt
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.security.wire import told, wired
from tests.upstream import TEXT, Exchange, Upstream, chunk

HOST = b"Host: edge\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def posted(headers: bytes, body: bytes = BODY) -> bytes:
    return POST + headers + b"\r\n" + body


def framed(size: bytes) -> bytes:
    return posted(b"Content-Length:" + size + b"\r\n")


def coded(coding: bytes) -> bytes:
    return posted(b"Transfer-Encoding:" + coding + b"\r\n", CHUNKS)


FRAMINGS: dict[str, tuple[bytes, int]] = {
    "a length": (posted(LENGTH), 200),
    "a length with spaces around it": (framed(b"\t %d \t" % len(BODY)), 200),
    "a length with zeros before it": (framed(b"000%d" % len(BODY)), 200),
    "chunks": (coded(b" chunked"), 200),
    "chunks in capitals": (coded(b" CHUNKED"), 200),
    "both": (posted(LENGTH + CHUNKED), 400),
    "both the other way round": (posted(CHUNKED + LENGTH), 400),
    "the same length twice": (posted(LENGTH + LENGTH), 400),
    "two lengths": (posted(LENGTH + b"Content-Length: 1\r\n"), 400),
    "two lengths in a list": (framed(b"%d, %d" % (len(BODY), len(BODY))), 400),
    "a length with a plus": (framed(b"+%d" % len(BODY)), 400),
    "a length below nothing": (framed(b"-1"), 400),
    "a hexadecimal length": (framed(b"0x%x" % len(BODY)), 400),
    "a length with an underscore": (framed(b"1_0"), 400),
    "a length in two parts": (framed(b"4 7"), 400),
    "a length of other digits": (framed("٤٧".encode()), 400),
    "a length beyond all bounds": (framed(b"9" * 30), 400),
    "no length after its name": (framed(b""), 400),
    "a length with space before the colon": (posted(b"Content-Length : %d\r\n" % len(BODY)), 400),
    "chunks twice": (posted(CHUNKED + CHUNKED, CHUNKS), 400),
    "chunks in chunks": (coded(b" chunked, chunked"), 400),
    "chunks of something": (coded(b" gzip, chunked"), 400),
    "something of chunks": (coded(b" chunked, gzip"), 400),
    "no coding": (coded(b" identity"), 400),
    "chunks with a parameter": (coded(b" chunked;q=1"), 400),
    "chunks in quotes": (coded(b' "chunked"'), 400),
    "chunks behind a control character": (coded(b" \x0bchunked"), 400),
    "something like chunks": (coded(b" xchunked"), 400),
    "chunks in HTTP/1.0": (coded(b" chunked").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "a chunk with a plus": (posted(CHUNKED, b"+" + CHUNKS), 400),
    "a hexadecimal chunk": (posted(CHUNKED, b"0x" + CHUNKS), 400),
    "a chunk beyond all bounds": (posted(CHUNKED, b"F" * 17 + b"\r\nx\r\n"), 400),
    "chunks with bare line ends": (posted(CHUNKED, CHUNKS.replace(b"\r\n", b"\n")), 400),
    "a bare line end in a chunk's extension": (posted(CHUNKED, CHUNKS.replace(b"\r\n", b";a\nb\r\n", 1)), 400),
    "a chunk longer than it says": (posted(CHUNKED, b"1\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    "a length behind the chunks": (posted(CHUNKED, CHUNKS[:-2] + LENGTH + b"\r\n"), 400),
    "a folded header": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "a folded first header": (b"GET /healthz HTTP/1.1\r\n Host: e\r\n\r\n", 400),
    "bare line ends": ((GET + b"\r\n").replace(b"\r\n", b"\n"), 400),
    "a bare line end in a header": (GET + b"X: a\nY: b\r\n\r\n", 400),
    "a bare carriage return": (GET + b"X: a\rY: b\r\n\r\n", 400),
    "a NUL": (GET + b"X: a\0b\r\n\r\n", 400),
    "a header without a name": (GET + b": a\r\n\r\n", 400),
    "a header with a bracket in its name": (GET + b"X(y): a\r\n\r\n", 400),
    "a line without a colon": (GET + b"X\r\n\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + HOST + b"\r\n", 400),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400),
    "HTTP/2.0": (GET.replace(b"1.1", b"2.0") + b"\r\n", 400),
    "HTTP/1.10": (GET.replace(b"1.1", b"1.10") + b"\r\n", 400),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize(("raw", "status"), FRAMINGS.values(), ids=FRAMINGS)
async def test_framing_has_one_reading_or_none(edge: RunningEdge, upstream: Upstream, raw: bytes, status: int) -> None:
    async with wired(edge) as wire:
        await wire.send(raw)
        reply = await wire.reply()
        assert reply.status == status
        if status == 400:
            assert json.loads(reply.body)["error"]["type"] == "invalid_request_error"
            assert await wire.is_closed()
    assert len(upstream.requests) == (status == 200)


async def test_request_that_hides_behind_another_ones_length_is_never_read(
    edge: RunningEdge, upstream: Upstream
) -> None:
    hidden = b"0\r\n\r\n" + posted(LENGTH)
    async with wired(edge) as wire:
        await wire.send(posted(b"Content-Length: %d\r\n" % len(hidden) + CHUNKED, hidden))
        assert (await wire.reply()).status == 400
        assert await wire.is_closed()
    assert upstream.requests == []


async def test_nothing_of_what_the_parser_refused_is_said_again_or_logged(
    edge: RunningEdge, caplog: pytest.LogCaptureFixture
) -> None:
    for header in (b"Authorization: Bearer canary\0", b"Authorization: Bearer " + b"canary" * 2000, b"canary"):
        reply = await told(edge, GET + header + b"\r\n\r\n")
        assert reply.status in (400, 431)
        assert b"canary" not in reply.body
    assert "canary" not in caplog.text


# -- paths ------------------------------------------------------------------------------------------------------------

TARGETS: dict[bytes, int] = {
    b"/v1/models": 200,
    b"/v1/models?limit=1": 200,
    b"/v1/%6dodels": 200,
    b"/v1/models/m": 200,
    b"/v1/models/a/b": 200,
    b"/v1/models/a%2Fb": 200,
    b"/v1/models/a%2fb": 200,
    b"http://169.254.169.254/v1/models": 400,
    b"http://edge/v1/models": 400,
    b"*": 400,
    b"/v1/models#top": 400,
    b"//v1/models": 404,
    b"//evil.example/v1/models": 404,
    b"/v1//models": 404,
    b"/v1/models/": 404,
    b"/v1/./models": 404,
    b"/v1/../v1/models": 404,
    b"/v1/models/..": 404,
    b"/v1/models/../status": 404,
    b"/v1/%2e%2e/v1/models": 404,
    b"/v1/models/%2E%2E/status": 404,
    b"/v1/models/.%2e/status": 404,
    b"/v1%2fmodels": 404,
    b"/v1%2Fmodels/m": 404,
    b"/v1/%256dodels": 404,
    b"/v1/models/%252e%252e/status": 404,
    b"/v1/models/%zz": 404,
    b"/v1/models/%": 404,
    b"/v1/models%00": 404,
    b"/v1/models/m%00": 404,
    b"/v1/models/m%0d%0aX:%20y": 404,
    b"/v1\\models": 404,
    b"/v1/models/..\\status": 404,
    b"/v1/models/%5c": 404,
    b"/v1/models;a=b": 404,
    b"/v1/models/m;a=b": 404,
    b"/v1/models/m%3ba": 404,
    b"/v1/models%20": 404,
    b"/v1/models/%ff": 404,
    b"/v1/models/%c0%ae%c0%ae": 404,
    b"/V1/models": 404,
    b"/v1/Models": 404,
    b"/" + b"a" * 8191: 414,
    b"/v1/models?" + b"a" * 8191: 414,
}


@pytest.mark.parametrize(("target", "status"), TARGETS.items(), ids=lambda value: repr(value)[:40])
async def test_path_has_one_normal_form_before_anything_is_decided(
    upstream: Upstream, target: bytes, status: int
) -> None:
    models = {"m": "ok", "a/b": "ok"}
    async with running_edge(backend(upstream, models=models)) as edge:
        raw = b"%b %b HTTP/1.1\r\n" % (b"OPTIONS" if target == b"*" else b"GET", target)
        reply = await told(edge, raw + HOST + b"\r\n")
        assert reply.status == status
        assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("target", ["/v1/models/../ledger", "/v1//ledger", "/v1%2Fledger", "/v1/%256cedger"])
async def test_path_that_is_read_in_two_ways_leads_nowhere_in_a_lambda_either(edge: RunningEdge, target: str) -> None:
    request = Request(method="GET", path=target, headers={}, body=b"", peer="203.0.113.7", trust_forwarded=False)
    assert (await edge.edge.handle(request)).status == 404


targets = st.text(st.sampled_from("/.%2eEfF5c0;\\ av1é\0"), max_size=12).map(lambda text: "/" + text)


@given(targets | st.text(max_size=20))
def test_normal_form_of_a_path_is_its_own_normal_form(target: str) -> None:
    with suppress(ApiError):
        path = path_of(target)
        assert path_of(path) == path
        assert "%" not in path and "//" not in path and not {".", ".."} & set(path.split("/"))


@pytest.mark.parametrize("method", [b"CONNECT edge:443", b"TRACE /v1/models", b"PUT /v1/models", b"POST /v1/models"])
async def test_method_that_has_no_route_is_refused(edge: RunningEdge, method: bytes) -> None:
    reply = await told(edge, method + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert reply.status in (400, 404, 405)


async def test_head_is_answered_without_a_body_and_the_connection_stays_in_step(edge: RunningEdge) -> None:
    async with wired(edge) as wire:
        await wire.send(b"HEAD /v1/models HTTP/1.1\r\n" + HOST + b"\r\n")
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        await wire.send(GET + b"\r\n")
        reply = await wire.reply()
        assert (reply.status, reply.body) == (200, b'{"status":"ok"}')


async def test_expectation_that_nobody_can_meet_is_not_waited_for(edge: RunningEdge) -> None:
    assert (await told(edge, posted(b"Expect: 200-maybe\r\n" + LENGTH))).status == 200


async def test_old_clients_are_served_and_hung_up_on(edge: RunningEdge) -> None:
    async with wired(edge) as wire:
        await wire.send(posted(LENGTH).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await wire.reply()).status == 200
        assert await wire.is_closed()


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([b"X-%d: y" % number for number in range(30)], 200, None),
        ([b"X-%d: y" % number for number in range(45)], 431, "headers_too_large"),
        ([b"X-%d: y" % number for number in range(5000)], 431, "headers_too_large"),
        ([b"X: " + b"y" * 7000], 200, None),
        ([b"X: " + b"y" * 9000], 431, "headers_too_large"),
        ([b"Y" * 9000 + b": y"], 431, "headers_too_large"),
        ([b"X-%d: " % number + b"y" * 1000 for number in range(10)], 431, "headers_too_large"),
    ],
    ids=["some", "many", "thousands", "a long one", "too long a one", "too long a name", "long ones"],
)
async def test_headers_are_bounded_in_number_and_size(
    upstream: Upstream, headers: list[bytes], status: int, code: str | None
) -> None:
    async with running_edge(backend(upstream), limits={"headers": 40, "header_bytes": 9000}) as edge:
        reply = await told(edge, GET + b"\r\n".join([*headers, b"", b""]))
        assert reply.status == status
        assert code is None or json.loads(reply.body)["error"]["code"] == code


async def test_headers_of_an_event_are_bounded_too(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), limits={"headers": 40, "header_bytes": 9000}) as edge:
        for headers in ({f"x-{number}": "y" for number in range(41)}, {"x": "y" * 9000}):
            request = Request(method="GET", path="/healthz", headers=headers, body=b"", peer="203.0.113.7")
            assert (await edge.edge.handle(request)).status == 431


# -- what passes through: nothing -------------------------------------------------------------------------------------

SECRETS = {
    "Authorization": "Bearer canary",
    "Proxy-Authorization": "Basic canary",
    "Cookie": "session=canary",
    "X-Api-Key": "canary",
    "Api-Key": "canary",
    "X-Amz-Security-Token": "canary",
    "X-Amzn-Oidc-Data": "canary",
    "X-Isochrone-Edge": "canary",
    "X-Isochrone-Backend": "canary",
    "X-Isochrone-Tenant": "canary",
    "OpenAI-Organization": "canary",
    "X-Forwarded-For": "canary",
    "X-Forwarded-Host": "canary",
    "Forwarded": "for=canary",
    "Via": "canary",
    "Referer": "http://canary/",
    "User-Agent": "canary",
    "Traceparent": "canary",
    "Host": "canary.example",
    "Connection": "keep-alive, X-Request-Id, Canary",
    "Keep-Alive": "timeout=canary",
    "TE": "trailers, canary",
    "Upgrade": "canary",
    "Canary": "canary",
    "X_Request_Id": "canary",
    "X_Isochrone_Priority": "canary",
    "X-Request-Id": "canary\tcanary",
}
OURS_UPSTREAM = {
    *("host", "content-type", "content-length", "accept", "x-request-id", "x-isochrone-timeout", "authorization"),
}


@pytest.mark.parametrize("stream", [False, True])
async def test_backend_hears_of_nothing_that_the_caller_said_in_headers(upstream: Upstream, stream: bool) -> None:
    async with running_edge(backend(upstream, api_key_env="POOL_KEY"), geo={"trusted_proxies": ["10.0.0.0/8"]}) as edge:
        answer = await edge.chat(headers=SECRETS, stream=stream)
        assert answer.text() == TEXT
    (received,) = upstream.requests
    headers = {name.lower(): value for name, value in received.headers}
    assert len(headers) == len(received.headers)
    assert set(headers) <= OURS_UPSTREAM
    assert headers["authorization"] == "Bearer pool-secret"
    assert "canary" not in repr(headers)


async def test_backend_that_needs_no_key_gets_none_of_the_callers(upstream: Upstream) -> None:
    async with running_edge(backend(upstream)) as edge:
        await edge.chat(headers={"Authorization": "Bearer canary"})
    (received,) = upstream.requests
    assert received.header("authorization") == []


OURS_TO_CALLERS = {
    *("content-type", "content-length", "transfer-encoding", "date", "server", "cache-control", "vary", "x-request-id"),
    *("x-accel-buffering", "connection", "retry-after"),
}
EVIL = (
    *("Set-Cookie: a=canary", "Location: http://canary/", "Server: canary", "X-Isochrone-Backend: canary"),
    *("X-Isochrone-Cache: canary", "X-Request-Id: canary", "Connection: keep-alive, Canary", "Canary: canary"),
    *("Access-Control-Allow-Origin: canary", "Strict-Transport-Security: canary", "Cache-Control: public, canary"),
    *("X-Amzn-Errortype: canary", "Www-Authenticate: canary", "Refresh: 0; url=http://canary", "X_Y: canary"),
    *("X-Ratelimit-Remaining-Requests: canary", "Retry-After: canary", "Trailer: Canary", "Upgrade: canary"),
)


def speaking_ill(status: int, body: bytes, kind: str) -> Any:
    async def script(exchange: Exchange) -> None:
        head = [f"HTTP/1.1 {status} Canary", *EVIL, f"Content-Type: {kind}", f"Content-Length: {len(body)}", "", ""]
        await exchange.send("\r\n".join(head).encode() + body)

    return script


WHOLE = json.dumps(
    {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]}
).encode()
STREAM = chunk({"content": TEXT}) + chunk(finish="stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("status", "body", "kind", "stream"),
    [
        (200, WHOLE, "application/json", False),
        (200, STREAM, "text/event-stream", True),
        (400, b'{"error": {"message": "no"}}', "application/json", False),
        (429, b'{"error": {"message": "no"}}', "application/json", False),
        (500, b"no", "text/html", False),
        (307, b"no", "text/html", False),
    ],
    ids=["a body", "a stream", "a refusal", "a full backend", "a broken backend", "a redirect"],
)
async def test_caller_hears_of_nothing_that_a_backend_said_in_headers(
    upstream: Upstream, status: int, body: bytes, kind: str, stream: bool
) -> None:
    upstream.scripts["evil"] = speaking_ill(status, body, kind)
    async with running_edge(backend(upstream, "evil", assemble=False), retry={"attempts": 1}) as edge:
        answer = await edge.chat(stream=stream)
        assert (answer.status == 200) == (status == 200)
        named = {name for name in answer.headers if not name.startswith("x-isochrone-")}
        assert named <= OURS_TO_CALLERS
        assert "canary" not in repr(answer.headers).lower()


async def test_reply_does_not_say_which_server_it_is(edge: RunningEdge) -> None:
    for reply in (await told(edge, GET + b"\r\n"), await told(edge, b"nonsense\r\n\r\n")):
        assert "aiohttp" not in reply.headers.get("server", "").lower()
        assert "python" not in reply.headers.get("server", "").lower()


@pytest.mark.parametrize("value", ["a b", "a\tb", "é", "a" * 129, "a,b", "<script>", "%0d%0aX: y", ""])
async def test_ill_formed_id_of_a_request_is_replaced(edge: RunningEdge, upstream: Upstream, value: str) -> None:
    answer = await edge.chat(headers={"x-request-id": value})
    shown = answer.headers["x-request-id"]
    assert shown != value and shown.isalnum()
    (received,) = upstream.requests
    assert received.header("x-request-id") == [shown]


# -- replies that are packed although nobody asked for it -------------------------------------------------------------


async def test_packed_reply_of_a_backend_is_bounded_as_it_unfolds(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_MAX_BODY", 1_000_000)
    bomb = gzip.compress(WHOLE[:-1] + b', "x": "' + b"x" * 50_000_000 + b'"}')

    async def script(exchange: Exchange) -> None:
        head = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        )
        await exchange.send(head % len(bomb) + bomb)

    upstream.scripts["bomb"] = script
    async with running_edge(backend(upstream, "bomb", assemble=False), retry={"attempts": 1}) as edge:
        assert (await edge.chat()).status in (502, 503)
        (entry,) = await edge.ledger()
        assert entry["detail"] == "sent a body of more than 1000000 bytes"
