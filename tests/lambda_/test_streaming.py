"""The loop against a Runtime API that checks every rule of the streaming protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest

from isochrone.api.exchange import Reply, Request
from isochrone_streaming.relay import RESERVE
from local.gateway.invocation import FunctionFailed
from tests.lambda_.harness import rest_event, running, streaming, whole


async def test_reply_arrives_with_its_status_headers_and_body() -> None:
    async def stream(request: Request) -> Reply:
        return Reply(status=404, headers={"x-request-id": "r1"}, body=request.body)

    async with running(stream) as api:
        assert await whole(api.submit(rest_event("POST", body="深"))) == (404, {"x-request-id": "r1"}, "深".encode())
    assert api.violations == []


async def test_each_chunk_arrives_before_the_next_is_made() -> None:
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def ping_pong() -> AsyncGenerator[bytes, None]:
        for number in range(5):
            yield b"data: %d\n\n" % number
            assert await seen.get() == b"data: %d\n\n" % number  # nobody has seen n: there is no n + 1

    async def stream(_: Request) -> Reply:
        return streaming(ping_pong())

    async with running(stream) as api:
        invocation = api.submit(rest_event())
        received = []
        async for chunk in invocation.body():
            received.append(chunk)
            seen.put_nowait(chunk)
    assert received == [b"data: %d\n\n" % number for number in range(5)]
    assert api.violations == []


async def test_empty_chunks_do_not_end_the_body() -> None:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for part in (b"", b"a", b"", b"b", b""):
            yield part

    async def stream(_: Request) -> Reply:
        return streaming(chunks())

    async with running(stream) as api:
        assert (await whole(api.submit(rest_event())))[2] == b"ab"
    assert api.violations == []


@pytest.mark.parametrize("size", [1, 65_536, 3_000_000])
async def test_chunk_of_any_size_arrives_whole(size: int) -> None:
    async def stream(_: Request) -> Reply:
        return Reply(status=200, headers={}, body=b"x" * size)

    async with running(stream) as api:
        assert (await whole(api.submit(rest_event())))[2] == b"x" * size
    assert api.violations == []


async def test_stream_without_a_byte_is_still_a_reply() -> None:
    async def nothing() -> AsyncGenerator[bytes, None]:
        return
        yield b""

    async def stream(_: Request) -> Reply:
        return streaming(nothing())

    async with running(stream) as api:
        assert (await whole(api.submit(rest_event())))[::2] == (200, b"")
    assert api.violations == []


async def test_one_process_and_one_connection_answer_event_after_event() -> None:
    async def stream(request: Request) -> Reply:
        return Reply(status=200, headers={}, body=request.path.encode())

    async with running(stream) as api:
        bodies = [(await whole(api.submit(rest_event(path=f"/{number}"))))[2] for number in range(20)]
        assert api.connections == 1
    assert bodies == [f"/{number}".encode() for number in range(20)]
    assert api.violations == []


async def test_slow_reader_holds_the_producer_back() -> None:
    produced = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal produced
        while True:
            produced += 1
            yield b"x" * 65_536

    async def stream(_: Request) -> Reply:
        return streaming(endless())

    async with running(stream) as api:
        invocation = api.submit(rest_event())
        await invocation.prelude()
        held = await _until_it_stands(lambda: produced)
        assert held < 400  # 25 MB: what the sockets hold, not what the reader was given time to take


async def test_failure_before_the_first_byte_is_a_proper_error_reply() -> None:
    async def fails() -> AsyncGenerator[bytes, None]:
        raise RuntimeError("secret prompt")
        yield b""

    async def stream(request: Request) -> Reply:
        if request.path == "/at-once":
            raise RuntimeError("secret prompt")
        return streaming(fails())

    async with running(stream) as api:
        for path in ("/at-once", "/in-the-stream"):
            status, headers, body = await whole(api.submit(rest_event(path=path)))
            assert (status, headers["content-type"]) == (500, "application/json")
            assert set(json.loads(body)["error"]) == {"message", "type", "code", "param"}
            assert b"secret" not in body
    assert api.violations == []


async def test_headers_that_do_not_fit_are_a_proper_error_reply() -> None:
    async def stream(_: Request) -> Reply:
        return Reply(status=200, headers={"x": "y" * 16_384})

    async with running(stream) as api:
        status, _, body = await whole(api.submit(rest_event()))
    assert (status, json.loads(body)["error"]["type"]) == (500, "server_error")
    assert api.violations == []


async def test_failure_in_the_middle_is_told_in_band_and_in_trailers() -> None:
    async def fails() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        raise ZeroDivisionError("secret prompt")

    async def stream(_: Request) -> Reply:
        return streaming(fails())

    async with running(stream) as api:
        received, failure = await _cut(api.submit(rest_event()))
        assert received[0] == b"data: 1\n\n"
        assert json.loads(received[1].removeprefix(b"data: "))["error"]["code"] == "stream_failed"
        assert failure.type == "ZeroDivisionError"
        assert "secret" not in str(failure)
        assert b"[DONE]" not in b"".join(received)
    assert api.violations == []


async def test_body_that_is_no_event_stream_gets_no_event() -> None:
    async def fails() -> AsyncGenerator[bytes, None]:
        yield b'{"half":'
        raise ZeroDivisionError

    async def stream(_: Request) -> Reply:
        return Reply(status=200, headers={"content-type": "application/json"}, stream=fails())

    async with running(stream) as api:
        received, _ = await _cut(api.submit(rest_event()))
    assert received == [b'{"half":']


async def test_application_is_told_less_time_than_lambda_gives() -> None:
    async def stream(request: Request) -> Reply:
        return Reply(status=200, headers={}, body=str(request.time_left).encode())

    async with running(stream, lambda_timeout=30) as api:
        time_left = float((await whole(api.submit(rest_event())))[2])
    assert 20 < time_left <= 30 - RESERVE


async def test_stream_that_overruns_is_ended_before_lambda_would() -> None:
    closed = asyncio.Event()

    async def stalls() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def stream(_: Request) -> Reply:
        return streaming(stalls())

    async with running(stream, lambda_timeout=1.0) as api:
        received, failure = await _cut(api.submit(rest_event()))
        assert json.loads(received[1].removeprefix(b"data: "))["error"]["code"] == "deadline_passed"
        assert failure.type == "Isochrone.DeadlinePassed"
        assert closed.is_set()
        assert not api.timed_out.is_set()
    assert api.violations == []


async def test_reader_that_stands_still_does_not_keep_the_function_beyond_its_time() -> None:
    closed, flushed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x" * 65_536
        finally:
            closed.set()

    async def stream(_: Request) -> Reply:
        return streaming(endless())

    async def flush() -> None:
        assert closed.is_set()
        flushed.set()

    async with running(stream, lambda_timeout=1.0, flush=flush) as api:
        await api.submit(rest_event()).prelude()  # and nothing of the body
        await flushed.wait()
        assert not api.timed_out.is_set()


async def test_answer_that_never_begins_is_a_504_before_lambdas_timeout() -> None:
    async def stream(_: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async with running(stream, lambda_timeout=1.0) as api:
        status, _, body = await whole(api.submit(rest_event()))
        assert (status, json.loads(body)["error"]["code"]) == (504, "deadline_passed")
        assert not api.timed_out.is_set()
    assert api.violations == []


async def test_a_timeout_of_the_applications_own_is_no_504() -> None:
    async def stream(_: Request) -> Reply:
        raise TimeoutError

    async with running(stream) as api:
        assert (await whole(api.submit(rest_event())))[0] == 500


async def test_response_that_lambda_cuts_closes_the_stream_and_the_next_event_is_answered() -> None:
    closed = asyncio.Event()

    async def ticks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()  # idle: only the connection can tell that nobody listens
        finally:
            closed.set()

    async def stream(request: Request) -> Reply:
        return streaming(ticks()) if request.path == "/cut" else Reply(status=200, headers={}, body=b"ok")

    async with running(stream) as api:
        invocation = api.submit(rest_event(path="/cut"))
        await invocation.prelude()
        api.cut()
        await asyncio.wait_for(closed.wait(), 5)
        assert (await whole(api.submit(rest_event())))[2] == b"ok"
        assert api.connections == 2


async def test_response_that_lambda_refuses_half_way_is_given_up_with_its_connection() -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x" * 65_536

    async def stream(request: Request) -> Reply:
        return streaming(endless()) if request.path == "/endless" else Reply(status=200, headers={}, body=b"ok")

    async with running(stream, max_response=1_000_000) as api:
        _, failure = await _cut(api.submit(rest_event(path="/endless")))
        assert failure.type == "Function.ResponseSizeTooLarge"
        assert (await whole(api.submit(rest_event())))[2] == b"ok"
    assert api.violations == []


class Closing:
    """A stream that is no generator and counts how often it is closed."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error
        self.closed = 0

    def __aiter__(self) -> Closing:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise self._error or StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    ("stream", "headers"),
    [
        (Closing(b"a", b"b"), {}),
        (Closing(b"a", error=ZeroDivisionError()), {}),
        (Closing(error=ZeroDivisionError()), {}),
        (Closing(b"a"), {"x": "y" * 16_384}),
    ],
    ids=["to-the-end", "failed", "failed-at-once", "refused-prelude"],
)
async def test_stream_is_closed_however_it_ends(stream: Closing, headers: dict[str, str]) -> None:
    async def handle(request: Request) -> Reply:
        return Reply(status=200, headers=headers, stream=stream if request.path == "/stream" else None)

    async with running(handle) as api:
        with suppress(FunctionFailed):
            await whole(api.submit(rest_event(path="/stream")))
        await api.submit(rest_event()).prelude()  # it asked for the next event, so it is done with the first
    assert stream.closed == 1


async def test_event_that_is_not_http_is_an_invocation_error() -> None:
    async def stream(_: Request) -> Reply:
        raise AssertionError("never called")

    async with running(stream) as api:
        with pytest.raises(FunctionFailed, match="not an HTTP event") as failure:
            await api.submit({"source": "aws.events"}).prelude()
        assert failure.value.type == "Isochrone.NotAnHttpEvent"
    assert api.violations == []


async def test_trace_id_of_the_event_is_in_the_environment() -> None:
    environ: dict[str, str] = {}

    async def stream(_: Request) -> Reply:
        return Reply(status=200, headers={}, body=environ["_X_AMZN_TRACE_ID"].encode())

    async with running(stream, environ=environ) as api:
        assert (await whole(api.submit(rest_event())))[2].startswith(b"Root=1-")


async def _cut(invocation: Any) -> tuple[list[bytes], FunctionFailed]:
    """The chunks of a body that ends in a failure, and the failure."""
    received = []
    with pytest.raises(FunctionFailed) as failure:
        async for chunk in invocation.body():
            received.append(chunk)
    return received, failure.value


async def _until_it_stands(value: Any) -> int:
    """The value once it has not changed for a while."""
    last = -1
    while last != value():
        last = value()
        await asyncio.sleep(0.2)
    return last
