"""How urgent a request is: three classes, what each may take of a backend, and how often each has its turn."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """The classes of `x-isochrone-priority`: 1-3, 4-8 and 9-10."""

    LOW = 0
    STANDARD = 1
    HIGH = 2

    @classmethod
    def of(cls, priority: int) -> Priority:
        """The class of a number from 1 (can wait) to 10 (cannot)."""
        if priority > 8:
            return _HIGH
        return _STANDARD if priority > 3 else _LOW

    @property
    def weight(self) -> int:
        """Turns for each turn of LOW, while all of them wait."""
        return _WEIGHTS[self]

    def limit(self, slots: int) -> int:
        """How many of a backend's slots may be in use after a request of this class took one; at least one.

        What it leaves is for more urgent requests that nobody knew of. The usual class leaves nothing at a small
        backend, where one slot would be much.
        """
        if self is _HIGH:
            return slots
        return max(1, slots * 4 // 5) if self is _LOW else slots - slots // 20


_LOW, _STANDARD, _HIGH = Priority  # quicker to find than in their class
_WEIGHTS = {_LOW: 1, _STANDARD: 3, _HIGH: 8}
