"""From a backend's open stream to the client's: events pass through as they came, and the ending tells the truth."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE, Event
from isochrone.upstream.splice import Join
from isochrone.upstream.stream import Read, StreamAnswer
from isochrone.upstream.transcript import Reading

# Idle proxies on the way close a silent connection after 30 to 60 s.
HEARTBEAT_SECONDS = 15.0


async def relay(
    answer: StreamAnswer, *, include_usage: bool, join: Join | None = None, afterword: Callable[[], bytes] = bytes
) -> AsyncIterator[bytes]:
    """The bytes for the client. Raises AttemptFailed when the stream failed, or says something else than `join` allows.

    `afterword` gives what the client gets between the last word and [DONE], if anything.
    """
    events: Sequence[Read] | None = answer.first
    quiet_since = time.monotonic()
    while events is not None:
        quiet = not events or time.monotonic() - quiet_since >= HEARTBEAT_SECONDS
        if not include_usage:
            events = _without_usage(events)
        if join:
            events = join.join(events)
        if answer.transcript.done:
            events = _with_afterword(events, afterword())
        data = b"".join([event.raw for event, _ in events])
        if data or quiet:
            yield data or KEEP_ALIVE
            quiet_since = time.monotonic()
        events = await answer.next_events(HEARTBEAT_SECONDS)
    if not answer.transcript.done:
        yield afterword() + DONE_EVENT


def _without_usage(events: Sequence[Read]) -> Sequence[Read]:
    """Usage that only we asked for stays here."""
    return [read for read in events if read[1] is not Reading.USAGE]


def _with_afterword(events: Sequence[Read], afterword: bytes) -> Sequence[Read]:
    if not afterword:
        return events
    done = next((at for at, read in enumerate(events) if read[1] is Reading.DONE), len(events))
    return [*events[:done], (Event(afterword, None), Reading.USAGE), *events[done:]]
