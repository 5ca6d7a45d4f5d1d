"""The stand-in for API Gateway: HTTP becomes events, streams come out as they are made, protocol errors are found."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, web

from isochrone.api.exchange import Reply, Request
from isochrone_streaming.application import Handle
from local.gateway.front import application
from local.gateway.protocol import PreludeReader, Violation, check_response_head, check_trailers
from local.gateway.runtime_api import LocalRuntimeApi
from tests.lambda_.harness import running, streaming


@asynccontextmanager
async def gateway(stream: Handle) -> AsyncIterator[tuple[ClientSession, str, LocalRuntimeApi]]:
    async with running(stream) as api, ClientSession() as session:
        runner = web.AppRunner(application(api), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}", api
        finally:
            await runner.cleanup()


async def test_request_reaches_the_function_as_it_was_sent() -> None:
    async def stream(request: Request) -> Reply:
        facts = [request.method, request.path, request.query, request.headers["x-twice"], request.peer]
        return Reply(status=201, headers={"x-request-id": "r1"}, body=json.dumps(facts).encode() + request.body)

    async with gateway(stream) as (session, url, api):
        headers = [("X-Twice", "a"), ("X-Twice", "b"), ("X-Forwarded-For", "133.11.0.1")]
        async with session.post(f"{url}/v1/a%20b?q=1&q=2&r=", data=b"\xff\x00", headers=headers) as response:
            assert (response.status, response.headers["x-request-id"]) == (201, "r1")
            facts, body = json.loads((await response.read())[:-2]), (await response.read())[-2:]
    assert facts == ["POST", "/v1/a%20b", {"q": "2", "r": ""}, "a, b", "127.0.0.1"]
    assert body == b"\xff\x00"
    assert api.violations == []


async def test_http_client_sees_each_chunk_before_the_next_is_made() -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def ping_pong() -> AsyncGenerator[bytes, None]:
        for number in range(5):
            yield b"data: %d\n\n" % number
            assert await seen.get() == b"data: %d\n\n" % number

    async def stream(_: Request) -> Reply:
        return streaming(ping_pong())

    async with gateway(stream) as (session, url, _api), session.get(url) as response:
        received = []
        async for chunk in response.content.iter_any():
            received.append(chunk)
            seen.put_nowait(chunk)
    assert received == [b"data: %d\n\n" % number for number in range(5)]


async def test_stream_that_fails_is_cut_so_that_the_client_can_tell() -> None:
    async def fails() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        raise ZeroDivisionError

    async def stream(_: Request) -> Reply:
        return streaming(fails())

    async with gateway(stream) as (session, url, _api), session.get(url) as response:
        with pytest.raises((ClientPayloadError, ClientConnectionError)):
            await response.read()


async def test_client_that_leaves_does_not_stop_the_function_and_the_next_is_served() -> None:
    finished = asyncio.Event()
    left = asyncio.Event()

    async def counts() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        await left.wait()
        for _ in range(200):
            yield b"x" * 65_536
        finished.set()

    async def stream(request: Request) -> Reply:
        return streaming(counts()) if request.path == "/long" else Reply(status=200, headers={}, body=b"ok")

    async with gateway(stream) as (session, url, api):
        response = await session.get(f"{url}/long")
        assert await response.content.readany() == b"data: 1\n\n"
        response.close()
        left.set()
        async with session.get(url) as following:
            assert await following.read() == b"ok"
        assert finished.is_set()
    assert api.violations == []


async def test_request_of_more_than_10_mb_is_refused_at_the_gateway() -> None:
    async def stream(_: Request) -> Reply:
        raise AssertionError("never called")

    async with (
        gateway(stream) as (session, url, _api),
        session.post(url, data=io.BytesIO(b"x" * (10 * 2**20 + 1))) as response,
    ):
        assert response.status == 413


# The checks themselves, since every promise above rests on them.


def fed(*chunks: bytes) -> Any:
    reader = PreludeReader()
    return [reader.feed(chunk) for chunk in chunks][-1]


def test_prelude_may_come_in_pieces() -> None:
    assert fed(b'{"statusCode"', b": 200}\0\0\0\0", b"\0\0\0\0data") == ((200, {}), b"data")


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (b'{"statusCode": 200, "headers": {"x": "' + b"y" * 16_400, "8 NUL bytes"),
        (b'{"statusCode": 200, "headers": {"x": "' + b"y" * 16_338 + b'"}}' + b"\0" * 8, "8 NUL bytes"),
        (b"hello" + b"\0" * 8, "not JSON"),
        (b"{}" + b"\0" * 8, "statusCode is None"),
        (b'{"statusCode": "200"}' + b"\0" * 8, "statusCode is '200'"),
        (b'{"statusCode": 200, "headers": {"a": 1}}' + b"\0" * 8, "not text"),
    ],
    ids=["no-delimiter", "too-long-by-one", "no-json", "no-status", "text-status", "number-header"],
)
def test_prelude_that_breaks_a_rule_is_named(head: bytes, rule: str) -> None:
    with pytest.raises(Violation, match=rule):
        fed(head)


HEAD = {
    "lambda-runtime-function-response-mode": "streaming",
    "content-type": "application/vnd.awslambda.http-integration-response",
    "transfer-encoding": "chunked",
    "lambda-runtime-invocation-id": "e1",
}


@pytest.mark.parametrize("change", [*({name: "x"} for name in HEAD), {"content-length": "1"}])
def test_head_of_the_response_that_breaks_a_rule_is_named(change: dict[str, str]) -> None:
    check_response_head(HEAD, echo="e1")
    with pytest.raises(Violation, match=next(iter(change))):
        check_response_head({**HEAD, **change}, echo="e1")


ERROR = base64.b64encode(b'{"errorType": "E", "errorMessage": "m"}').decode()
TYPE, BODY = "lambda-runtime-function-error-type", "lambda-runtime-function-error-body"


@pytest.mark.parametrize(
    ("trailers", "announced", "rule"),
    [
        ({TYPE: "E", BODY: ERROR}, "", "not announced"),
        ({TYPE: "E"}, f"{TYPE}, {BODY}", "missing"),
        ({TYPE: "E", BODY: "{}"}, f"{TYPE}, {BODY}", "not JSON in base64"),
        ({TYPE: "F", BODY: ERROR}, f"{TYPE}, {BODY}", "differ"),
    ],
)
def test_trailers_that_break_a_rule_are_named(trailers: dict[str, str], announced: str, rule: str) -> None:
    with pytest.raises(Violation, match=rule):
        check_trailers(trailers, announced=announced)


async def test_response_that_breaks_the_protocol_is_a_502() -> None:
    api = LocalRuntimeApi()
    await api.start()
    app = web.AppRunner(application(api), shutdown_timeout=1.0)
    await app.setup()
    await web.TCPSite(app, "127.0.0.1", 0).start()
    host, port = api.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with ClientSession() as session:
        asked = asyncio.create_task(session.get(f"http://127.0.0.1:{app.addresses[0][1]}/"))
        writer.write(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        id_ = head.split("Lambda-Runtime-Aws-Request-Id: ")[1].split("\r\n")[0]
        answer = f"POST /2018-06-01/runtime/invocation/{id_}/response HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}"
        writer.write(answer.encode())
        async with await asked as response:
            assert response.status == 502
    writer.close()
    await writer.wait_closed()
    await app.cleanup()
    await api.stop()
    assert "lambda-runtime-function-response-mode is None" in api.violations[0]
