"""What time it is by a service's clock, told from the `Date` of its replies, after Cristian's algorithm.

    sent                received      (our clock)
    |----------x--------|
               Date, cut to whole seconds (its clock)

Each reply says: its clock is ahead of ours by at least `Date - received` and by at most `Date + 1 - sent`. Replies
narrow that down; one that fits none of the earlier ones says that a clock was set, and begins anew.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf


class ServerClock:
    """How far a service's clock is ahead. Times are epoch seconds of our own clock."""

    def __init__(self) -> None:
        self._least = -inf
        self._most = inf

    @property
    def offset(self) -> float:
        """Seconds; 0 while nothing contradicts that both clocks agree."""
        return 0.0 if self._least <= 0 <= self._most else (self._least + self._most) / 2

    def heard(self, date: str | None, *, sent: float, received: float) -> None:
        """A reply had this header."""
        at = _epoch_seconds(date)
        if at is None or received < sent:
            return
        least, most = at - received, at + 1 - sent
        if max(least, self._least) > min(most, self._most):
            self._least, self._most = least, most
        self._least, self._most = max(least, self._least), min(most, self._most)


def _epoch_seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp() if date else None
    except ValueError:
        return None
