"""The first tier: packed answers in this process, least recently used out first, bounded in bytes and in age."""

from __future__ import annotations

from collections import OrderedDict

# What the bookkeeping around a value weighs, so that many small answers are bounded too.
_OVERHEAD_BYTES = 400


class MemoryTier:
    """`max_bytes` bounds the values with their bookkeeping; `ttl` is seconds since they were put here."""

    def __init__(self, *, max_bytes: int, ttl: float) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, fingerprint: str, *, now: float) -> bytes | None:
        """The value, or None when it is not here or its time is over."""
        found = self._kept.get(fingerprint)
        if found is None:
            return None
        if found[1] <= now:
            self.discard(fingerprint)
            return None
        self._kept.move_to_end(fingerprint)
        return found[0]

    def put(self, fingerprint: str, value: bytes, *, expires: float, now: float) -> None:
        """Keep it for `ttl`, or until `expires` if that is sooner; what does not fit at all is not kept."""
        self.discard(fingerprint)
        if _weight(value) > self._max_bytes:
            return
        self._kept[fingerprint] = (value, min(expires, now + self._ttl))
        self.bytes_held += _weight(value)
        while self.bytes_held > self._max_bytes:
            _, (evicted, _) = self._kept.popitem(last=False)
            self.bytes_held -= _weight(evicted)

    def discard(self, fingerprint: str) -> None:
        """Forget it if it is here."""
        if found := self._kept.pop(fingerprint, None):
            self.bytes_held -= _weight(found[0])


def _weight(value: bytes) -> int:
    return len(value) + _OVERHEAD_BYTES
