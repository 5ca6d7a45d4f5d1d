"""How many requests a backend takes in a day (UTC), over all edges: what a free tier or a contract says.

    counter daily/<backend>/<day> in the fleet table of the backend's home:  requests, never above the cap

Each attempt is counted before it is made. Of a large cap a process takes some at once, so that not every attempt is a
write; what it does not use of them is lost for that day, and the cap is never exceeded. A backend that has had its
requests is not planned with until the day ends. While the table is gone, each process goes on with a share of the cap,
and says so when the table is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import ceil, inf

from isochrone.api.errors import Saturated
from isochrone.routing.fleet import BackendState
from isochrone.routing.places import Home
from isochrone.settings import Backend
from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone")

DAY = 86_400
# A larger cap is taken in so many pieces.
_PIECES = 1_000
PATIENCE = 0.3
# An emulator shares its machine with all else.
EMULATOR_PATIENCE = 10.0
_ROUND_TRIPS = 4
# A table that did not answer is left alone for so long.
_ALONE_SECONDS = 5.0
_COUNTER = "requests"


class _Count:
    """One backend's day, as this process knows it: what it has `at_hand`, and what it let through `alone`, of which the
    table was `told` so much."""

    def __init__(self, day: int) -> None:
        self.day = day
        self.at_hand = 0
        self.alone = 0
        self.told = 0

    def take_alone(self, most: int) -> bool:
        """One of so many that nobody is asked for."""
        if self.alone >= most:
            return False
        self.alone += 1
        return True


class DailyCaps:
    """The caps of one edge. `wall` tells epoch seconds, `clock` is the one that plans are made by. `home_of` says where
    a backend is counted; no request waits longer than `patience` seconds for that, and `local_share` is what a process
    may use of a cap while it cannot ask there."""

    def __init__(
        self,
        home_of: Callable[[Backend], Home],
        *,
        local_share: float,
        wall: Callable[[], float],
        clock: Callable[[], float],
        patience: float = PATIENCE,
    ) -> None:
        self._home_of = home_of
        self._patience = patience
        self._local_share = local_share
        self._wall, self._clock = wall, clock
        self._homes: dict[str, Home] = {}
        self._counts: dict[str, _Count] = {}
        self._ask_again_at = -inf

    async def take(self, backend: BackendState) -> bool:
        """May one more request be sent to it today? Counts it, if so."""
        cap = backend.facts.requests_per_day
        if cap is None:
            return True
        home = self._home(backend.facts)
        now = self._wall() + (home.store.offset if home.store else 0.0)
        count = self._count(backend.facts.name, int(now // DAY))
        if count.at_hand:
            count.at_hand -= 1
            return True
        if await self._take_more(backend.facts.name, cap, home, count):
            return True
        is_alone = self._clock() < self._ask_again_at
        backend.spent_until = self._ask_again_at if is_alone else self._clock() + DAY - now % DAY
        share = "its share of the" if is_alone else "its"
        log.warning("backend %s has had %s %d requests of the day", backend.facts.name, share, cap)
        return False

    def _home(self, facts: Backend) -> Home:
        return self._homes.get(facts.name) or self._homes.setdefault(facts.name, self._home_of(facts))

    def _count(self, name: str, day: int) -> _Count:
        count = self._counts.get(name)
        if count is None or count.day != day:
            count = self._counts[name] = _Count(day)
        return count

    async def _take_more(self, name: str, cap: int, home: Home, count: _Count) -> bool:
        if home.store is None:
            return count.take_alone(cap)
        if self._clock() < self._ask_again_at:
            return count.take_alone(ceil(cap * self._local_share))
        try:
            async with asyncio.timeout(self._patience + _ROUND_TRIPS * home.rtt_ms / 1000):
                return await self._take_there(name, cap, home, count)
        except (StoreUnavailable, TimeoutError) as error:
            self._ask_again_at = self._clock() + _ALONE_SECONDS
            log.warning("requests of the day to %s are counted by this process alone: %s", name, error or "no answer")
            return count.take_alone(ceil(cap * self._local_share))

    async def _take_there(self, name: str, cap: int, home: Home, count: _Count) -> bool:
        assert home.store is not None
        counter, expires = f"daily/{name}/{count.day}", (count.day + 2) * DAY
        await self._tell(home.store, counter, expires, count)
        amount = max(1, cap // _PIECES)
        while amount > 0:
            taken = await home.store.take(
                counter, {_COUNTER: float(amount)}, most={_COUNTER: float(cap)}, expires=float(expires)
            )
            if taken.done:
                count.at_hand += amount - 1
                return True
            amount = min(amount - 1, cap - int(taken.sums.get(_COUNTER, cap)))
        return False

    async def _tell(self, store: FleetStore, counter: str, expires: int, count: _Count) -> None:
        """What was let through alone; all who ask at this moment tell it once."""
        owed = count.alone - count.told
        if not owed:
            return
        count.told += owed
        try:
            await store.add(counter, {_COUNTER: float(owed)}, expires=float(expires))
        except BaseException:
            count.told -= owed
            raise


def all_spent(backends: list[BackendState], model: str, *, now: float) -> Saturated:
    """What the caller is told when all who serve the model have had their requests of the day."""
    told = ", ".join(f"{one.facts.name} its {one.facts.requests_per_day}" for one in backends)
    return Saturated(
        f"Every backend for {model!r} has had its requests of the day: {told}.",
        code="daily_cap_reached",
        retry_after=max(0.0, min(one.spent_until for one in backends) - now),
    )
