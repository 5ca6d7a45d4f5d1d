"""What a flight has to show, and those who look at it, each in a form, at a speed and within a time of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self

from msgspec import Struct

from isochrone.answers.completion import Answer
from isochrone.answers.flight_text import Cursor, FlightText
from isochrone.api.errors import ApiError, DeadlinePassed, UpstreamFailed, status_of
from isochrone.api.exchange import Reply

# How far a generation may be ahead of the fastest client that reads it.
AHEAD_BYTES = 64 * 1024
# A generation says better than its reader why its time is over.
_VERDICT_SECONDS = 0.25
INSIDE = "Something went wrong inside the edge; its log has the request id."
_WORTH_ANOTHER_TRY = frozenset({408, 429})

Keep = Callable[[int | None], Awaitable[bool]]


class Generation:
    """What a generation and its flight tell each other. `fence` is that of its lease, None without one."""

    def __init__(self, fence: int | None = None) -> None:
        self.fence = fence
        self.answer: Answer | None = None
        self.is_broken = False
        self._keep: Keep | None = None

    def settle(self, answer: Answer, keep: Keep) -> None:
        """The answer is whole. `keep(fence)` puts it where others find it, and says whether they do."""
        self.answer, self._keep = answer, keep

    def broke(self) -> None:
        """Its stream ends with an error event."""
        self.is_broken = True

    async def keep(self) -> bool:
        """Can others find the answer?"""
        return self._keep is not None and await self._keep(self.fence)


def _say_nothing(answer: Answer) -> None:
    pass


def _tell_nobody() -> None:
    pass


class Asker(Struct, frozen=True, eq=False, kw_only=True):
    """One request that wants the answer `mark`, in its own form and until `ends_at` (on the event loop's clock).

    `generate` asks a backend; its stream tells the usage, whether `include_usage` or not. `recall` looks into the
    store, past what this process remembers. `replay` makes this asker's reply of a finished answer, all in its body.
    `landed` hears of a whole answer that it did not have to generate. One that does not `wait` only sees to it that
    somebody generates.
    """

    mark: str
    stream: bool
    include_usage: bool
    ends_at: float
    priority: int
    generate: Callable[[Generation], Awaitable[Reply]]
    recall: Callable[[], Awaitable[Answer | None]]
    replay: Callable[[Answer], Reply]
    landed: Callable[[Answer], None] = _say_nothing
    waits: bool = True


class Head(NamedTuple):
    """How a reply begins; `body` is None for a stream."""

    status: int
    headers: dict[str, str]
    body: bytes | None = None


class MovesOn(Exception):
    """There is nothing here for that asker; another generation may have something."""


class Broadcast:
    """`on_deserted` hears when the last asker has left. With `is_last` there is nothing to move on to."""

    def __init__(self, *, is_last: bool, on_deserted: Callable[[], None]) -> None:
        self.text = FlightText()
        self.own: Asker | None = None
        self.head: Head | None = None
        self.answer: Answer | None = None
        self.failure: BaseException | None = None
        self.is_over = False
        self.is_heard_elsewhere = False
        self.present: set[Asker] = set()
        self._given: list[Asker] = []
        self._is_last = is_last
        self._is_shared = is_last
        self._on_deserted = on_deserted
        self._loop = asyncio.get_running_loop()
        self._readers: set[_Reader] = set()
        self._furthest = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._room: asyncio.Future[None] | None = None

    # -- what is shown: the source's side

    def begin(self, head: Head) -> None:
        """What every reply begins with; a later one changes nothing any more."""
        self.head = self.head or head
        self.wake()

    def say(self, piece: bytes) -> None:
        """Some whole events of the stream."""
        if piece:
            self.text.say(piece)
            self.wake()

    @property
    def is_ahead(self) -> bool:
        """Is it too far ahead of those who read? Who waits for the whole is not kept waiting."""
        return self.text.size - self._furthest > AHEAD_BYTES and self._is_read_only()

    def _is_read_only(self) -> bool:
        return bool(self.present) and not self.is_heard_elsewhere and all(asker.stream for asker in self.present)

    def told(self) -> None:
        """The stream has come to its end, whatever else is still awaited."""
        self.text.is_complete = True
        self.wake()

    async def room(self) -> None:
        """Wait until it is not too far ahead any more."""
        while self.is_ahead:
            self._room = self._loop.create_future()
            await self._room

    def land(
        self,
        answer: Answer | None = None,
        failure: BaseException | None = None,
        *,
        is_told: bool = False,
        share: bool = False,
    ) -> None:
        """Nothing more comes. A text that has not been told to an end of its own (`is_told`) ends with the failure.

        A failure that nobody else should meet is shared with all; others make them move on.
        """
        self.answer, self.is_over = answer, True
        self._is_shared = self._is_shared or share or (failure is not None and is_final(failure))
        if not self.text.size:
            self.failure = failure
        elif not (is_told or self.text.is_complete):
            self.say(in_band(failure or UpstreamFailed("The rest of the answer got lost.", code="stream_incomplete")))
        for asker in (*self.present, *self._given):
            self._tell(asker)
        self.told()
        self._on_deserted = _tell_nobody  # or flight and broadcast would hold each other, and all that was said

    def _tell(self, asker: Asker) -> None:
        if self.answer and asker is not self.own:
            asker.landed(self.answer)

    def wake(self) -> None:
        """There is something new."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    @property
    def is_awaited(self) -> bool:
        """Does anybody here want to hear it?"""
        return any(asker.waits for asker in self.present)

    # -- those who look: the askers' side

    async def serve(self, asker: Asker) -> Reply:
        """The asker's reply, once there is something for it. Raises ApiError and MovesOn.

        Who was shown nothing when half of its time is over moves on, if there is something to move on to.
        """
        now = self._loop.time()
        patience = asker.ends_at if self._is_last else (now + asker.ends_at) / 2
        self.present.add(asker)
        self._tell(asker)
        self._make_room()
        reply = None
        try:
            while (reply := self._reply_to(asker)) is None:
                await self._change(asker, patience)
        finally:
            if reply is None or reply.stream is None:
                self.leave(asker)
        if reply.stream is None and not self.is_over:
            self._given.append(asker)
        return reply

    async def _change(self, asker: Asker, patience: float) -> None:
        until = self._ends_at(asker) if self.head or asker is self.own else patience
        if self._loop.time() < until:
            alarm = self._loop.call_at(until, self.wake)
            try:
                await self.change()
            finally:
                alarm.cancel()
        elif until < asker.ends_at:
            raise MovesOn
        else:
            raise DeadlinePassed("The answer, asked for by others too, did not come within the time.")

    def _ends_at(self, asker: Asker) -> float:
        return asker.ends_at + _VERDICT_SECONDS if asker is self.own else asker.ends_at

    def _reply_to(self, asker: Asker) -> Reply | None:
        head, is_own = self.head, asker is self.own
        if head and asker.stream == (head.body is None):
            headers = {**head.headers} if is_own else {**head.headers, "x-isochrone-cache": "coalesced"}
            return Reply(status=head.status, headers=headers, body=head.body or b"", stream=self._reader(asker))
        if self.answer:
            return asker.replay(self.answer)
        if self.failure and (self._is_shared or is_own):
            raise self.failure.with_traceback(None)
        if self.is_over:
            raise MovesOn
        return None

    def _reader(self, asker: Asker) -> _Reader | None:
        if not asker.stream:
            return None
        reader = _Reader(self, asker, until=self._ends_at(asker))
        self._readers.add(reader)
        return reader

    def change(self) -> asyncio.Future[None]:
        """Done when there is something new."""
        future = self._loop.create_future()
        self._waiting.append(future)
        return future

    def has_read(self, offset: int) -> None:
        """A reader is there."""
        if offset > self._furthest:
            self._furthest = offset
            self._make_room()

    def heard_elsewhere(self, is_heard: bool) -> None:
        """Another process wants all of it."""
        self.is_heard_elsewhere = is_heard
        self._make_room()

    def _make_room(self) -> None:
        if self._room and not self._room.done():
            self._room.set_result(None)

    def leave(self, asker: Asker, reader: _Reader | None = None) -> None:
        """The asker has all, or has gone."""
        if reader:
            self._readers.discard(reader)
            self._furthest = max((other.offset for other in self._readers), default=0)
        if asker in self.present:
            if reader and self.text.is_complete and not self.is_over:
                self._given.append(asker)
            self.present.discard(asker)
            self._make_room()
            if not self.present:
                self._on_deserted()


class _Reader:
    """The stream of one reply."""

    def __init__(self, broadcast: Broadcast, asker: Asker, *, until: float) -> None:
        self._broadcast = broadcast
        self._text = broadcast.text
        self._asker = asker
        self._cursor = Cursor(broadcast.text, usage=asker.include_usage)
        self._is_late = False
        self._is_closed = False
        self._alarm = asyncio.get_running_loop().call_at(until, self._expire)

    @property
    def offset(self) -> int:
        """How many bytes it has read."""
        return self._cursor.offset

    @property
    def _is_out_of_time(self) -> bool:
        """Of a whole answer it may have the rest."""
        return self._is_late and not self._text.is_complete

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._is_closed:
            raise StopAsyncIteration
        while self._is_out_of_time or not (piece := self._cursor.next()):
            if self._is_out_of_time:
                await self.aclose()
                return in_band(DeadlinePassed("The request's time is over."))
            if self._text.is_complete:
                await self.aclose()
                raise StopAsyncIteration
            await self._broadcast.change()
        self._broadcast.has_read(self._cursor.offset)
        return piece

    async def aclose(self) -> None:
        """The client left, or has all."""
        self._is_closed = True
        self._alarm.cancel()
        self._broadcast.leave(self._asker, self)

    def _expire(self) -> None:
        self._is_late = True
        self._broadcast.wake()


def is_final(failure: BaseException) -> bool:
    """Would nobody get another answer? So it is where the request itself is refused."""
    if not isinstance(failure, ApiError):
        return False
    status = status_of(failure)
    return 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY


def in_band(failure: BaseException) -> bytes:
    """The last event of a stream that does not come to its end."""
    error = failure if isinstance(failure, ApiError) else ApiError(INSIDE)
    return b"data: " + error.body() + b"\n\n"
