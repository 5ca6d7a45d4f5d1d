"""How many further attempts the edge may make: a share of its requests, and a small floor for quiet times.

After Finagle's RetryBudget: each request pays `ratio` of an attempt into the budget, each further attempt takes a
whole one out, so an outage costs at most `ratio` extra load. The floor lets the first failures of a quiet edge through.
"""

from __future__ import annotations

FLOOR_PER_SECOND = 10.0
_WINDOW_SECONDS = 10.0


class RetryBudget:
    """Times are seconds on any one clock."""

    def __init__(self, ratio: float, *, now: float) -> None:
        self._ratio = ratio
        self._cap = FLOOR_PER_SECOND * _WINDOW_SECONDS
        self._balance = self._cap if ratio else 0.0
        self._updated = now

    def deposit(self, now: float) -> None:
        """A request came in."""
        floor = FLOOR_PER_SECOND * max(0.0, now - self._updated) if self._ratio else 0.0
        self._updated = now
        self._balance = min(self._cap, self._balance + self._ratio + floor)

    def withdraw(self) -> bool:
        """True when one more attempt may be made; it is then paid for."""
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
