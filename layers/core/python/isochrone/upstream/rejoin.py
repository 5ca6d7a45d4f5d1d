"""A stream that tells an answer anew, joined to bytes of the same answer that came from another process."""

from __future__ import annotations

from collections.abc import Collection

from isochrone.api.errors import UpstreamFailed
from isochrone.api.sse import SseDecoder
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.splice import Splice
from isochrone.upstream.transcript import Reading, Transcript


class Rejoin:
    """`told` are whole events that the client has. Raises UpstreamFailed where nothing can be joined to them."""

    def __init__(self, told: bytes) -> None:
        transcript = Transcript(capture=True)
        try:
            for event in SseDecoder().feed(told):
                transcript.read(event.data)
        except AttemptFailed:
            raise _cannot("its beginning cannot be read") from None
        if not transcript.spliceable:
            raise _cannot("it is more than a text")
        self._missing = _missing_behind(transcript)
        self._splice = Splice(transcript.texts())
        self._anew = Transcript(capture=False)
        self._decoder = SseDecoder()

    def __call__(self, data: bytes) -> bytes:
        """What is new in some more bytes of the stream. Raises UpstreamFailed when it says something else."""
        try:
            read = [(event, self._anew.read(event.data)) for event in self._decoder.feed(data)]
            if self._missing is not None:
                return b"".join(event.raw for event, reading in read if reading in self._missing)
            return b"".join(event.raw for event, _ in self._splice.join(read))
        except AttemptFailed as failure:
            raise _cannot(failure.detail) from None


def _missing_behind(told: Transcript) -> Collection[Reading] | None:
    """What is still to come of an answer whose last word was told; None where that was not."""
    if not told.complete:
        return None
    is_there = {Reading.USAGE: bool(told.usage), Reading.DONE: told.done}
    return [reading for reading, was_told in is_there.items() if not (was_told or told.done)]


def _cannot(why: str) -> UpstreamFailed:
    return UpstreamFailed(
        f"The answer is not complete, and no other could be joined to it: {why}.", code="stream_incomplete"
    )
