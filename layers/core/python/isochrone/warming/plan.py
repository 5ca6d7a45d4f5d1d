"""Which known answers to generate anew before they expire, and when.

    now                 a quiet hour            expires                          expires anew
    |-------------------|-----------------------|--------------------------------|
                        at                      <-- an ask here would have waited -->

Who asks while an answer is known gets it; the first who asks after that waits for a new one. So a generation in advance
spares one generation and one wait at the most, and only if somebody asks in the span that it adds. It saves

    chance of an ask in that span x (dollars of a generation + seconds of a generation x what a second is worth)

and costs the dollars of a generation. A line is planned where it saves more than it costs, and an ask is more likely
than not. It is made as late as there is a quiet hour before the answer expires, because the span begins at that expiry
and ends one `ttl` after the generation; where there is none, in the last run before it. A span of less than half of
that is not worth a generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from statistics import median
from typing import NamedTuple

from isochrone.warming.forecast import HOUR, Forecast

_DAY = 86_400
_LEAST_CHANCE = 0.5
# The part of its `ttl` that a generation must add: made anew in each run, an answer would cost all of them.
_LEAST_ADDED = 0.5


class Held(NamedTuple):
    """A known answer that can be generated again: it took `seconds` and `cost` dollars, and lives for `ttl` seconds
    from its generation, now until `fresh_until` (epoch seconds)."""

    tenant: str
    mark: str
    model: str
    seconds: float
    cost: float
    ttl: float
    fresh_until: float
    forecast: Forecast
    question: str = ""


class Means(NamedTuple):
    """`dollars` a day, of which `spent` are spent today; `requests` in each run, a run every `interval` seconds;
    `second_worth` is what a second of waiting is worth, in dollars."""

    dollars: float
    spent: float
    requests: int
    interval: float
    second_worth: float


class Line(NamedTuple):
    """One answer to be generated in the run at `at` (epoch seconds). `saves` is expected, in dollars, seconds included;
    `seconds` is the expected waiting that is spared."""

    at: float
    tenant: str
    mark: str
    model: str
    kind: str
    chance: float
    saves: float
    seconds: float
    cost: float
    why: str
    question: str = ""

    @property
    def gain(self) -> float:
        """Dollars that it is expected to bring above what it costs."""
        return self.saves - self.cost


class Alone(NamedTuple):
    """One answer that is left to expire, and why; `chance` is that of an ask in the `ttl` after that."""

    tenant: str
    mark: str
    model: str
    chance: float
    why: str
    question: str = ""


class Plan(NamedTuple):
    """Lines in the order of their time. `left` counts the answers that are not in it, by the reason; `alone` are those
    of them that could be asked for again, the most worthwhile first."""

    lines: tuple[Line, ...]
    left: dict[str, int]
    alone: tuple[Alone, ...] = ()

    def due(self, now: float) -> list[Line]:
        """What the run at `now` has to do, the most gainful first."""
        return sorted((line for line in self.lines if line.at <= now), key=lambda line: -line.gain)


def plan(held: Iterable[Held], load: Sequence[float], means: Means, *, now: float) -> Plan:
    """`load` is how much is asked for in each hour of the day (24, UTC)."""
    quiet = quiet_hours(load)
    alone: list[Alone] = []
    lines: list[Line] = []
    room = _Room(means, now)
    for one in sorted(held, key=lambda one: (-_worth(one, means, one.fresh_until), one.mark)):
        line, why = _place(one, quiet, means, room, now)
        if line:
            room.take(line)
            lines.append(line)
        else:
            alone.append(Alone(one.tenant, one.mark, one.model, _chance(one, one.fresh_until), why, one.question))
    return Plan(tuple(sorted(lines)), dict(Counter(one.why for one in alone)), tuple(alone))


def quiet_hours(load: Sequence[float]) -> frozenset[int]:
    """The hours of the day with no more load than the middle one of them."""
    bound = median(load)
    return frozenset(hour for hour, asked in enumerate(load) if asked <= bound)


class _Room:
    """What is left of the means, by run and by day."""

    def __init__(self, means: Means, now: float) -> None:
        self._means = means
        self._today = int(now // _DAY)
        self._runs: Counter[float] = Counter()
        self._dollars: dict[int, float] = {self._today: means.dollars - means.spent}

    def has_run(self, at: float) -> bool:
        return self._runs[at] < self._means.requests

    def has_dollars(self, at: float, cost: float) -> bool:
        return cost <= self._dollars.get(int(at // _DAY), self._means.dollars)

    def take(self, line: Line) -> None:
        day = int(line.at // _DAY)
        self._runs[line.at] += 1
        self._dollars[day] = self._dollars.get(day, self._means.dollars) - line.cost


def _worth(one: Held, means: Means, at: float) -> float:
    """Dollars for each dollar that a generation at `at` costs."""
    saves = _chance(one, at) * _spared(one, means)
    return saves / one.cost if one.cost else (inf if saves else 0.0)


def _chance(one: Held, at: float) -> float:
    return one.forecast.chance(max(one.fresh_until, at), at + one.ttl)


def _spared(one: Held, means: Means) -> float:
    return one.cost + one.seconds * means.second_worth


def _place(one: Held, quiet: frozenset[int], means: Means, room: _Room, now: float) -> tuple[Line | None, str]:
    """The line of this answer in the best run that has room, or None and why there is none."""
    why = "fresh enough for now"
    for runs in _runs(one, quiet, means, now):
        for at in runs:
            chance = _chance(one, at)
            if chance < _LEAST_CHANCE:
                why = "unlikely"
                break  # earlier ones add a shorter span
            saves = chance * _spared(one, means)
            why = _obstacle(one, at, saves, room)
            if not why:
                return _line(one, at, chance, saves, quiet), ""
    return None, why


def _runs(one: Held, quiet: frozenset[int], means: Means, now: float) -> tuple[list[float], list[float]]:
    """The runs that add enough to its life, from the last before it expires on: those in quiet hours, and the last.

    The last is a whole interval before it expires: one run may fail.
    """
    count = max(1, int((one.fresh_until - now) // means.interval))
    times = (now + number * means.interval for number in reversed(range(count)))
    runs = [at for at in times if min(one.ttl, at + one.ttl - one.fresh_until) >= one.ttl * _LEAST_ADDED]
    return [at for at in runs if _hour(at) in quiet], runs[:1]


def _hour(at: float) -> int:
    return int(at // HOUR) % 24


def _obstacle(one: Held, at: float, saves: float, room: _Room) -> str:
    if saves <= one.cost:
        return "not worth it"
    if not room.has_dollars(at, one.cost):
        return "over budget"
    return "" if room.has_run(at) else "no room"


def _line(one: Held, at: float, chance: float, saves: float, quiet: frozenset[int]) -> Line:
    when = f"{_hour(at):02} h is quiet" if _hour(at) in quiet else "no quiet hour before it expires"
    why = f"{one.forecast.why}; {chance:.0%} that it is asked for once it has expired; {when}"
    seconds = chance * one.seconds
    return Line(
        at, one.tenant, one.mark, one.model, one.forecast.kind, chance, saves, seconds, one.cost, why, one.question
    )
