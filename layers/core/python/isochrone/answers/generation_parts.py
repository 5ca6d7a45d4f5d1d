"""What one process says of an answer and others hear, by way of the fleet table (see `isochrone.answers.generations`).

A `Telling` writes parts from the moment that somebody wants them; a `Following` reads them, and notices when they stop.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

from isochrone.answers.flight_text import Cursor
from isochrone.answers.generations import Ended, Generations, Held, Lease

# With the third that base64 adds it stays below the limit of an item.
PART_BYTES = 256 * 1024


# Who has not said for so many times that it still waits has left.
_TIMES_MISSED = 3


class Telling:
    """What the holder of `lease` says. `cursor` reads the text; `headers` gives those of the reply, None before it."""

    def __init__(
        self,
        generations: Generations,
        lease: Lease,
        cursor: Cursor,
        headers: Callable[[], dict[str, str] | None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self.is_wanted = False
        self._parts = 0
        self._generations = generations
        self._lease = lease
        self._cursor = cursor
        self._headers = headers
        self._clock = clock
        self._times_wanted = 0
        self._wanted_at = 0.0
        self._unsaid: list[dict[str, Any]] = []

    @property
    def interval(self) -> float:
        """Seconds until `go_on` is due again."""
        pace = self._generations.pace
        return pace.part if self.is_wanted else pace.look

    @property
    def parts(self) -> int:
        """How many parts tell all that was said; 0 when they do not."""
        return self._parts if self._cursor.is_at_end and not self._unsaid else 0

    async def go_on(self, *, is_deserted: bool = False) -> None:
        """Look whether anybody wants it, and say what is new; where nothing is, that the holder lives."""
        if is_deserted or not self.is_wanted:
            await self._look()
        if not self.is_wanted:
            return
        self._unsaid += self._news()
        # A part whose writing came to nothing is written again as it was: it may be there all the same.
        while self._unsaid and await self._generations.publish(self._lease, self._parts, self._unsaid[0]):
            del self._unsaid[0]
            self._parts += 1

    async def _look(self) -> None:
        times, now = await self._generations.wanted(self._lease), self._clock()
        if times != self._times_wanted:
            self._times_wanted, self._wanted_at = times, now
        self.is_wanted = times > 0 and now - self._wanted_at < _TIMES_MISSED * self._generations.pace.want

    def _news(self) -> list[dict[str, Any]]:
        pieces = []
        while piece := self._cursor.next():
            pieces.append(piece)
        said, headers = b"".join(pieces), self._headers()
        cuts = range(0, max(1, len(said)), PART_BYTES)
        return [_part(said[at : at + PART_BYTES], headers, more=at + PART_BYTES < len(said)) for at in cuts]


def _part(said: bytes, headers: dict[str, str] | None, *, more: bool) -> dict[str, Any]:
    return {"said": b64encode(said).decode(), "headers": headers, "more": more}


class Part(NamedTuple):
    """What was said since the part before it, in whole events; `headers` of the reply, None before it has begun."""

    said: bytes
    headers: dict[str, str] | None


class Following:
    """What is heard of a generation that another process holds; `clock` gives seconds on any one clock."""

    def __init__(self, generations: Generations, held: Held, *, clock: Callable[[], float]) -> None:
        self._generations = generations
        self._held = held
        self._clock = clock
        self._heard = 0
        self._heard_at = self._wanted_at = clock()
        self._said = b""
        self._is_stream = False
        self._end: Ended | None = None

    @property
    def interval(self) -> float:
        """Seconds until there may be something new."""
        return self._generations.pace.poll

    @property
    def is_silent(self) -> bool:
        """Nothing was heard for so long that there is nobody."""
        return self._clock() - self._heard_at >= self._generations.pace.silence

    @property
    def is_heard_out(self) -> bool:
        """All of a stream was heard, to its end. Of a body the parts say only that its holder lives."""
        end = self._end
        return self._is_stream and end is not None and self._is_own(end) and 0 < end.parts == self._heard

    async def begin(self) -> None:
        """Ask to be told."""
        await self._generations.want(self._held)

    async def hear(self) -> Part | Ended | Held | None:
        """The next part; behind the last one, how it ended; who holds the lease, if it was taken over.

        None: nothing new for now.
        """
        while part := await self._generations.part(self._held, self._heard):
            if (whole := self._take_in(part)) is not None:
                return whole
        if self._clock() - self._wanted_at >= self._generations.pace.want:
            self._wanted_at = self._clock()
            await self._generations.want(self._held)
        seen = self._end or await self._generations.watch(self._held)
        if isinstance(seen, Ended):
            self._end = seen
            return None if self._is_own(seen) and self._heard < seen.parts and not self.is_silent else seen
        return seen if seen and seen.fence != self._held.fence else None

    def _is_own(self, end: Ended) -> bool:
        return end.fence == self._held.fence

    def _take_in(self, part: dict[str, Any]) -> Part | None:
        """An event may take several parts."""
        self._heard += 1
        self._heard_at = self._clock()
        self._said += b64decode(part["said"])
        self._is_stream = self._is_stream or part["headers"] is not None
        if part["more"]:
            return None
        said, self._said = self._said, b""
        return Part(said, part["headers"])
