"""Entries on their way to a store, in the background and through a durable buffer.

A store that is slow or gone does not slow a request down: entries wait and are tried again. Those that have no room in
memory, and those of a process that dies, wait in the spool.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from isochrone.durable.journal import B, E, Waiting
from isochrone.durable.spool import NoSpool
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone.durable")

MAX_BUFFERED = 10_000
# Requests get their turn after so many entries: a busy second's worth at once would hold them up for tens of ms.
AT_ONCE = 8
# A Lambda pays for what it does after a reply; what is on disk can wait for the next one.
CATCH_UP_SECONDS = 1.0


class Outbox(Generic[B, E]):
    """`deliver` hands entries to the store, some at once: StoreUnavailable says that all of them are to wait, any other
    error that one of them can never be stored. `what` names an entry in messages, `name` one of them."""

    def __init__(
        self,
        deliver: Callable[[Sequence[E]], Awaitable[None]],
        spool: NoSpool[B, E],
        *,
        what: str,
        name: Callable[[E], str],
        at_once: int = AT_ONCE,
    ) -> None:
        self._deliver = deliver
        self._spool = spool
        self._what = what
        self._name = name
        self._at_once = at_once
        self._buffer: deque[Waiting[E]] = deque()
        self._lost = 0

    def __len__(self) -> int:
        """How many entries of this process wait."""
        return len(self._buffer) + self._spool.spilled

    @property
    def lost(self) -> int:
        """How many entries no store will ever have."""
        return self._lost + self._spool.lost

    @property
    def unwritten(self) -> int:
        """How many notes the disk did not take; what they would have said dies with this process."""
        return self._spool.failures

    def begun(self, what: B) -> None:
        """Note that something begins: should this process not live to write its entry, the next one does."""
        self._spool.begun(what)

    def write(self, entry: E) -> None:
        """Take an entry; it is counted in `lost` when neither memory nor disk has room for it."""
        is_full = len(self._buffer) >= MAX_BUFFERED
        if is_full:
            self._spool.spill()
        segment = self._spool.ended(entry)
        if segment and segment.spilled:
            return
        if is_full:
            self._lost += 1
        else:
            self._buffer.append(Waiting(entry, segment))

    async def flush(self) -> None:
        """Hand everything to the store; what it does not take comes back here for the next flush."""
        clock = asyncio.get_running_loop().time
        until = clock() + CATCH_UP_SECONDS
        while await self._hand_over_buffer() and clock() < until and self._take_back():
            pass
        self._spool.tidy()

    def _take_back(self) -> bool:
        """Some entries that are only on disk; False when there are none."""
        taken = self._spool.take_back()
        self._buffer.extend(taken)
        return bool(taken)

    async def _hand_over_buffer(self) -> bool:
        for _ in range(0, len(self._buffer), self._at_once):
            if not await self._hand_over(self._take(self._at_once)):
                return False
            await asyncio.sleep(0)
        return True

    def _take(self, count: int) -> list[Waiting[E]]:
        return [self._buffer.popleft() for _ in range(min(count, len(self._buffer)))]

    async def _hand_over(self, batch: list[Waiting[E]]) -> bool:
        try:
            await self._deliver([waiting.entry for waiting in batch])
        except StoreUnavailable as error:
            self._put_back(batch)
            log.warning("%s store unavailable, %d entries wait: %s", self._what, len(self), error)
            return False
        except Exception as fault:
            return await self._hand_over_without_culprit(batch, fault)
        except BaseException:
            self._put_back(batch)
            raise
        for waiting in batch:
            waiting.settle()
        return True

    async def _hand_over_without_culprit(self, batch: list[Waiting[E]], fault: Exception) -> bool:
        """An entry that the store finds fault with must not hold up the others: they go one by one, it is lost."""
        if len(batch) == 1:
            self._lost += 1
            what, name = self._what, self._name(batch[0].entry)
            log.error("%s entry of %s cannot be stored and is lost: %s", what, name, fault)
            batch[0].settle()
            return True
        self._put_back(batch)
        for _ in batch:
            if not await self._hand_over(self._take(1)):
                return False
        return True

    def _put_back(self, batch: Sequence[Waiting[E]]) -> None:
        self._buffer.extendleft(reversed(batch))

    async def adopt(self) -> None:
        """Take over what dead processes have left; the next flush hands it to the store."""
        self._spool.adopt()

    async def close(self) -> None:
        """The last flush. What the store does not take waits on disk for the next process, where there is a spool."""
        await self.flush()
        self._spool.close()
        if self._buffer:
            log.warning("%d %s entries wait for the next start, or are lost without a spool", len(self), self._what)
