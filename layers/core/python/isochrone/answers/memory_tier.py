"""The first tier: packed answers in this process, bounded in bytes and in age."""

from __future__ import annotations

from isochrone.stores.bounded import BoundedValues


class MemoryTier:
    """`max_bytes` bounds the values with their bookkeeping; `ttl` is seconds since they were put here."""

    def __init__(self, *, max_bytes: int, ttl: float) -> None:
        self.values = BoundedValues(max_bytes)
        self._ttl = ttl

    def get(self, fingerprint: str, *, now: float) -> bytes | None:
        """The value, or None when it is not here or its time is over."""
        return self.values.get(fingerprint, now=now)

    def put(self, fingerprint: str, value: bytes, *, expires: float, now: float) -> None:
        """Keep it for `ttl`, or until `expires` if that is sooner; what does not fit at all is not kept."""
        self.values.put(fingerprint, value, until=min(expires, now + self._ttl))
