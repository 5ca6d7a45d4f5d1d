"""Hearing, from time to time, of what others have laid down in a table: revocations, policies.

    due? ──▶ one reading at a time ──▶ a request waits for it for a moment ──▶ what is known by then is obeyed
                     └──────────────── goes on without it, so that a slow table is heard, too

What is old by either of two clocks is old: the wall's may be set back, and the monotonic one stands still while a
process is frozen. Its age counts from when a reading began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple

from isochrone.background import Background
from isochrone.stores.protocols import StoreUnavailable

Clock = Callable[[], float]

# With the second that replication usually takes, what was laid down is obeyed everywhere within ten.
FRESH_SECONDS = 8.0
# A request waits so long for news, and a reading takes no longer than this.
PATIENCE_SECONDS = 0.25
READ_SECONDS = 2.0
# A table that did not answer is spared for a while: then one request waits for it now and then, not all of them.
SPARED_SECONDS = 10.0


class Moment(NamedTuple):
    """One moment by both clocks, in seconds."""

    wall: float
    monotonic: float


class Listening:
    """`hear` reads, and may raise StoreUnavailable; `give_up` is told why nothing was heard. Readings are done in the
    `background`. `waits_at_first`: until something was heard, requests wait for it as long as it takes."""

    def __init__(
        self,
        hear: Callable[[], Awaitable[None]],
        give_up: Callable[[str], None],
        *,
        background: Background,
        clock: Clock,
        monotonic: Clock,
        waits_at_first: bool = False,
    ) -> None:
        self._hear = hear
        self._give_up = give_up
        self._background = background
        self._clock = clock
        self._monotonic = monotonic
        self._waits_at_first = waits_at_first
        self._began_at: Moment | None = None
        self._failed_at: Moment | None = None
        self._reading: asyncio.Task[None] | None = None
        self.heard_at: Moment | None = None

    async def refresh(self, *, max_age: float = FRESH_SECONDS) -> None:
        """Read, unless that was done within `max_age` seconds. With 0 a table that failed a moment ago is asked, too:
        for a chore, which nobody waits for. Never raises."""
        if not self._is_due(max_age):
            return
        reading = self._read_once()
        patience = READ_SECONDS if self._is_waited_for or not max_age else PATIENCE_SECONDS
        if (left := patience - self._age(self._began_at)) > 0:
            await asyncio.wait({reading}, timeout=left)

    @property
    def _is_waited_for(self) -> bool:
        return self._waits_at_first and self.heard_at is None

    def _is_due(self, max_age: float) -> bool:
        if self._age(self.heard_at) < max_age:
            return False
        spared = READ_SECONDS if self._is_waited_for else SPARED_SECONDS
        return self._is_reading or self._age(self._failed_at) >= (spared if max_age else 0.0)

    @property
    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _read_once(self) -> asyncio.Task[None]:
        """The reading that is under way, or a new one."""
        if self._reading is None or self._reading.done():
            self._began_at = self._now()
            self._reading = self._background.start(self._try_to_read(self._began_at))
        return self._reading

    async def _try_to_read(self, began_at: Moment) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._hear()
        except (StoreUnavailable, TimeoutError) as error:
            self._failed_at = self._now()
            self._give_up(str(error) or f"no answer within {READ_SECONDS:g} s")
            return
        self.heard_at, self._failed_at = began_at, None

    def _age(self, moment: Moment | None) -> float:
        now = self._now()
        return inf if moment is None else max(now.wall - moment.wall, now.monotonic - moment.monotonic)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._monotonic())
