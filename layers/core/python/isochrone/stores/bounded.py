"""Values in memory until their time is over, bounded in bytes: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict

# What the bookkeeping around a value weighs, so that many small values are bounded too.
_OVERHEAD_BYTES = 400


class BoundedValues:
    """Bytes by name. `capacity` bounds the values with their bookkeeping; times are seconds on any one clock."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def get(self, name: str, *, now: float) -> bytes | None:
        """The value, or None when it is not here or its time is over."""
        found = self._kept.get(name)
        if found is None:
            return None
        if found[1] <= now:
            self.discard(name)
            return None
        self._kept.move_to_end(name)
        return found[0]

    def put(self, name: str, value: bytes, *, until: float) -> None:
        """Keep it in place of an older one; what does not fit at all is not kept."""
        self.discard(name)
        if _weight(value) > self._capacity:
            return
        self._kept[name] = (value, until)
        self.bytes_held += _weight(value)
        while self.bytes_held > self._capacity:
            self.discard(next(iter(self._kept)))

    def discard(self, name: str) -> None:
        """Forget it if it is here."""
        if found := self._kept.pop(name, None):
            self.bytes_held -= _weight(found[0])


def _weight(value: bytes) -> int:
    return len(value) + _OVERHEAD_BYTES
