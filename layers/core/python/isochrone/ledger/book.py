"""The ledger: one entry per attempt, written in the background through a bounded buffer.

A store that is slow or gone does not slow a request down: entries wait in the buffer and are tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from isochrone.ledger.entry import Entry
from isochrone.stores.protocols import LedgerStore, StoreUnavailable

log = logging.getLogger("isochrone.ledger")

MAX_BUFFERED = 10_000
# Requests get their turn after so many entries: a busy second's worth at once would hold them up for tens of ms.
AT_ONCE = 8


class Book:
    """Entries on their way to the store."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._buffer: deque[Entry] = deque()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def write(self, entry: Entry) -> None:
        """Take an entry; when the buffer is full, the oldest goes and is counted in `lost`."""
        self._buffer.append(entry)
        self._trim()

    def _trim(self) -> None:
        while len(self._buffer) > MAX_BUFFERED:
            self._buffer.popleft()
            self.lost += 1

    async def flush(self) -> None:
        """Hand everything to the store; what it does not take comes back here for the next flush."""
        for _ in range(0, len(self._buffer), AT_ONCE):
            if not await self._hand_over(self._take(AT_ONCE)):
                return
            await asyncio.sleep(0)

    def _take(self, count: int) -> list[Entry]:
        return [self._buffer.popleft() for _ in range(min(count, len(self._buffer)))]

    async def _hand_over(self, batch: list[Entry]) -> bool:
        try:
            await self._store.append([structs.asdict(entry) for entry in batch])
        except StoreUnavailable as error:
            self._put_back(batch)
            log.warning("ledger store unavailable, %d entries wait: %s", len(self._buffer), error)
            return False
        except Exception as fault:
            return await self._hand_over_without_culprit(batch, fault)
        except BaseException:
            self._put_back(batch)
            raise
        return True

    async def _hand_over_without_culprit(self, batch: list[Entry], fault: Exception) -> bool:
        """An entry that the store finds fault with must not hold up the others: they go one by one, it is lost."""
        if len(batch) == 1:
            self.lost += 1
            log.error(
                "ledger entry of request %s, attempt %d, cannot be stored and is lost: %s",
                batch[0].request_id,
                batch[0].attempt,
                fault,
            )
            return True
        self._put_back(batch)
        for _ in batch:
            if not await self._hand_over(self._take(1)):
                return False
        return True

    def _put_back(self, batch: Sequence[Entry]) -> None:
        self._buffer.extendleft(reversed(batch))
        self._trim()

    async def recent(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        """The tenant's newest entries, newest first. Raises StoreUnavailable."""
        await self.flush()
        return await self._store.recent(tenant, limit=limit)
