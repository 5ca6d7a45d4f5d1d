"""One event in, one streamed response out.

    |-- application ------------------------------------------| RESERVE |
    |-- this relay ----------------------------------------------| LAST_WORD |
    event                                                                    Lambda's timeout

The application is told that it has RESERVE less than Lambda gives, so it ends its streams itself. Should it not, the
relay ends them LAST_WORD before Lambda would cut the connection without a word.

The prelude fixes the status, so it leaves together with the first bytes: until then every failure is a proper error
reply. After that, a failure is an `error` event when the body is an event stream, and error trailers always.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from isochrone.api.errors import ApiError, DeadlinePassed
from isochrone.api.exchange import ByteStream, Reply, Request
from isochrone.doors import events
from isochrone_streaming.application import Handle
from isochrone_streaming.faults import Fault
from isochrone_streaming.runtime_api import Invocation, RuntimeApi
from isochrone_streaming.wire import Connection, HttpReply, WireError

RESERVE = 1.0  # seconds
LAST_WORD = 0.5  # seconds
_PATIENCE = 0.2  # seconds that a cancelled stream gets to clean up
_GOODBYE = 0.3  # seconds, of LAST_WORD, that a Runtime API which does not read is waited for

log = logging.getLogger(__name__)


async def answer(api: RuntimeApi, invocation: Invocation, handle: Handle, *, now: float) -> None:
    """Answer one event; `now` is in epoch seconds, like the invocation's deadline. Raises RuntimeApiError."""
    left = invocation.deadline - now
    cut = asyncio.get_running_loop().time() + left - LAST_WORD
    try:
        request = events.request_of(events.decode(invocation.event), time_left=max(0.0, left - RESERVE))
    except events.EventError as error:
        # Whoever sent this does not speak HTTP, so it is not told in HTTP.
        await api.invocation_error(invocation, Fault("Isochrone.NotAnHttpEvent", str(error)))
        return
    opening = await _open(handle, request, cut)
    reply = opening.reply
    try:
        verdict = await _send(api, invocation, opening, cut)
    except WireError as error:
        log.warning("%s: the response was cut: %s", invocation.id, error)
        api.disconnect()
    else:
        if verdict.status >= 300:
            log.error("%s: the response was refused: status %d", invocation.id, verdict.status)
    finally:
        await _close(reply.stream)


class _Opening(NamedTuple):
    """A reply that has begun: `head` is its prelude with the first bytes of its body, `rest` gives the others."""

    reply: Reply
    head: bytes
    rest: AsyncIterator[bytes] | None


async def _open(handle: Handle, request: Request, cut: float) -> _Opening:
    """Wait for the first bytes; what fails before them becomes an error reply."""
    reply = None
    limit = asyncio.timeout_at(cut)
    try:
        async with limit:
            reply = await handle(request)
            rest = aiter(reply.stream) if reply.stream else None
            return _Opening(reply, events.prelude(reply) + (await _first(rest) if rest else reply.body), rest)
    except Exception as error:
        log.error("before the first byte: %s", Fault.of(error, "the request failed"))
        if reply:
            await _close(reply.stream)
        reply = events.error_reply(_late() if limit.expired() else ApiError("The edge failed.", code="internal_error"))
        return _Opening(reply, events.prelude(reply) + reply.body, None)


async def _first(chunks: AsyncIterator[bytes]) -> bytes:
    async for chunk in chunks:
        if chunk:
            return chunk
    return b""


async def _send(api: RuntimeApi, invocation: Invocation, opening: _Opening, cut: float) -> HttpReply:
    """Send the reply; gives what the Runtime API said. Raises WireError."""
    if opening.rest is None:
        return await api.respond(invocation, opening.head)
    post = await api.begin_response(invocation, opening.head)
    # Read from the start: a Runtime API that answers or hangs up early will not take the rest.
    answered = asyncio.create_task(post.read_reply())
    pump = asyncio.create_task(_pump(opening.rest, post))
    try:
        fault = await _outcome(pump, answered, cut)
        if fault:
            log.error("%s: the stream failed: %s", invocation.id, fault)
        async with asyncio.timeout_at(cut + _GOODBYE):
            return await _end(post, opening.reply, fault, answered)
    except TimeoutError:
        raise WireError("the Runtime API does not read") from None
    finally:
        await _stop(pump, answered)


async def _end(post: Connection, reply: Reply, fault: Fault | None, answered: asyncio.Task[HttpReply]) -> HttpReply:
    if fault:
        await _last_word(post, reply, fault)
    await post.end_chunked(fault.trailers() if fault else {})
    return await answered


async def _pump(chunks: AsyncIterator[bytes], post: Connection) -> None:
    async for chunk in chunks:
        if chunk:  # an empty chunk would end the body
            await post.send_chunk(chunk)


async def _outcome(pump: asyncio.Task[None], answered: asyncio.Task[HttpReply], cut: float) -> Fault | None:
    """Wait for the end of the stream, of the time, or of the connection, which raises WireError."""
    seconds = max(0.0, cut - asyncio.get_running_loop().time())
    await asyncio.wait({pump, answered}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if answered.done():
        raise WireError(f"the Runtime API answered {answered.result().status} before the end")
    if not pump.done():
        await _stop(pump)
        return Fault("Isochrone.DeadlinePassed", "the stream was ended before the function's timeout")
    error = pump.exception()
    if isinstance(error, WireError):
        raise error
    return Fault.of(error, "the stream failed after it began") if error else None


async def _last_word(post: Connection, reply: Reply, fault: Fault) -> None:
    """Tell the client in band, where the body is a form that can hold it."""
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        late = fault.type == "Isochrone.DeadlinePassed"
        error = _late() if late else ApiError("The stream failed.", code="stream_failed")
        await post.send_chunk(b"data: " + error.body() + b"\n\n")


def _late() -> DeadlinePassed:
    return DeadlinePassed("The function's time ran out before the answer was complete.")


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and collect, so that no error is left unread."""
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=_PATIENCE)
    for task in done:
        task.cancelled() or task.exception()


async def _close(stream: ByteStream | None) -> None:
    """Closing is how the pipeline learns that nobody reads any more; a stream at its end does not mind."""
    try:
        if stream:
            await stream.aclose()
    except Exception as error:
        log.error("closing the stream: %s", Fault.of(error, "the stream did not close"))
