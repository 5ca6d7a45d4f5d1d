"""The answers already known: memory first, then the store. A store that is gone is a miss, never an error.

    created                    fresh_until                         expires
    |--------------------------|-----------------------------------|
      given                      given as stale, within the grace    unknown
                                 that the terms of who asks allow

A look-up that finds nothing in memory asks the store; so does one that finds what memory has believed for long enough,
and one that finds it past its time, for another process may have a newer one. For a key only one asks at a time: others
take what memory still has, or wait for what that one finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from msgspec.structs import replace

from isochrone.answers.codec import from_bytes, to_bytes
from isochrone.answers.completion import Answer, is_complete
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.known import Known, Tier
from isochrone.answers.memory_tier import Held, MemoryTier
from isochrone.stores.entries import Entry
from isochrone.stores.protocols import AnswerStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

# Answers that were stored at one moment are not to end at one moment.
JITTER = 0.1
# A store that did not answer is left alone for so long about what memory has anyway.
_STORE_REST_SECONDS = 5.0
# One that kept a request waiting for so long, for nothing, is spared for a while: not every request must wait for it.
_WAITED_SECONDS = 0.5
_SPARED_SECONDS = 2.0


class Read(NamedTuple):
    answer: Answer
    tier: Tier


def _count_nothing(name: str) -> None:
    pass


class Library:
    """Exact answers by fingerprint in two tiers. Times are epoch seconds; `chance` gives numbers from 0 to 1.

    `also` are the kinds of answers that the operator wants kept beside the plain ones. `count` is told of each answer
    that could not be kept: `answers_too_large`, `answers_unpackable`, `answers_fenced_off`.
    """

    def __init__(
        self,
        store: AnswerStore,
        memory: MemoryTier,
        *,
        chance: Callable[[], float],
        also: Collection[str] = (),
        count: Callable[[str], object] = _count_nothing,
    ) -> None:
        self._store = store
        self._memory = memory
        self._chance = chance
        self._also = also
        self._count = count
        self._reading: dict[str, asyncio.Future[Read | None]] = {}
        self._spared_until = 0.0

    async def look_up(self, inquiry: Inquiry, *, now: float, consistent: bool = False) -> Known | None:
        """What is known, perhaps past its time. `consistent` asks the store for what was written a moment ago.

        Never raises: whatever is wrong with the store is a miss.
        """
        mark = inquiry.mark
        if mark is None:
            return None
        held = self._memory.get(mark, now=now)
        if consistent:
            return _known(await self._read(inquiry, mark, held, now, consistent=True), inquiry, now)
        believed = held if held and (now < held.ask_again_at or mark in self._reading) else None
        if known := _known(_read_of(believed), inquiry, now):
            return known
        return _known(await self._read_once(inquiry, mark, held, now), inquiry, now)

    async def keep(
        self, inquiry: Inquiry, answer: Answer, *, fence: int | None = None, entry: Entry | None = None
    ) -> bool:
        """Keep a complete answer in both tiers; True when the store has it.

        `fence` is the number of the lease under which it was generated: what a later holder stored stays. `entry` lets
        similar questions find it.
        """
        mark = inquiry.mark
        if mark is None or not inquiry.may_keep:
            return False
        if not is_complete(answer.body, self._also, choices=inquiry.ask.choices):
            return False
        lasting = replace(answer, fresh_until=answer.created + self._lifetime(inquiry.terms.ttl))
        value = self._packed(lasting)
        if value is None:
            return False
        expires = lasting.fresh_until + inquiry.terms.grace
        held = self._memory.put(mark, value, fresh_until=lasting.fresh_until, expires=expires, now=answer.created)
        if len(value) > self._store.max_bytes:
            self._count("answers_too_large")
            log.info("answer of %d bytes is too large for the store; kept in memory only", len(value))
            return False
        write = self._store.put(
            mark,
            value,
            tenant=inquiry.tenant,
            expires=expires,
            fresh_until=lasting.fresh_until,
            fence=fence,
            entry=entry,
        )
        return await self._written(mark, held, write)

    async def find(self, mark: str, *, now: float) -> Read | None:
        """The answer of this id and where it is, whoever asks. Never raises."""
        if held := self._memory.get(mark, now=now):
            return _read_of(held)
        try:
            value = await self._store.get(mark, now=now, consistent=True)
        except StoreUnavailable as error:
            log.warning("answers store unavailable, answer %s is not to be found there: %s", mark, error)
            return None
        answer = from_bytes(value) if value else None
        return Read(answer, "store") if answer else None

    async def forget(self, mark: str) -> bool:
        """Forget an answer here and in the store; False when the store could not be told. Other processes hold it in
        memory until they ask again."""
        self._memory.discard(mark)
        try:
            await self._store.delete(mark)
        except StoreUnavailable as error:
            log.warning("answers store unavailable, answer %s is not deleted there: %s", mark, error)
            return False
        return True

    def _lifetime(self, ttl: float) -> float:
        return ttl * (1.0 - JITTER + 2.0 * JITTER * self._chance())

    def _packed(self, answer: Answer) -> bytes | None:
        try:
            return to_bytes(answer)
        except ValueError as error:
            self._count("answers_unpackable")
            log.info("answer is not kept: %s", error)
            return None

    async def _written(self, mark: str, held: Held, write: Awaitable[bool]) -> bool:
        try:
            written = await write
        except StoreUnavailable as error:
            log.warning("answers store unavailable, answer kept in memory only: %s", error)
            return False
        if not written:
            self._count("answers_fenced_off")
            self._memory.discard(mark, only=held)
        return written

    async def _read_once(self, inquiry: Inquiry, mark: str, held: Held | None, now: float) -> Read | None:
        """What the store has. When the one who asks it is called off, the next one does."""
        while reading := self._reading.get(mark):
            await asyncio.wait([reading])
            if not reading.cancelled():
                return reading.result()
        reading = self._reading[mark] = asyncio.get_running_loop().create_future()
        try:
            read = await self._read(inquiry, mark, held, now)
            reading.set_result(read)
            return read
        finally:
            reading.cancel()
            del self._reading[mark]

    async def _read(
        self, inquiry: Inquiry, mark: str, held: Held | None, now: float, *, consistent: bool = False
    ) -> Read | None:
        try:
            value = await self._ask_store(mark, now=now, consistent=consistent)
        except StoreUnavailable:
            if held:
                self._memory.postpone(mark, held, seconds=_STORE_REST_SECONDS, now=now)
            return _read_of(held)
        newest = self._memory.get(mark, now=now)
        if newest and newest is not held:  # put here while the store was asked
            return _read_of(newest)
        answer = from_bytes(value) if value else None
        if value is None or answer is None:
            self._memory.discard(mark)
            return None
        expires = answer.fresh_until + inquiry.terms.grace
        self._memory.put(mark, value, fresh_until=answer.fresh_until, expires=expires, now=now)
        return Read(answer, "store")

    async def _ask_store(self, mark: str, *, now: float, consistent: bool) -> bytes | None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        if begun < self._spared_until:
            raise StoreUnavailable("answers store did not answer in time a moment ago")
        try:
            return await self._store.get(mark, now=now, consistent=consistent)
        except StoreUnavailable as error:
            log.warning("answers store unavailable, going on without it: %s", error)
            if clock() - begun >= _WAITED_SECONDS:
                self._spared_until = clock() + _SPARED_SECONDS
            raise


def _read_of(held: Held | None) -> Read | None:
    answer = from_bytes(held.value) if held else None
    return Read(answer, "memory") if answer else None


def _known(read: Read | None, inquiry: Inquiry, now: float) -> Known | None:
    """As the terms of who asks have it: an answer that was stored on longer ones is past its time earlier for him."""
    if read is None or inquiry.mark is None:
        return None
    answer, tier = read
    fresh_until = min(answer.fresh_until, answer.created + inquiry.terms.ttl * (1.0 + JITTER))
    if now >= fresh_until + inquiry.terms.grace:
        return None
    return Known(answer, inquiry.mark, tier, stale_for=max(0.0, now - fresh_until))
