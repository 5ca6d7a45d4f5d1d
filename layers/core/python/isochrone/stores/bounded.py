"""Values in memory until their time is over, bounded in bytes: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# What the bookkeeping around a value weighs, so that many small values are bounded too.
_OVERHEAD_BYTES = 400


class BoundedValues(Generic[T]):
    """Values by name. `capacity` bounds the bytes that `weigh` says they have, with their bookkeeping; times are
    seconds on any one clock."""

    def __init__(self, capacity: int, *, weigh: Callable[[T], int]) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._kept: OrderedDict[str, tuple[T, float]] = OrderedDict()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def get(self, name: str, *, now: float) -> T | None:
        """The value, or None when it is not here or its time is over."""
        found = self._kept.get(name)
        if found is None:
            return None
        if found[1] <= now:
            self.discard(name)
            return None
        self._kept.move_to_end(name)
        return found[0]

    def peek(self, name: str) -> T | None:
        """The value however old it is, and without counting as a use of it."""
        found = self._kept.get(name)
        return found[0] if found else None

    def put(self, name: str, value: T, *, until: float) -> None:
        """Keep it in place of an older one; what does not fit at all is not kept."""
        self.discard(name)
        weight = self._weight(value)
        if weight > self._capacity:
            return
        self._kept[name] = (value, until)
        self.bytes_held += weight
        while self.bytes_held > self._capacity:
            self.discard(next(iter(self._kept)))

    def discard(self, name: str) -> None:
        """Forget it if it is here."""
        if found := self._kept.pop(name, None):
            self.bytes_held -= self._weight(found[0])

    def _weight(self, value: T) -> int:
        return self._weigh(value) + _OVERHEAD_BYTES
