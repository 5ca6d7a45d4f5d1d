"""From a backend's open stream to the client's: events pass through as they came, and the ending tells the truth."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from isochrone.api.errors import ApiError, UpstreamFailed
from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.stream import Read, StreamAnswer
from isochrone.upstream.transcript import Reading

# Idle proxies on the way close a silent connection after 30 to 60 s.
HEARTBEAT_SECONDS = 15.0


async def relay(answer: StreamAnswer, *, include_usage: bool) -> AsyncIterator[bytes]:
    """The bytes for the client. Raises AttemptFailed when the stream failed: then the caller ends it in band."""
    yield passed_on(answer.first, include_usage=include_usage)
    while (events := await answer.next_events(HEARTBEAT_SECONDS)) is not None:
        yield passed_on(events, include_usage=include_usage) if events else KEEP_ALIVE
    if not answer.transcript.done:
        yield DONE_EVENT


def passed_on(events: Sequence[Read], *, include_usage: bool) -> bytes:
    """The events' own bytes; usage that only we asked for stays here."""
    if include_usage:
        return b"".join([event.raw for event, _ in events])
    return b"".join([event.raw for event, reading in events if reading is not Reading.USAGE])


def error_event(error: ApiError) -> bytes:
    """The one event that ends a stream which cannot be completed; no [DONE] follows it."""
    return b"data: " + error.body() + b"\n\n"


def broken_stream(failure: AttemptFailed, backend: str) -> ApiError:
    """What the client is told when a stream fails after its first token."""
    return UpstreamFailed(f"The answer is not complete: backend {backend!r} {failure}.", code="stream_incomplete")


class Relayed:
    """A reply's stream. Closing it lets go of the backend also when nothing was read from it, as a bare generator
    would not."""

    def __init__(self, stream: AsyncGenerator[bytes, None], let_go: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._let_go = let_go

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def aclose(self) -> None:
        await self._stream.aclose()
        await self._let_go()
