"""An open event stream of a backend: its events as they come, each read into the transcript, each wait bounded.

Progress is counted in tokens: comments, blank lines and empty deltas do not extend the stall deadline.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from isochrone.api.sse import Event, EventTooLong, SseDecoder
from isochrone.upstream.failure import AttemptFailed, Cause, out_of_time, told_in_band
from isochrone.upstream.masking import NOTHING, Mask
from isochrone.upstream.surrogates import Mender, may_hold_halves
from isochrone.upstream.transcript import Reading, Transcript

# After finish_reason only usage and [DONE] can follow; an engine that sends neither must not cost the stall deadline.
_AFTERWORD_SECONDS = 2.0
# How long to wait for the end of a body whose [DONE] has come, so that its connection can be used again.
_LAST_BYTE_SECONDS = 0.05

ReadChunk = Callable[[float], Awaitable[bytes]]
Read = tuple[Event, Reading]


class StreamAnswer:
    """`read_chunk(until)` gives the next bytes, b"" at the end, or raises AttemptFailed (SILENT when late)."""

    def __init__(
        self,
        read_chunk: ReadChunk,
        transcript: Transcript,
        *,
        stall: float,
        ends_at: float,
        close: Callable[[], None],
        mask: Mask = NOTHING,
    ) -> None:
        self.transcript = transcript
        self.first: list[Read] = []
        self._read_chunk = read_chunk
        self._decoder = SseDecoder()
        self._mender = Mender()
        self._stall = stall
        self._ends_at = ends_at
        self._close = close
        self._mask = mask
        self._progress_at = 0.0
        self._listened_at = 0.0
        self._at_end = False
        self._released = False
        self._failure: AttemptFailed | None = None

    async def open(self, first_by: float) -> None:
        """Read up to the first token into `first`. Raises AttemptFailed."""
        while not self.transcript.tokens and not self._failure:
            if self._at_end:
                raise AttemptFailed(Cause.BROKEN, "ended its stream without a token")
            self.first += await self._read(first_by)
        self._ended()  # a failure right behind the first token: nobody has seen that token yet
        self._progress_at = self._listened_at = time.monotonic()

    async def next_events(self, wait: float) -> list[Read] | None:
        """The next events; [] when none came within `wait` seconds; None after the end of a complete answer.

        Raises AttemptFailed when the stream stalls, is cut or turns senseless.
        """
        if self._ended():
            return None
        tokens, now = self.transcript.tokens, time.monotonic()
        # A client that is slow to read is no silence of the backend.
        self._progress_at += now - self._listened_at
        stalled_at = self._progress_at + (_AFTERWORD_SECONDS if self.transcript.complete else self._stall)
        try:
            read = await self._read(min(stalled_at, self._ends_at, now + wait))
        except AttemptFailed as failure:
            return self._after(failure, stalled_at)
        finally:
            self._listened_at = time.monotonic()
        if self.transcript.tokens > tokens:
            self._progress_at = self._listened_at
        return None if not read and self._ended() else read

    def _ended(self) -> bool:
        """True behind the last event of a whole answer, whatever followed it. Raises the failure of any other."""
        if self._failure and not self.transcript.complete:
            raise self._failure
        return self._at_end

    def _after(self, failure: AttemptFailed, stalled_at: float) -> list[Read] | None:
        """What a failed read means: nothing if the answer was whole already, a pause, or a failure."""
        if self.transcript.complete:
            self._at_end = True
            return None
        if failure.cause is not Cause.SILENT:
            raise failure
        if time.monotonic() < min(stalled_at, self._ends_at):
            return []
        if self._ends_at < stalled_at:
            raise out_of_time()
        raise AttemptFailed(Cause.SILENT, "stalled in the middle of its stream")

    async def _read(self, until: float) -> list[Read]:
        """The next whole events, however many chunks they take; [] only at the end."""
        read: list[Read] = []
        while not read and not self._at_end:
            chunk = await self._read_chunk(until)
            read = self._take_in(self._decode(chunk)) if chunk else self._read_end()
        return read

    def _decode(self, chunk: bytes) -> list[Event]:
        try:
            return self._decoder.feed(chunk)
        except EventTooLong as error:
            raise AttemptFailed(Cause.BROKEN, f"sent {error}") from None

    def _read_end(self) -> list[Read]:
        self._at_end = True
        events, cut = self._decoder.close()
        read = self._take_in(events)
        if not self.transcript.complete and self.transcript.tokens:
            self._fail("was cut inside an event" if cut else "ended its stream without a finish_reason")
        return read

    def _take_in(self, events: list[Event]) -> list[Read]:
        """Read events into the transcript; a failure waits until those before it were passed on."""
        read: list[Read] = []
        for event in events:
            try:
                whole = self._mended(self._mask.event(event))
                read.append((whole, self.transcript.read(whole.data)))
            except AttemptFailed as failure:
                failure.body = self._mask.error(failure.body)
                self._failure, self._at_end = told_in_band(failure), True
                break
            if self.transcript.done:
                break
        if self.transcript.done:
            self._at_end = True
            if not self.transcript.complete and self.transcript.tokens:
                self._fail("said [DONE] before its finish_reason")
                return [pair for pair in read if pair[1] is not Reading.DONE]
        return read

    def _mended(self, event: Event) -> Event:
        """An event that has only whole characters."""
        if event.data is None or not may_hold_halves(event.data):
            return event
        data = self._mender.mend(event.data)
        return event if data == event.data else Event(b"data: %b\n\n" % data.replace(b"\n", b" "), data)

    def _fail(self, detail: str) -> None:
        self._failure = self._failure or AttemptFailed(Cause.CUT, detail)

    async def release(self) -> None:
        """Give the connection back, or close it when the stream was not read to its end. May be called again."""
        if self._released:
            return
        self._released = True
        try:
            if self.transcript.done:
                with suppress(AttemptFailed):
                    await self._read_chunk(time.monotonic() + _LAST_BYTE_SECONDS)
        finally:
            self._close()
