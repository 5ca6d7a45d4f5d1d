"""How likely an answer is asked for in each of the next hours, from the hours in which it was asked for before.

Three kinds, tried in this order; the first that fits is the forecast:

* periodic: most of the hours with an ask are hours of the day, or of the week, that come back. The chance of an ask in
  such an hour is in how many it was asked for, of those there were; in any other hour it is 0.
* rising: the last hours had significantly more asks than the day before. Their rate, halved every 3 hours.
* popular: all the others. Their rate, in which a day ago counts half, if they are still asked for at all.

Rates are per hour of an average load: by night there are fewer asks for anything, which says nothing of one answer. A
rate r gives the chance 1 - exp(-r) of an ask in such an hour (Poisson). Hours are counted from the epoch (UTC).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
_RISING_HALVES_IN = 3.0
_FADE: float = 0.5 ** (1 / 24)
# In hours: longer ago than this is as good as forgotten.
_MEMORY = 168
# Two asks within a minute are no rate of 120 an hour: it is as if there had been so many hours without any.
_SILENCE_BEFORE = 12.0
# What people ask about is forgotten after a week, as a rule.
_FORGOTTEN_IN = 168.0
# No hour is so quiet that an ask in it would be a wonder.
_LEAST_LOAD = 0.1

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


class Day(tuple[float, ...]):
    """How much is asked for in each hour of the day, whatever it is, where 1 is the average."""

    __slots__ = ()

    @classmethod
    def of(cls, load: Sequence[float]) -> Day:
        """`load` has the asks of each hour (24, UTC); where there were none, all hours are alike."""
        mean = sum(load) / len(load)
        return cls(_LEAST_LOAD + (1 - _LEAST_LOAD) * asks / mean if mean else 1.0 for asks in load)

    def hours(self, hours: Iterable[int]) -> float:
        """How many average hours these are worth."""
        return sum(self[hour % _DAY] for hour in hours)


EVEN = Day.of([1.0] * _DAY)


def forecast(series: Series, now: float, day: Day = EVEN) -> Forecast:
    """The forecast at `now` (epoch seconds); `series` has an ask at the least."""
    this = int(now // HOUR)
    return _periodic(series, this) or _rising(series, this, day) or _popular(series, this, day)


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


def _rising(series: Series, this: int, day: Day) -> Forecast | None:
    late = range(this - _RECENT + 1, this + 1)
    early = range(late.start - _BEFORE, late.start)
    recent, before = (sum(series.get(hour, 0.0) for hour in hours) for hours in (late, early))
    expected = before * day.hours(late) / day.hours(early)
    if recent < _FEWEST_RISING or recent - expected < _SIGMAS_RISING * sqrt(max(expected, 1.0)):
        return None
    usual = before / day.hours(early)
    extra = recent / day.hours(late) - usual
    rates = (usual + extra * 0.5 ** (ahead / _RISING_HALVES_IN) for ahead in range(HORIZON))
    return Forecast(
        "rising", this, _chances(rates, this, day), f"{recent:g} asks in {_RECENT} h after {expected:.2g} expected"
    )


def _popular(series: Series, this: int, day: Day) -> Forecast:
    rate = _rate(series, this, day) * _still_asked(series, this, day)
    return Forecast("popular", this, _chances([rate] * HORIZON, this, day), f"{rate * _DAY:.2g} asks a day")


def _chances(rates: Iterable[float], this: int, day: Day) -> tuple[float, ...]:
    return tuple(1 - exp(-rate * day[(this + ahead) % _DAY]) for ahead, rate in enumerate(rates))


def _rate(series: Series, this: int, day: Day) -> float:
    """Asks an average hour, what is a day older counting half. The first ask is why we look: it is no repeat."""
    first = max(min(series, default=this), this - _MEMORY)
    asks = sum(count * _FADE ** (this - hour) for hour, count in series.items() if hour >= first)
    repeats = asks - _FADE ** (this - first)
    hours = sum(day[hour % _DAY] * _FADE ** (this - hour) for hour in range(first, this + 1))
    return max(0.0, repeats) / (hours + _SILENCE_BEFORE)


def _still_asked(series: Series, this: int, day: Day) -> float:
    """The chance that nobody has lost interest, after a silence since the last ask.

    Schmittlein, Morrison and Colombo (1987), for a known rate while there was interest, and a known rate at which it is
    lost.
    """
    asked = [hour for hour, count in series.items() if count]
    first, last = min(asked, default=this), max(asked, default=this)
    rate = (sum(series.values()) - 1) / (1 + day.hours(range(first, last)))
    lost = 1 / _FORGOTTEN_IN
    both = max(0.0, rate) + lost
    silence = day.hours(range(last + 1, this + 1))
    return 1 / (1 + lost / both * (exp(min(both * silence, 100.0)) - 1))
