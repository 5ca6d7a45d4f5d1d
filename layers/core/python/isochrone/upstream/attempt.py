"""One call to one backend, up to the point where its answer is certain enough to be shown to the client.

A stream is opened when its first token is there: until then another backend can still be asked, and nobody notices.
Every wait is bounded (times are seconds on the event loop's clock, which is time.monotonic).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec

from isochrone.api.requests import EMBEDDING, Ask, encode
from isochrone.routing.plan import Step
from isochrone.routing.prober import why
from isochrone.settings import Deadlines
from isochrone.upstream.failure import AttemptFailed, Cause, failure_of_status, out_of_time
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript

# Below the keep-alive of common engines (uvicorn's is 5 s), so that a pooled connection is not one just closed there.
KEEP_ALIVE_SECONDS = 4.0
_MAX_BODY = 64 * 1024 * 1024
_ERROR_BODY = 64 * 1024
_ERROR_SECONDS = 1.0

T = TypeVar("T")


def open_session(deadlines: Deadlines) -> aiohttp.ClientSession:
    """The one pooled client of an edge."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=deadlines.connect),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        read_bufsize=256 * 1024,
    )


class BodyAnswer(NamedTuple):
    """A whole reply of a non-streaming call: its bytes as they came, and parsed."""

    raw: bytes
    body: dict[str, Any]


async def attempt(
    session: aiohttp.ClientSession,
    step: Step,
    ask: Ask,
    *,
    headers: Mapping[str, str],
    deadlines: Deadlines,
    ends_at: float,
    capture: bool,
) -> BodyAnswer | StreamAnswer:
    """Call one backend; `ends_at` is when the whole request must be over.

    Raises AttemptFailed (BadRequest for what no backend could be sent), and leaves no connection behind when it does.
    """
    silent_at = time.monotonic() + deadlines.first_token if ask.stream else math.inf
    first_by = min(ends_at, silent_at)
    try:
        response = await _send(session, step, ask, headers, first_by)
        return await _receive(response, ask, deadlines, first_by=first_by, ends_at=ends_at, capture=capture)
    except AttemptFailed as failure:
        if failure.cause is Cause.SILENT and ends_at < silent_at:
            raise out_of_time() from None
        raise


async def _receive(
    response: aiohttp.ClientResponse, ask: Ask, deadlines: Deadlines, *, first_by: float, ends_at: float, capture: bool
) -> BodyAnswer | StreamAnswer:
    try:
        if response.status != 200:
            raise await _refusal(response, first_by)
        if not ask.stream:
            return await _whole_body(response, ends_at)
        if response.content_type != "text/event-stream":
            raise AttemptFailed(Cause.BROKEN, "answered a stream request with something else than a stream")
        answer = StreamAnswer(
            lambda until: bounded(response.content.readany(), until),
            Transcript(capture=capture, choices=ask.choices),
            stall=deadlines.stall,
            ends_at=ends_at,
            close=lambda: _give_back(response),
        )
        await answer.open(first_by)
    except BaseException:
        _give_back(response)
        raise
    return answer


async def _send(
    session: aiohttp.ClientSession, step: Step, ask: Ask, headers: Mapping[str, str], until: float
) -> aiohttp.ClientResponse:
    url = step.backend.facts.base_url.rstrip("/") + ask.operation.path
    call = session.post(url, data=body_for(step, ask), headers=headers, allow_redirects=False)
    return await bounded(call, until)


def body_for(step: Step, ask: Ask) -> bytes:
    """The canonical body: the backend's own model name, and usage asked for, since the ledger needs it.

    Raises BadRequest for one that cannot be written.
    """
    fields = {**ask.fields, "model": step.offer.model_there}
    if ask.stream and ask.operation is not EMBEDDING:
        fields["stream_options"] = {**(ask.fields.get("stream_options") or {}), "include_usage": True}
    return encode(fields)


async def bounded(call: Awaitable[T], until: float) -> T:
    """Await a client call no longer than `until`; every way in which it can fail becomes an AttemptFailed."""
    try:
        async with asyncio.timeout_at(until):
            return await call
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
        raise AttemptFailed(Cause.DROPPED, f"dropped the connection ({type(error).__name__})") from None
    except ValueError:
        # aiohttp refuses to write such a header; what it says may hold the key.
        raise AttemptFailed(Cause.CREDENTIALS, "has a key that cannot be sent in a header") from None


async def _refusal(response: aiohttp.ClientResponse, until: float) -> AttemptFailed:
    body = bytearray()
    # What the status says holds also without the rest of the words.
    with suppress(AttemptFailed):
        reading = _read_into(body, response.content, limit=_ERROR_BODY)
        await bounded(reading, min(until, time.monotonic() + _ERROR_SECONDS))
    wait = response.headers.get("Retry-After")
    return failure_of_status(response.status, bytes(body[:_ERROR_BODY]), wait, now=time.time())


async def _whole_body(response: aiohttp.ClientResponse, until: float) -> BodyAnswer:
    read = bytearray()
    await bounded(_read_into(read, response.content, limit=_MAX_BODY), until)
    if len(read) > _MAX_BODY:
        raise AttemptFailed(Cause.BROKEN, f"sent a body of more than {_MAX_BODY} bytes")
    raw = bytes(read)
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A blank body after a 200 is how an overloaded DeepSeek says "busy".
        detail = "sent a body that is not JSON" if raw.strip() else "sent an empty body"
        raise AttemptFailed(Cause.BROKEN, detail) from None
    if not isinstance(body, dict) or body.get("error") or not (body.get("choices") or "data" in body):
        raise AttemptFailed(Cause.BROKEN, "sent a body that is no completion", body=raw[:_ERROR_BODY])
    return BodyAnswer(raw, body)


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
