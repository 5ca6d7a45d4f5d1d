"""The keys of the directory table, as a running edge knows them.

    known, read within 4 s       believed
    ... within 8 s               believed, and read anew in the background
    ... longer ago               read anew first; while that fails, believed for as long as `max_age` says
    never seen                   read; refused while the table does not answer, for nobody can tell
    read and not there           refused for 5 s without another look

So a key that was taken back is refused everywhere within ten seconds, with the one that replication takes; and without
the table whoever is known goes on. What is kept is bounded, and so is how often strangers may have the table asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import NamedTuple

from isochrone.admission.key_record import (
    PARTITION,
    Record,
    RecordError,
    all_revoked,
    record_of,
    records_in,
    revoked,
)
from isochrone.admission.principal import Principal
from isochrone.api.errors import KeysUnavailable, LimitReached
from isochrone.background import Background
from isochrone.stores.protocols import DirectoryStore, StoreUnavailable

log = logging.getLogger("isochrone.admission")

RENEW_SECONDS = 4.0
STALE_SECONDS = 8.0
REFUSED_SECONDS = 5.0
MOST_KEPT = 10_000
# How long a request waits: for news of a known key, and for a first word about a new one.
_PATIENCE = 0.5
_STRANGER_PATIENCE = 1.9
# The store gives up on a call by itself before that; this bounds the two that a read may need.
_READ_SECONDS = 1.8
# After a failed read the table is left alone for this long, for each key by itself.
_SPARED_SECONDS = 1.0
_LISTING_SECONDS = 30.0


class _Known(NamedTuple):
    """What a read that began at `read_at` found: nobody, when the key is not there or was taken back."""

    principal: Principal | None
    read_at: float
    failed_at: float = float("-inf")


class Bucket:
    """So many a second, and `burst` at once. Times are seconds on any one clock, which may be set back."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """One, if there is one."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One that was not needed."""
        self._left = min(self._burst, self._left + 1)


class KeyDirectory:
    """Times are epoch seconds. `max_age`: for how long a key is believed that cannot be read again; `strangers` bounds
    the reads for keys that turn out to be none. `failures` counts the reads that came to nothing."""

    def __init__(
        self, store: DirectoryStore, background: Background, *, max_age: float, strangers: Bucket | None = None
    ) -> None:
        self.failures = 0
        self._store = store
        self._background = background
        self._max_age = max_age
        self._strangers = strangers or Bucket(100.0, 200.0)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._reading: dict[str, asyncio.Task[_Known | None]] = {}
        self._is_failing = False
        self._listed: tuple[list[Record], float] | None = None

    async def find(self, digest: str, now: float) -> Principal | None:
        """Whose key has this digest (hex); None when nobody's, also when it was taken back.

        Raises KeysUnavailable when that cannot be told, and LimitReached when too many strangers ask.
        """
        known = self._known.get(digest)
        if known is None:
            return await self._meet(digest, now)
        self._known.move_to_end(digest)
        age = abs(now - known.read_at)
        if age < RENEW_SECONDS:
            return known.principal
        return await self._find_again(digest, known, age, now)

    async def _find_again(self, digest: str, known: _Known, age: float, now: float) -> Principal | None:
        since_failure = abs(now - known.failed_at)
        reading = self._read_once(digest, now) if since_failure >= _SPARED_SECONDS else None
        if age < STALE_SECONDS:
            return known.principal
        # Whoever waited in vain a moment ago need not wait again: it costs time and brings no news.
        found = await _within(_PATIENCE, reading) if reading and since_failure >= STALE_SECONDS else None
        if found is None and age > self._max_age:
            raise _untold()
        return (found or known).principal

    async def _meet(self, digest: str, now: float) -> Principal | None:
        if abs(now - self._refused.get(digest, float("-inf"))) < REFUSED_SECONDS:
            return None
        if digest not in self._reading and not self._strangers.take(now):
            raise LimitReached("Too many requests with keys that are not known; try again.", retry_after=1.0)
        found = await _within(_STRANGER_PATIENCE, self._read_once(digest, now))
        if found is None:
            raise _untold()
        if found.principal:
            self._strangers.give_back()
        return found.principal

    def _read_once(self, digest: str, now: float) -> asyncio.Task[_Known | None]:
        """The read of this key that is under way, or a new one."""
        if digest not in self._reading:
            self._reading[digest] = self._background.start(self._read(digest, now))
        return self._reading[digest]

    async def _read(self, digest: str, now: float) -> _Known | None:
        """What there is now, from then on what is known; None when it cannot be told."""
        try:
            async with asyncio.timeout(_READ_SECONDS):
                record = await self._record(digest)
        except (StoreUnavailable, RecordError, TimeoutError) as error:
            self._go_on(digest, now, str(error) or f"no answer within {_READ_SECONDS:g} s")
            return None
        finally:
            del self._reading[digest]
        self._is_failing = False
        found = _Known(record.principal if record and record.revoked is None else None, now)
        self._keep(digest, found)
        return found

    async def _record(self, digest: str) -> Record | None:
        items = await self._store.items(PARTITION, prefix=digest)
        if revoked(digest) in items:  # whatever else stands there, or cannot be read
            return None
        record = record_of(digest, items)
        if record is None or not record.replaces:
            return record
        return record_of(digest, items | await self._store.items(PARTITION, prefix=all_revoked(record.key.id)))

    def _keep(self, digest: str, found: _Known) -> None:
        self._known.pop(digest, None)
        self._refused.pop(digest, None)
        if found.principal:
            self._known[digest] = found
        else:
            self._refused[digest] = found.read_at
        for kept in (self._known, self._refused):
            if len(kept) > MOST_KEPT:
                kept.popitem(last=False)

    def _go_on(self, digest: str, now: float, why: str) -> None:
        if not self._is_failing:
            log.warning("keys: going on with those that are known, since the directory cannot be read: %s", why)
        self._is_failing = True
        self.failures += 1
        if known := self._known.get(digest):
            self._known[digest] = known._replace(failed_at=now)

    async def records(self, now: float) -> list[Record]:
        """Every key that can be read, at most half a minute old: for work that nobody waits for.

        Raises StoreUnavailable.
        """
        if self._listed is None or abs(now - self._listed[1]) >= _LISTING_SECONDS:
            found = records_in(await self._store.items(PARTITION))
            self._listed = [record for record in found if isinstance(record, Record)], now
        return self._listed[0]


async def _within(seconds: float, reading: asyncio.Task[_Known | None]) -> _Known | None:
    """What it finds in that time. It goes on without whoever waits."""
    await asyncio.wait({reading}, timeout=seconds)
    return reading.result() if reading.done() else None


def _untold() -> KeysUnavailable:
    return KeysUnavailable(
        "Nobody can tell at the moment whether this key is good: the table of keys does not answer. Try again.",
        retry_after=1.0,
    )
