"""One call to one scripted backend, over a real connection."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from isochrone.api.errors import BadRequest
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask, Operation
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Step
from isochrone.settings import Backend, Deadlines
from isochrone.upstream import attempt as attempting
from isochrone.upstream.alarm import Alarm
from isochrone.upstream.attempt import BodyAnswer, attempt, body_for, bounded, open_session
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.stream import StreamAnswer
from tests.plans import plan
from tests.upstream import KEEP_ALIVE, Exchange, Upstream, completion, event

DEADLINES = Deadlines(connect=1.0, first_token=1.0, stall=1.0, total=5.0)
KEY = ConnectionKey("10.0.0.5", 8000, True, True, None, None, None)

Caller = Callable[..., Awaitable[BodyAnswer | StreamAnswer]]


def step_to(base_url: str, model: str = "m", deadlines: Deadlines = DEADLINES, *, assemble: bool = True) -> Step:
    facts = Backend(name="pool", base_url=base_url, models={"m": model}, region="us-east-1", assemble=assemble)
    fleet = Fleet([facts], edge_region="us-east-1", deadlines=deadlines)
    return plan("m", (), fleet, client=None, near="edge", now=0.0)[0]


def ask(operation: Operation = CHAT, **fields: Any) -> Ask:
    return Ask(operation, "m", stream=bool(fields.get("stream")), include_usage=False, fields={"model": "m", **fields})


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def call() -> AsyncIterator[Caller]:
    """Asks a backend by its base URL; `script` is the model there."""
    async with open_session() as session:

        async def call(
            base_url: str,
            asked: Ask,
            script: str = "ok",
            headers: Mapping[str, str] | None = None,
            *,
            ends_in: float = 5.0,
            deadlines: Deadlines = DEADLINES,
            **more: Any,
        ) -> BodyAnswer | StreamAnswer:
            return await attempt(
                session,
                step_to(base_url, script, deadlines),
                asked,
                headers=headers or {},
                ends_at=time.monotonic() + ends_in,
                capture=True,
                **more,
            )

        yield call


async def failure_of(answer: Awaitable[Any]) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as caught:
        await answer
    return caught.value


def refusing(*pieces: bytes, status: int = 400) -> Callable[[Exchange], Awaitable[None]]:
    """An error reply whose body comes in pieces, each only when the one before must have arrived."""

    async def script(exchange: Exchange) -> None:
        exchange.chunked = True
        await exchange.head(status, content_type="application/json", transfer_encoding="chunked")
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0.02)
        await exchange.end()

    return script


async def test_refusal_is_passed_on_whole_however_many_pieces_it_took(upstream: Upstream, call: Caller) -> None:
    upstream.scripts["pieces"] = refusing(b'{"error": {"message": "The context', b' is 8192 tokens."}}')
    failure = await failure_of(call(upstream.base_url, ask(), "pieces"))
    assert (failure.cause, failure.status) == (Cause.REFUSED, 400)
    assert json.loads(failure.body) == {"error": {"message": "The context is 8192 tokens."}}


@pytest.mark.parametrize("script", ["pieces", "busy", "dead", "context-length", "empty-body", "html"])
async def test_connection_of_a_reply_that_was_read_to_its_end_is_used_again(
    upstream: Upstream, call: Caller, script: str
) -> None:
    upstream.scripts["pieces"] = refusing(b'{"error": ', b"{}}", status=429)
    await failure_of(call(upstream.base_url, ask(), script))
    await call(upstream.base_url, ask())
    assert [request.connection for request in upstream.requests] == [1, 1]


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "cut"])
async def test_refusal_counts_even_if_its_words_do_not_come(
    upstream: Upstream, call: Caller, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(429, content_length="100", retry_after="3")
        await exchange.write(b"busy")
        if hangs:
            await exchange.client_gone()
        exchange.hang_up()

    monkeypatch.setattr(attempting, "_ERROR_SECONDS", 0.05)
    upstream.scripts["speechless"] = script
    failure = await failure_of(call(upstream.base_url, ask(), "speechless"))
    assert (failure.cause, failure.body, failure.retry_after) == (Cause.OVERLOADED, b"busy", 3.0)


async def test_refusal_without_end_is_cut_at_its_limit_and_hung_up_on(upstream: Upstream, call: Caller) -> None:
    upstream.scripts["long"] = refusing(*[b"x" * 50_000] * 3)
    failure = await failure_of(call(upstream.base_url, ask(), "long"))
    assert (failure.status, len(failure.body)) == (400, 64 * 1024)
    async with asyncio.timeout(1):
        await upstream.requests[0].client_left.wait()


async def test_stream_of_several_prompts_is_not_whole_before_the_last(upstream: Upstream, call: Caller) -> None:
    async def script(exchange: Exchange) -> None:
        ends = [{"index": index, "text": "a", "finish_reason": "stop"} for index in (0, 1)]
        await exchange.begin_stream()
        await exchange.send(event({"choices": ends[:1]}))
        await exchange.backend.gate.wait()
        await exchange.send(event({"choices": ends[1:]}))
        await exchange.end()

    upstream.scripts["prompts"] = script
    answer = await call(upstream.base_url, ask(COMPLETION, prompt=["a", "b"], stream=True), "prompts")
    assert isinstance(answer, StreamAnswer)
    assert not answer.transcript.complete
    upstream.gate.set()
    assert await answer.next_events(1.0)
    assert answer.transcript.complete
    await answer.release()


@pytest.mark.parametrize("key", ["abc\n", "a\r\nx: y", "a\0b"])
async def test_key_that_no_header_can_carry_is_a_fault_of_the_set_up(
    upstream: Upstream, call: Caller, key: str
) -> None:
    failure = await failure_of(call(upstream.base_url, ask(), headers={"Authorization": f"Bearer {key}"}))
    assert failure.cause is Cause.CREDENTIALS
    assert key not in failure.detail
    assert upstream.requests == []


async def test_backend_that_is_not_there_is_named_without_its_address(upstream: Upstream, call: Caller) -> None:
    await upstream.stop()
    failure = await failure_of(call(upstream.base_url, ask()))
    await upstream.start()
    assert (failure.cause, failure.detail) == (Cause.UNREACHABLE, "cannot be connected to (Connection refused)")


@pytest.mark.parametrize(
    ("stream", "ends_in", "first_token", "cause"),
    [
        (False, 0.05, 0.01, Cause.OUT_OF_TIME),
        (True, 0.05, 1.0, Cause.OUT_OF_TIME),
        (True, 5.0, 0.05, Cause.SILENT),
    ],
    ids=["body", "impatient caller of a stream", "late first token"],
)
async def test_end_of_a_callers_own_time_is_not_taken_for_silence(
    upstream: Upstream, call: Caller, stream: bool, ends_in: float, first_token: float, cause: Cause
) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.client_gone()

    upstream.scripts["hang"] = hang
    deadlines = Deadlines(first_token=first_token)
    calling = call(upstream.base_url, ask(stream=stream), "hang", ends_in=ends_in, deadlines=deadlines)
    assert (await failure_of(calling)).cause is cause


async def hanging(exchange: Exchange) -> None:
    await exchange.client_gone()


def deadlines_of(**seconds: float) -> Deadlines:
    return Deadlines(**{"connect": 1.0, "first_token": 30.0, "stall": 30.0, "total": 30.0, **seconds})


@pytest.mark.parametrize("stream", [True, False])
async def test_backends_own_total_is_its_fault_and_not_the_callers_end(
    upstream: Upstream, call: Caller, stream: bool
) -> None:
    upstream.scripts["hang"] = hanging
    deadlines = deadlines_of(total=0.05)
    failure = await failure_of(call(upstream.base_url, ask(stream=stream), "hang", deadlines=deadlines))
    assert failure.cause is Cause.SILENT


async def test_backends_own_total_ends_a_stream_that_goes_on(upstream: Upstream, call: Caller) -> None:
    answer = await call(upstream.base_url, ask(stream=True), "endless", deadlines=deadlines_of(total=0.2))
    assert isinstance(answer, StreamAnswer)
    with pytest.raises(AttemptFailed):
        while True:
            await answer.next_events(1.0)
    await answer.release()


@pytest.mark.parametrize(("is_trial", "cause"), [(True, Cause.SILENT), (False, Cause.OUT_OF_TIME)])
async def test_trial_gets_half_of_the_patience(upstream: Upstream, call: Caller, is_trial: bool, cause: Cause) -> None:
    upstream.scripts["hang"] = hanging
    calling = call(
        upstream.base_url,
        ask(stream=True),
        "hang",
        ends_in=0.15,
        deadlines=deadlines_of(first_token=0.2),
        impatient=is_trial,
    )
    assert (await failure_of(calling)).cause is cause


@pytest.mark.parametrize(
    ("last_ms", "cause"), [(None, Cause.OUT_OF_TIME), (1999.0, Cause.SILENT), (2000.0, Cause.OUT_OF_TIME)]
)
async def test_body_where_answers_come_soon_is_late_when_a_first_token_would_be(
    upstream: Upstream, last_ms: float | None, cause: Cause
) -> None:
    upstream.scripts["hang"] = hanging
    step = step_to(upstream.base_url, "hang", deadlines_of(first_token=0.05))
    if last_ms is not None:
        step.offer.speed.on_answer(last_ms, now=time.monotonic())
    async with open_session() as session:
        calling = attempt(session, step, ask(), headers={}, ends_at=time.monotonic() + 0.15, capture=False)
        assert (await failure_of(calling)).cause is cause


@pytest.mark.parametrize("wish", [{}, {"modalities": ["audio"]}], ids=["not assembled", "sound"])
async def test_body_that_can_be_no_stream_may_take_longer_than_those_before_it(
    upstream: Upstream, wish: dict[str, Any]
) -> None:
    upstream.scripts["hang"] = hanging
    step = step_to(upstream.base_url, "hang", deadlines_of(first_token=0.05), assemble=bool(wish))
    step.offer.speed.on_answer(20.0, now=time.monotonic())
    async with open_session() as session:
        for ends_in, cause in ((0.15, Cause.OUT_OF_TIME), (5.0, Cause.SILENT)):
            ends_at = time.monotonic() + ends_in
            calling = attempt(session, step, ask(**wish), headers={}, ends_at=ends_at, capture=False)
            assert (await failure_of(calling)).cause is cause


@pytest.mark.parametrize(
    ("ends_in", "total", "least", "most"), [(5.0, 30.0, 4.8, 5.0), (30.0, 2.0, 1.8, 2.0), (0.09, 30.0, 0.1, 0.1)]
)
async def test_backend_is_told_how_much_time_is_left(
    upstream: Upstream, call: Caller, ends_in: float, total: float, least: float, most: float
) -> None:
    with suppress(AttemptFailed):
        await call(upstream.base_url, ask(), ends_in=ends_in, deadlines=deadlines_of(total=total))
    (told,) = upstream.requests[0].header("x-isochrone-timeout")
    assert least <= float(told) <= most
    assert len(told.partition(".")[2]) == 1


async def silent_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes connections and says nothing, not even a handshake."""
    await reader.read()
    writer.close()


async def test_handshake_that_hangs_is_bounded_by_the_deadline_for_connections(call: Caller) -> None:
    async with await asyncio.start_server(silent_server, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        calling = call(f"https://127.0.0.1:{port}/v1", ask(stream=True), deadlines=deadlines_of(connect=0.1))
        failure = await failure_of(calling)
    assert (failure.cause, failure.ambiguous) == (Cause.UNREACHABLE, False)


async def test_each_attempt_has_its_own_deadline_for_connections(call: Caller) -> None:
    async with await asyncio.start_server(silent_server, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        calling = call(
            f"https://127.0.0.1:{port}/v1", ask(stream=True), deadlines=deadlines_of(connect=30.0, first_token=0.1)
        )
        failure = await failure_of(calling)
    assert failure.cause is Cause.SILENT


@pytest.mark.parametrize("script", ["hung-up", "reset"])
@pytest.mark.parametrize("stream", [True, False])
async def test_post_on_a_connection_that_drops_is_never_sent_twice_and_said_to_be_ambiguous(
    upstream: Upstream, call: Caller, script: str, stream: bool
) -> None:
    await call(upstream.base_url, ask())
    failure = await failure_of(call(upstream.base_url, ask(stream=stream), script))
    assert (failure.cause, failure.ambiguous) == (Cause.DROPPED, True)
    assert [(request.connection, request.fields["model"]) for request in upstream.requests] == [(1, "ok"), (1, script)]


@pytest.mark.parametrize("script", ["dead", "busy", "empty-body", "html"])
async def test_failure_with_a_reply_is_not_ambiguous(upstream: Upstream, call: Caller, script: str) -> None:
    assert (await failure_of(call(upstream.base_url, ask(), script))).ambiguous is False


async def json_body(exchange: Exchange) -> None:
    await exchange.json(completion())


async def test_body_will_do_for_a_caller_who_wants_no_stream(upstream: Upstream, call: Caller) -> None:
    upstream.scripts["json"] = json_body
    answer = await call(upstream.base_url, ask(stream=True), "json", body_will_do=True)
    assert isinstance(answer, BodyAnswer)
    assert answer.body == completion()


async def test_body_will_not_do_for_a_caller_of_a_stream(upstream: Upstream, call: Caller) -> None:
    upstream.scripts["json"] = json_body
    failure = await failure_of(call(upstream.base_url, ask(stream=True), "json"))
    assert (failure.cause, failure.detail) == (
        Cause.BROKEN,
        "answered a stream request with something else than a stream",
    )


def error(code: str) -> dict[str, Any]:
    return {"error": {"message": "no", "code": code}}


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("context_length_exceeded", Cause.CONTEXT),
        ("content_filter", Cause.FILTERED),
        ("rate_limit_exceeded", Cause.OVERLOADED),
        ("insufficient_quota", Cause.CREDENTIALS),
        ("server_error", Cause.BROKEN),
    ],
)
@pytest.mark.parametrize("shape", ["event", "body to a stream", "body"])
async def test_error_after_a_200_is_what_its_words_say(
    upstream: Upstream, call: Caller, shape: str, code: str, cause: Cause
) -> None:
    async def script(exchange: Exchange) -> None:
        if shape == "event":
            await exchange.stream([KEEP_ALIVE, event(error(code))])
        else:
            await exchange.json(error(code))

    upstream.scripts["in-band"] = script
    failure = await failure_of(call(upstream.base_url, ask(stream=shape != "body"), "in-band"))
    assert (failure.cause, failure.status, json.loads(failure.body)) == (cause, 0, error(code))


@pytest.mark.parametrize("blank", [b"", b"\n", b" \n\n", KEEP_ALIVE, b"\r\n" * 3])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("stream", [True, False])
async def test_blank_body_after_a_200_is_a_failure_and_how_a_busy_deepseek_says_so(
    upstream: Upstream, call: Caller, blank: bytes, kind: str, stream: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(content_type=kind, content_length=str(len(blank)))
        await exchange.write(blank)

    upstream.scripts["blank"] = script
    assert (await failure_of(call(upstream.base_url, ask(stream=stream), "blank"))).cause is Cause.BROKEN


async def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.5', 8000)"),
        OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.5', 8000)"),
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('10.0.0.5', 8000)"),
    ],
)
async def test_no_address_of_a_backend_gets_out(error: OSError) -> None:
    failure = await failure_of(
        bounded(raising(aiohttp.ClientConnectorError(KEY, error)), time.monotonic() + 1, Alarm())
    )
    assert failure.cause is Cause.UNREACHABLE
    assert "10.0.0.5" not in failure.detail
    assert "8000" not in failure.detail


async def test_name_that_cannot_be_resolved_is_said_to_be_that() -> None:
    error = aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    failure = await failure_of(bounded(raising(error), time.monotonic() + 1, Alarm()))
    assert (failure.cause, failure.detail) == (
        Cause.UNREACHABLE,
        "cannot be connected to (its name cannot be resolved)",
    )


async def plain_speaking(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Speak plainly\r\n\r\n")
    writer.close()


async def test_failed_handshake_is_not_taken_for_a_closed_port(call: Caller) -> None:
    async with await asyncio.start_server(plain_speaking, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await failure_of(call(f"https://127.0.0.1:{port}/v1", ask()))
    assert failure.cause is Cause.DROPPED
    assert failure.detail.startswith("failed at TLS")


async def test_certificate_that_is_not_trusted_is_not_taken_for_a_closed_port() -> None:
    error = aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "self-signed 10.0.0.5"))
    failure = await failure_of(bounded(raising(error), time.monotonic() + 1, Alarm()))
    assert failure.cause is Cause.DROPPED
    assert failure.detail.startswith("failed at TLS")
    assert "10.0.0.5" not in failure.detail


def test_body_too_deep_to_be_written_again_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(BadRequest, match="nested too deeply"):
        body_for(step_to("http://127.0.0.1:9/v1"), ask(x=nested))


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (CHAT, {"code": 50001, "message": "busy", "data": None}),
        (CHAT, {"object": "list", "data": [{"embedding": [1.0]}]}),
        (CHAT, {"choices": "none"}),
        (EMBEDDING, {"code": 50001, "message": "busy", "data": None}),
        (EMBEDDING, {"object": "list", "data": []}),
        (EMBEDDING, completion()),
    ],
)
async def test_body_without_what_was_asked_for_is_no_answer(
    upstream: Upstream, call: Caller, operation: Operation, body: dict[str, Any]
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.json(body)

    upstream.scripts["other"] = script
    assert (await failure_of(call(upstream.base_url, ask(operation, input="x"), "other"))).cause is Cause.BROKEN


async def test_silence_over_vectors_ends_long_before_the_total(upstream: Upstream, call: Caller) -> None:
    quick = Deadlines(connect=1.0, first_token=0.01, stall=1.0, total=60.0)
    failure = await failure_of(call(upstream.base_url, ask(EMBEDDING), "silent", deadlines=quick, ends_in=60.0))
    assert failure.cause is Cause.SILENT
