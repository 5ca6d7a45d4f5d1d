"""The answers already known: memory first, then the store. A store that is gone is a miss, never an error."""

from __future__ import annotations

import logging

from isochrone.answers.completion import Answer, from_bytes, is_complete, to_bytes
from isochrone.answers.memory_tier import MemoryTier
from isochrone.stores.protocols import AnswerStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")


class Library:
    """Exact answers by fingerprint in two tiers. Times are epoch seconds, `ttl` seconds."""

    def __init__(self, store: AnswerStore, memory: MemoryTier, *, ttl: float) -> None:
        self._store = store
        self._memory = memory
        self._ttl = ttl

    async def look_up(self, fingerprint: str, *, now: float) -> Answer | None:
        """The known answer, or None. Never raises: whatever is wrong with the store is a miss."""
        if value := self._memory.get(fingerprint, now=now):
            return from_bytes(value)
        try:
            value = await self._store.get(fingerprint, now=now)
        except StoreUnavailable as error:
            log.warning("answers store unavailable, going on without it: %s", error)
            return None
        answer = from_bytes(value) if value else None
        if value and answer:
            self._memory.put(fingerprint, value, expires=answer.created + self._ttl, now=now)
        return answer

    async def keep(self, fingerprint: str, answer: Answer, *, tenant: str) -> bool:
        """Store a complete answer in both tiers; True when the store has it. Incomplete or too large ones are not."""
        if not is_complete(answer.body):
            return False
        value = to_bytes(answer)
        expires = answer.created + self._ttl
        self._memory.put(fingerprint, value, expires=expires, now=answer.created)
        if len(value) > self._store.max_bytes:
            log.info("answer of %d bytes is too large for the store; kept in memory only", len(value))
            return False
        try:
            await self._store.put(fingerprint, value, tenant=tenant, expires=expires)
        except StoreUnavailable as error:
            log.warning("answers store unavailable, answer kept in memory only: %s", error)
            return False
        return True
