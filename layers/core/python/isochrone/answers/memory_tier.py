"""The first tier: packed answers in this process, bounded in bytes, and in the time they are believed unasked."""

from __future__ import annotations

from typing import NamedTuple

from isochrone.stores.bounded import BoundedValues

# What has changed in the store shows itself here after this long, once an answer is past its time.
_STALE_SECONDS = 1.0


class Held(NamedTuple):
    """A value until `expires` (epoch seconds). From `ask_again_at` on the store should be asked whether it still
    holds; while nobody can be asked, it goes on being used."""

    value: bytes
    expires: float
    ask_again_at: float


class MemoryTier:
    """`max_bytes` bounds the values with their bookkeeping; `ttl` is the seconds for which they are believed."""

    def __init__(self, *, max_bytes: int, ttl: float) -> None:
        self.values: BoundedValues[Held] = BoundedValues(max_bytes, weigh=_weigh)
        self._ttl = ttl

    def get(self, fingerprint: str, *, now: float) -> Held | None:
        """What is held, or None when it is not here or its time is over."""
        return self.values.get(fingerprint, now=now)

    def put(self, fingerprint: str, value: bytes, *, fresh_until: float, expires: float, now: float) -> Held:
        """Hold it in place of an older one; what does not fit at all is given back and not held."""
        believed = min(self._ttl, fresh_until - now if fresh_until > now else _STALE_SECONDS)
        return self._hold(fingerprint, Held(value, expires, now + believed))

    def postpone(self, fingerprint: str, held: Held, *, seconds: float, now: float) -> None:
        """Believe it for so many seconds more: the store could not be asked."""
        self._hold(fingerprint, held._replace(ask_again_at=now + seconds))

    def discard(self, fingerprint: str, *, only: Held | None = None) -> None:
        """Forget it if it is here; if `only` is given, unless another one has taken its place."""
        if only is None or self.values.peek(fingerprint) is only:
            self.values.discard(fingerprint)

    def _hold(self, fingerprint: str, held: Held) -> Held:
        self.values.put(fingerprint, held, until=held.expires)
        return held


def _weigh(held: Held) -> int:
    return len(held.value)
