"""How likely an answer is asked for in each of the next hours, from the hours in which it was asked for before.

Three kinds, tried in this order; the first that fits is the forecast:

* periodic: most of the hours with an ask are hours of the day, or of the week, that come back. The chance of an ask in
  such an hour is in how many it was asked for, of those there were; in any other hour it is 0.
* rising: the last hours had significantly more asks than the day before. Their rate, halved every 6 hours.
* popular: all the others. Their rate, in which a day ago counts half.

A rate r gives the chance 1 - exp(-r) of an ask in an hour (Poisson). All pure; hours are counted from the epoch (UTC).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil, exp, sqrt
from typing import Literal, NamedTuple

HOUR = 3600
# Nothing is foreseen beyond a week.
HORIZON = 168
_DAY, _WEEK = 24, 168
# An hour comes back when it did so often at least, and in so many of the cases.
_TIMES_REGULAR = 3
_SHARE_REGULAR = 0.5
# What is asked for in more than half of the hours is popular, whatever the clock says.
_MOST_REGULAR = 0.5
_RECENT, _BEFORE = 3, 24
_FEWEST_RISING = 4
_SIGMAS_RISING = 3.0
_RISING_HALVES_IN = 6.0
_POPULAR_HALVES_IN = 24.0
# Two asks within a minute are no rate of 120 an hour.
_SHORTEST_HISTORY = 6

Series = Mapping[int, float]
"""Asks by hour; an hour that is not there had none."""


class Forecast(NamedTuple):
    """`hourly` is the chance of an ask in the hours from `first` on; `why` is short text for an operator."""

    kind: Literal["popular", "periodic", "rising"]
    first: int
    hourly: tuple[float, ...]
    why: str

    def chance(self, begin: float, end: float) -> float:
        """That it is asked for at least once between two moments (epoch seconds)."""
        none = 1.0
        for hour in range(max(self.first, int(begin // HOUR)), min(self.first + HORIZON, ceil(end / HOUR))):
            overlap = min(end, (hour + 1) * HOUR) - max(begin, hour * HOUR)
            none *= (1 - self.hourly[hour - self.first]) ** max(0.0, overlap / HOUR)
        return 1 - none


def forecast(series: Series, now: float) -> Forecast:
    """The forecast at `now` (epoch seconds); `series` has an ask at the least."""
    this = int(now // HOUR)
    return _periodic(series, this) or _rising(series, this) or _popular(series, this)


def _periodic(series: Series, this: int) -> Forecast | None:
    active = [hour for hour, asks in series.items() if asks and hour < this]
    for period, name in ((_DAY, "day"), (_WEEK, "week")):
        regular = _regular_hours(active, this, period)
        covered = sum(hour % period in regular for hour in active)
        if regular and len(regular) <= period * _MOST_REGULAR and covered >= len(active) * _SHARE_REGULAR:
            hourly = tuple(regular.get((this + ahead) % period, 0.0) for ahead in range(HORIZON))
            return Forecast("periodic", this, hourly, f"asked for at the same {_hours(regular, period)} of each {name}")
    return None


def _regular_hours(active: list[int], this: int, period: int) -> dict[int, float]:
    """The hours of the period that come back, and the share of periods in which they did, one that did not assumed."""
    times = Counter(hour % period for hour in active)
    first = min(active, default=this)
    shares = {}
    for slot, count in times.items():
        occasions = len(range(first + (slot - first) % period, this, period))
        share = count / (occasions + 1)
        if count >= _TIMES_REGULAR and share >= _SHARE_REGULAR:
            shares[slot] = share
    return shares


def _hours(regular: Mapping[int, float], period: int) -> str:
    if len(regular) > 1:
        return f"{len(regular)} hours"
    (slot,) = regular
    return f"hour ({slot % _DAY:02} h UTC)"


def _rising(series: Series, this: int) -> Forecast | None:
    recent = sum(series.get(hour, 0.0) for hour in range(this - _RECENT + 1, this + 1))
    before = sum(series.get(hour, 0.0) for hour in range(this - _RECENT - _BEFORE + 1, this - _RECENT + 1))
    expected = before * _RECENT / _BEFORE
    if recent < _FEWEST_RISING or recent - expected < _SIGMAS_RISING * sqrt(max(expected, 1.0)):
        return None
    usual = before / _BEFORE
    extra = recent / _RECENT - usual
    rates = (usual + extra * 0.5 ** (ahead / _RISING_HALVES_IN) for ahead in range(HORIZON))
    hourly = tuple(1 - exp(-rate) for rate in rates)
    return Forecast("rising", this, hourly, f"{recent:g} asks in {_RECENT} h after {expected:.2g} expected")


def _popular(series: Series, this: int) -> Forecast:
    rate = _rate(series, this)
    return Forecast("popular", this, (1 - exp(-rate),) * HORIZON, f"{rate * _DAY:.2g} asks a day")


def _rate(series: Series, this: int) -> float:
    """Asks an hour, in which what is a day older counts half."""
    hours = max(_SHORTEST_HISTORY, this - min(series, default=this) + 1)
    fade: float = 0.5 ** (1 / _POPULAR_HALVES_IN)
    weights = (1 - fade**hours) / (1 - fade)
    return sum(asks * fade ** (this - hour) for hour, asks in series.items()) / weights
