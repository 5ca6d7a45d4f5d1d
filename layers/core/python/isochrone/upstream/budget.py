"""How many further attempts the edges of a region may make together: a share of their requests, or a small floor.

After the retry budgets of Finagle and Envoy: an outage may cost at most `ratio` extra load. The floor is an alternative
to that, not an addition, so that a quiet fleet gets its first failures through and a busy one keeps to the ratio.

    last window                    this window
    |------------------------------|-----------------x
     told and heard for good        told each second  now:  retries of both <= max(ratio x requests of both, floor)

Edges count together in atomic counters of the fleet table, one name per window. Between two tellings each spends only
its own part of what is left, in proportion to its requests, so that not all of them spend the same rest at once.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone")

# Long enough that the streams which one dying pool breaks at once find the credit of many requests before them.
WINDOW_SECONDS = 30.0
# Retries in two windows: 1 to 2 a second over the whole fleet.
FLOOR = 60.0
# An edge that knows of no other request than its own one may ask twice more for it.
_LEAST_PART = 2.0
# Clocks differ; a counter lives on until no edge can mean it any more.
_COUNTED_FOR_SECONDS = 2 * WINDOW_SECONDS + 180.0


class _Tally(NamedTuple):
    requests: float = 0.0
    retries: float = 0.0

    def plus(self, other: _Tally) -> _Tally:
        return _Tally(self.requests + other.requests, self.retries + other.retries)


class _Window:
    """`heard` is what the whole fleet did in it, as the table said last; `untold` what we did since then."""

    __slots__ = ("heard", "is_final", "number", "own_requests", "untold")

    def __init__(self, number: int) -> None:
        self.number = number
        self.heard = _Tally()
        self.untold = _Tally()
        self.own_requests = 0
        self.is_final = False

    def sums(self) -> _Tally:
        return self.heard.plus(self.untold)


class RetryBudget:
    """The budget of one edge. `now` is epoch seconds, since windows are the fleet's; it may step back unharmed.

    A `floor` of 0 is for hedges, which must never cost more than their ratio. `name` tells budgets apart in the table.
    """

    def __init__(self, ratio: float, *, floor: float = FLOOR, name: str = "budget") -> None:
        self._ratio = ratio
        self._floor = floor if ratio else 0.0
        self._name = name
        self._last, self._this = _Window(-1), _Window(0)
        self._is_telling = False
        self._is_alone = False

    def deposit(self, now: float) -> None:
        """A request came in."""
        self._turn_to(now)
        self._this.own_requests += 1
        requests, retries = self._this.untold
        self._this.untold = _Tally(requests + 1, retries)

    def withdraw(self, now: float) -> bool:
        """True when one more attempt may be made; it is then counted."""
        self._turn_to(now)
        if self._left() < 1:
            return False
        self._this.untold = self._this.untold.plus(_Tally(retries=1))
        return True

    def _left(self) -> float:
        """Further attempts that we may make before we hear of the others again."""
        requests, retries = self._last.sums().plus(self._this.sums())
        left = max(self._ratio * requests, self._floor) - retries
        untold = self._last.untold.retries + self._this.untold.retries
        own = (self._last.own_requests + self._this.own_requests) / requests if requests else 1.0
        least = min(_LEAST_PART, self._floor)
        return min(left, max(least, (left + untold) * own) - untold)

    def _turn_to(self, now: float) -> None:
        number = int(now // WINDOW_SECONDS)
        if number <= self._this.number:
            return
        self._last = self._this if number == self._this.number + 1 else _Window(number - 1)
        self._this = _Window(number)

    async def share(self, store: FleetStore, now: float) -> None:
        """Tell the fleet what we did and hear what the others did; at most each second. Never raises StoreUnavailable:
        while the table is gone, what it said last and what we do ourselves is what counts."""
        self._turn_to(now)
        if self._is_telling or not any(self._this.untold + self._last.untold):
            return
        self._is_telling = True
        try:
            last, this = self._last, self._this
            if not last.is_final:
                await self._tell(store, last)
                last.is_final = True
            await self._tell(store, this)
            self._is_alone = False
        except StoreUnavailable as error:
            self._say_alone(error)
        finally:
            self._is_telling = False

    async def _tell(self, store: FleetStore, window: _Window) -> None:
        told = window.untold
        name = f"{self._name}/{window.number}"
        expires = window.number * WINDOW_SECONDS + _COUNTED_FOR_SECONDS
        sums = await store.add(name, told._asdict(), expires=expires)
        window.heard = _Tally(sums["requests"], sums["retries"])
        window.untold = _Tally(window.untold.requests - told.requests, window.untold.retries - told.retries)

    def _say_alone(self, error: StoreUnavailable) -> None:
        if not self._is_alone:
            log.warning("%s: counted by this edge alone until the fleet table answers again: %s", self._name, error)
        self._is_alone = True
