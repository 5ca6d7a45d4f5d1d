"""The spans of time that limits count in: minutes that slide, days and months of the calendar (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

_MINUTE = 60.0
_DAY = 86_400.0


class Window(NamedTuple):
    """One span from `start` to `end` (epoch seconds); the one after it has the next `number`."""

    number: int
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


class Period(Enum):
    """How long the windows of a limit are."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"

    @property
    def slides(self) -> bool:
        """Does the window before still count, by what is left of it? Only a day or a month begins anew at its start."""
        return self is Period.MINUTE

    def window(self, now: float) -> Window:
        """The one that `now` is in."""
        if self is Period.MONTH:
            today = datetime.fromtimestamp(now, UTC)
            return _month(12 * today.year + today.month - 1)
        return _even(int(now // self._seconds), self._seconds)

    def before(self, window: Window) -> Window:
        """The one that ends where `window` starts."""
        if self is Period.MONTH:
            return _month(window.number - 1)
        return _even(window.number - 1, self._seconds)

    @property
    def _seconds(self) -> float:
        return _MINUTE if self is Period.MINUTE else _DAY


def _even(number: int, seconds: float) -> Window:
    return Window(number, number * seconds, (number + 1) * seconds)


def _month(number: int) -> Window:
    start, end = (datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC).timestamp() for n in (number, number + 1))
    return Window(number, start, end)
