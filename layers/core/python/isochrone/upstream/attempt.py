"""One call to one backend, up to the point where its answer is certain enough to be shown to the client.

A stream is opened when its first token is there: until then another backend can still be asked, and nobody notices.
Every wait is bounded (times are seconds on the event loop's clock, which is time.monotonic).
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

from isochrone.api.requests import EMBEDDING, Ask, Operation, encode
from isochrone.routing.fleet import Offer
from isochrone.routing.plan import Step
from isochrone.routing.prober import why
from isochrone.upstream.alarm import Alarm
from isochrone.upstream.failure import AttemptFailed, Cause, failure_of_status, out_of_time, told_in_band
from isochrone.upstream.gathering import can_be_gathered
from isochrone.upstream.masking import Mask
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.surrogates import may_hold_halves, mend
from isochrone.upstream.transcript import Transcript, broken_off

# Below the keep-alive of common engines (uvicorn's is 5 s), so that a pooled connection is not one just closed there.
KEEP_ALIVE_SECONDS = 4.0
_MAX_BODY = 64 * 1024 * 1024
_ERROR_BODY = 64 * 1024
_ERROR_SECONDS = 1.0
# How many times longer than for a first token a body may take that can be asked for in no other way.
_BODY_PATIENCE = 6

T = TypeVar("T")


def open_session() -> aiohttp.ClientSession:
    """The one pooled client of an edge; each attempt brings its own deadlines."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        read_bufsize=256 * 1024,
    )


class BodyAnswer(NamedTuple):
    """A whole reply of a non-streaming call: its bytes as they came, and parsed."""

    raw: bytes
    body: dict[str, Any]


class _Limits(NamedTuple):
    """When there must be a first token (or, of a body, all of it), and when the whole must be over. `alarm` holds the
    attempt's waits to them, `mask` its backend's words to what others may hear."""

    first_by: float
    ends_at: float
    alarm: Alarm
    mask: Mask


async def attempt(
    session: aiohttp.ClientSession,
    step: Step,
    ask: Ask,
    *,
    headers: Mapping[str, str],
    ends_at: float,
    capture: bool,
    gather: bool = False,
    impatient: bool = False,
    body_will_do: bool = False,
) -> BodyAnswer | StreamAnswer:
    """Call one backend; `ends_at` is when the whole request must be over. `impatient` halves the time to the first
    token. A stream may be answered with a body only if `body_will_do`.

    Raises AttemptFailed (BadRequest for what no backend could be sent), and leaves no connection behind when it does.
    """
    now = time.monotonic()
    own_end = now + step.offer.deadlines.total
    silent_at = min(own_end, now + _patience(step.offer, ask) / (2 if impatient else 1))
    limits = _Limits(min(ends_at, silent_at), min(ends_at, own_end), Alarm(), Mask(headers))
    headers = {**headers, "X-Isochrone-Timeout": _in_tenths(limits.ends_at - now)}
    answer = None
    try:
        response = await _send(session, step, ask, headers, limits)
        transcript = Transcript(
            capture=capture, gather=gather, choices=ask.choices, gives_reasons=step.offer.gives_reasons
        )
        answer = await _receive(response, step, ask, limits, transcript, body_will_do=body_will_do)
    except AttemptFailed as failure:
        if failure.cause is Cause.SILENT and ends_at < silent_at:
            raise out_of_time() from None
        failure.body = limits.mask.error(failure.body)
        raise told_in_band(failure) from None
    finally:
        if not isinstance(answer, StreamAnswer):
            limits.alarm.stop()
    return answer


def _patience(offer: Offer, ask: Ask) -> float:
    """Seconds to the first token. A body comes all at once at its end: only where answers come soon can it be late;
    then half of the time is left to ask for it as a stream; one that can be no stream may be a long answer, but for
    vectors, which nobody writes word by word."""
    first_token = offer.deadlines.first_token
    if ask.stream:
        return first_token
    if not comes_soon(offer) and ask.operation is not EMBEDDING:
        return math.inf
    could_be_stream = offer.backend.facts.assemble and can_be_gathered(ask)
    return first_token / 2 if could_be_stream else first_token * _BODY_PATIENCE


def comes_soon(offer: Offer) -> bool:
    """Is a body of this offer there before a first token would be late?"""
    return offer.speed.answers_come_soon(time.monotonic())


def _in_tenths(seconds: float) -> str:
    """Rounded down, so that nobody behind us takes longer than we may."""
    return f"{max(1, int(seconds * 10)) / 10:.1f}"


async def _receive(
    response: aiohttp.ClientResponse,
    step: Step,
    ask: Ask,
    limits: _Limits,
    transcript: Transcript,
    *,
    body_will_do: bool,
) -> BodyAnswer | StreamAnswer:
    try:
        if response.status != 200:
            raise await _refusal(response, limits)
        is_stream = response.content_type == "text/event-stream"
        if ask.stream and not is_stream and (ask.continues or not body_will_do):
            raise await _no_stream(response, limits)
        if not (ask.stream and is_stream):
            return await _whole_body(response, limits, ask.operation)
        answer = _stream_of(response, step, limits, transcript)
        await answer.open(limits.first_by)
    except BaseException:
        _give_back(response)
        raise
    return answer


def _stream_of(response: aiohttp.ClientResponse, step: Step, limits: _Limits, transcript: Transcript) -> StreamAnswer:
    content, alarm = response.content, limits.alarm

    def close() -> None:
        alarm.stop()
        _give_back(response)

    return StreamAnswer(
        lambda until: bounded(content.readany(), until, alarm),
        transcript,
        stall=step.offer.deadlines.stall,
        ends_at=limits.ends_at,
        close=close,
        mask=limits.mask,
    )


async def _send(
    session: aiohttp.ClientSession, step: Step, ask: Ask, headers: Mapping[str, str], limits: _Limits
) -> aiohttp.ClientResponse:
    url = step.backend.facts.base_url.rstrip("/") + ask.operation.path
    timeout = _to_connect(step.offer.deadlines.connect)
    call = session.post(url, data=body_for(step, ask), headers=headers, allow_redirects=False, timeout=timeout)
    return await bounded(call, limits.first_by, limits.alarm)


@lru_cache(maxsize=64)
def _to_connect(seconds: float) -> aiohttp.ClientTimeout:
    """It covers looking up the name, TCP and TLS. What is given back to the pool keeps no deadline."""
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def body_for(step: Step, ask: Ask) -> bytes:
    """The canonical body: the backend's own model name, and usage asked for, since the ledger needs it.

    Raises BadRequest for one that cannot be written.
    """
    fields = {**ask.fields, "model": step.offer.model_there}
    if ask.stream and ask.operation is not EMBEDDING:
        fields["stream_options"] = {**(ask.fields.get("stream_options") or {}), "include_usage": True}
    return encode(fields)


async def bounded(call: Awaitable[T], until: float, alarm: Alarm) -> T:
    """Await a client call no longer than `until`; every way in which it can fail becomes an AttemptFailed."""
    try:
        return await alarm.wait(call, until)
    except aiohttp.ServerTimeoutError:
        raise AttemptFailed(Cause.UNREACHABLE, "did not accept a connection in time") from None
    except TimeoutError:
        raise AttemptFailed(Cause.SILENT, "was silent for too long") from None
    except aiohttp.ClientSSLError as error:
        # Not UNREACHABLE: a probe that only connects would clear it of that.
        raise AttemptFailed(Cause.DROPPED, f"failed at TLS ({type(error).__name__})") from None
    except aiohttp.ClientConnectorError as error:
        raise AttemptFailed(Cause.UNREACHABLE, f"cannot be connected to ({why(error)})") from None
    except aiohttp.ClientPayloadError:
        raise AttemptFailed(Cause.CUT, "cut its reply short") from None
    except (aiohttp.ClientError, OSError) as error:
        detail = f"dropped the connection ({type(error).__name__})"
        raise AttemptFailed(Cause.DROPPED, detail, ambiguous=True) from None
    except ValueError:
        # aiohttp refuses to write such a header; what it says may hold the key.
        raise AttemptFailed(Cause.CREDENTIALS, "has a key that cannot be sent in a header") from None


async def _refusal(response: aiohttp.ClientResponse, limits: _Limits) -> AttemptFailed:
    body = await _words(response, limits)
    return failure_of_status(response.status, body, response.headers, now=time.time())


async def _no_stream(response: aiohttp.ClientResponse, limits: _Limits) -> AttemptFailed:
    detail = "answered a stream request with something else than a stream"
    return AttemptFailed(Cause.BROKEN, detail, body=await _words(response, limits))


async def _words(response: aiohttp.ClientResponse, limits: _Limits) -> bytes:
    """The body of an error, as much of it as comes soon: what the status says holds also without the rest."""
    body = bytearray()
    with suppress(AttemptFailed):
        reading = _read_into(body, response.content, limit=_ERROR_BODY)
        await bounded(reading, min(limits.first_by, time.monotonic() + _ERROR_SECONDS), limits.alarm)
    return bytes(body[:_ERROR_BODY])


async def _whole_body(response: aiohttp.ClientResponse, limits: _Limits, operation: Operation) -> BodyAnswer:
    read = bytearray()
    await bounded(_read_into(read, response.content, limit=_MAX_BODY), limits.first_by, limits.alarm)
    if len(read) > _MAX_BODY:
        raise AttemptFailed(Cause.BROKEN, f"sent a body of more than {_MAX_BODY} bytes")
    raw = limits.mask.body(mend(bytes(read)) if may_hold_halves(read) else bytes(read))
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A blank body after a 200 is how an overloaded DeepSeek says "busy".
        detail = "sent a body that is not JSON" if raw.strip() else "sent an empty body"
        raise AttemptFailed(Cause.BROKEN, detail) from None
    if not isinstance(body, dict) or body.get("error") or not _is_answer(body, operation):
        raise AttemptFailed(Cause.BROKEN, "sent a body that is no completion", body=raw[:_ERROR_BODY])
    if reason := broken_off(body):
        raise AttemptFailed(Cause.CUT, f"broke its answer off ({reason})")
    return BodyAnswer(raw, body)


def _is_answer(body: dict[str, Any], operation: Operation) -> bool:
    """Some gateways answer 200 with `{"code": ..., "message": ..., "data": null}` where they have no answer."""
    results = body.get("data" if operation is EMBEDDING else "choices")
    return isinstance(results, list) and bool(results)


async def _read_into(body: bytearray, content: aiohttp.StreamReader, *, limit: int) -> None:
    """The whole body; or, of one that is longer than the limit, somewhat more than that."""
    while len(body) <= limit and (chunk := await content.readany()):
        body += chunk


def _give_back(response: aiohttp.ClientResponse) -> None:
    """To the pool if the reply was read to its end; else close it, which also stops the generation there."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()
