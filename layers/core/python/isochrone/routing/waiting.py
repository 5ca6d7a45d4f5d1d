"""Where requests wait when every place they may have is taken, and the task that gives each line its turns.

Requests for the same offers stand in one line, whose order is in `line`. It is the one whose turn it is who asks for a
place, and while that one finds none nobody else in its line would.

Lines may seek the same places (two models at one backend), so they have turns, too, by start-time fair queueing: each
has the weight of the highest class in it, times the tenants in it. Who waits in several lines counts in each of them
for a part, so that a tenant gains nothing by asking in many ways. A line that found no place for long is owed no more
than its next turn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

from isochrone.routing.crowd import Crowd
from isochrone.routing.line import Line, Turn
from isochrone.routing.presence import Presence
from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares

# Other edges free places, too, and nobody tells us.
POLL_SECONDS = 0.25
CAPACITY = 1000
_UNKNOWN_WAIT_SECONDS = 5
_LONGEST_HINT_SECONDS = 60
# Of a line that everybody has left: it has no turn before it is gone.
_LEAST_SHARE = 1e-3


class Returnable(Protocol):
    """What was waited for, for when nobody is there any more to take it."""

    def give_back(self) -> None:
        """Somebody else may have it."""


P = TypeVar("P", bound=Returnable)


Take = Callable[[Priority], Awaitable[P | None]]


class _Waiter(Generic[P]):
    """One who waits until `until`; `came` holds what it got, or None."""

    __slots__ = ("came", "line", "priority", "take", "tenant", "until")

    def __init__(self, line: _Pumped[P], take: Take[P], priority: Priority, tenant: str, until: float) -> None:
        self.line = line
        self.take = take
        self.priority = priority
        self.tenant = tenant
        self.until = until
        self.came: asyncio.Future[P | None] = asyncio.get_running_loop().create_future()

    def end(self, result: P | None) -> None:
        """It has got this."""
        if not self.came.done():
            self.came.set_result(result)

    def fail(self, error: Exception) -> None:
        """Its `take` raised this."""
        if not self.came.done():
            self.came.set_exception(error)


class _Pumped(Line[_Waiter[P]]):
    """A line and the task that serves it. `served` is when it had its last turn, on the clock that turns move on;
    `share` is the weight of the tenants in it, of each only a part where it waits in other lines, too."""

    def __init__(self, key: Hashable, shares: Shares, *, served: float) -> None:
        super().__init__(shares)
        self.share = 0.0
        self.key = key
        self.served = served
        self.freed = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None

    @property
    def due(self) -> float:
        """When its next turn is."""
        return self.served + 1 / (self.highest.weight * max(self.share, _LEAST_SHARE))


class WaitingRoom(Generic[P]):
    """All lines of an edge. `clock` is that of the event loop, in seconds. Bounded: when `capacity` wait, one of the
    lowest class and the tenant that has most of it is sent away, be it the newcomer."""

    def __init__(self, clock: Callable[[], float], shares: Shares | None = None, *, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._shares = shares or Shares()
        self._capacity = capacity
        self._lines: dict[Hashable, _Pumped[P]] = {}
        self._turns = 0.0
        self._poll: asyncio.TimerHandle | None = None
        self._present: Crowd[_Waiter[P]] = Crowd(self._shares)
        self._presence: Presence[_Pumped[P]] = Presence(self._shares)

    def __len__(self) -> int:
        return len(self._present)

    async def wait(
        self, key: Hashable, take: Take[P], *, priority: Priority, until: float, tenant: str = ""
    ) -> P | None:
        """What `take` gave when it was our turn; None when `until` passed, or the room is too full.

        `take` is asked with the class whose right counts then. All with the same `key` must seek the same places.
        """
        line = self._lines.get(key)
        if line is None:
            line = _Pumped(key, self._shares, served=self._turns)
        waiter = _Waiter(line, take, priority, tenant, until)
        if not self._let_in(waiter):
            return None
        try:
            async with asyncio.timeout(until - self._clock()):
                return await waiter.came
        except TimeoutError:
            self._return(waiter)
            return None
        except BaseException:
            self._return(waiter)
            raise
        finally:
            self._let_out(waiter)

    def places_freed(self) -> None:
        """Somebody gave a place back: whoever is next may ask for it."""
        for line in sorted(self._lines.values(), key=lambda line: line.due):
            line.freed.set()

    def ahead_of(self, key: Hashable, priority: Priority, tenant: str = "") -> int:
        """How many will be served before one who comes now."""
        line = self._lines.get(key)
        return line.ahead_of(priority, tenant) if line else 0

    async def close(self) -> None:
        """Send everybody away."""
        if self._poll:
            self._poll.cancel()
        pumps = [line.pump for line in self._lines.values() if line.pump]
        for waiter in self._present:
            waiter.end(None)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def _let_in(self, waiter: _Waiter[P]) -> bool:
        if len(self) >= self._capacity:
            leaving = self._present.who_gives_way(waiter.priority, waiter.tenant)
            if leaving is None:
                return False
            leaving.end(None)
            self._let_out(leaving)
        line = waiter.line
        self._stand(waiter)
        line.freed.set()
        if line.pump is None:
            if not self._lines:
                self._ask_again_later()
            self._lines[line.key] = line
            line.pump = asyncio.get_running_loop().create_task(self._serve(line), name="waiting room")
        return True

    def _stand(self, waiter: _Waiter[P]) -> None:
        self._present.add(waiter, waiter.priority, waiter.tenant)
        self._presence.enter(waiter.tenant, waiter.line)
        waiter.line.join(waiter, waiter.priority, waiter.tenant)

    def _let_out(self, waiter: _Waiter[P]) -> None:
        if self._present.remove(waiter, waiter.priority, waiter.tenant):
            self._presence.leave(waiter.tenant, waiter.line)
        waiter.line.leave(waiter, waiter.priority)

    def _return(self, waiter: _Waiter[P]) -> None:
        """It got a place in the very moment in which it ceased to wait for it."""
        came = waiter.came
        if came.done() and not came.cancelled() and not came.exception() and (got := came.result()):
            got.give_back()

    def _ask_again_later(self) -> None:
        if self._poll:
            self._poll.cancel()
        self._poll = asyncio.get_running_loop().call_later(POLL_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        if self._lines:
            self.places_freed()
            self._ask_again_later()

    async def _serve(self, line: _Pumped[P]) -> None:
        try:
            while True:
                line.freed.clear()
                while (turn := line.next()) and await self._had_its_turn(line, turn):
                    await self._let_others_ask(line)
                if not turn:
                    return
                await line.freed.wait()
        finally:
            del self._lines[line.key]

    async def _had_its_turn(self, line: _Pumped[P], turn: Turn[_Waiter[P]]) -> bool:
        """False when there is no place, so that everybody has to wait on."""
        waiter = turn.who
        if waiter.came.done() or waiter.until <= self._clock():
            waiter.end(None)
            self._let_out(waiter)
            return True
        try:
            got = await waiter.take(self._right(line, turn))
        except Exception as error:
            waiter.fail(error)
            return True
        if got and waiter.came.done():
            got.give_back()
        elif got:
            self._turns = line.served = max(self._turns, line.due)
            line.serve(waiter, waiter.priority)
            waiter.end(got)
        return got is not None

    def _right(self, line: _Pumped[P], turn: Turn[_Waiter[P]]) -> Priority:
        """A turn before a line with a higher class has that one's right, as inside a line."""
        higher = (other for other in self._lines.values() if other.highest > turn.priority)
        return Priority.HIGH if any(line.due <= other.due for other in higher if other is not line) else turn.right

    async def _let_others_ask(self, line: _Pumped[P]) -> None:
        """There may be more places, and it may be the turn of another line."""
        if any(other.due < line.due for other in self._lines.values()):
            self.places_freed()
            await asyncio.sleep(0)


def retry_after(ahead: int, freed_per_second: float | None) -> int:
    """Whole seconds until a place may be free, for one who comes after so many others; unknown rate: a usual wait."""
    if not freed_per_second:
        return _UNKNOWN_WAIT_SECONDS
    return max(1, min(_LONGEST_HINT_SECONDS, math.ceil((ahead + 1) / freed_per_second)))
