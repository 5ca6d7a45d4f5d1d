"""From a backend's open stream to the client's: events pass through as they came, and the ending tells the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.upstream.splice import Splice
from isochrone.upstream.stream import Read, StreamAnswer
from isochrone.upstream.transcript import Reading

# Idle proxies on the way close a silent connection after 30 to 60 s.
HEARTBEAT_SECONDS = 15.0


async def relay(answer: StreamAnswer, *, include_usage: bool, splice: Splice | None = None) -> AsyncIterator[bytes]:
    """The bytes for the client. Raises AttemptFailed when the stream failed, or says something else than `splice`."""
    events: Sequence[Read] | None = answer.first
    while events is not None:
        if not include_usage:
            events = _without_usage(events)
        if data := splice.join(events) if splice else b"".join([event.raw for event, _ in events]):
            yield data
        events = await answer.next_events(HEARTBEAT_SECONDS)
        if events == []:
            yield KEEP_ALIVE
    if not answer.transcript.done:
        yield DONE_EVENT


def _without_usage(events: Sequence[Read]) -> Sequence[Read]:
    """Usage that only we asked for stays here."""
    return [read for read in events if read[1] is not Reading.USAGE]
