"""Makes answers before they are asked for: one process of a region at a time, within the budget of the day.

    take the duty -> history -> forecast -> plan -> ask for what is due, at the lowest priority -> settle the dollars

It yields: what finds no backend at once ends the run, and so does the end of its time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

from isochrone.api.controls import CacheMode
from isochrone.api.errors import ApiError, status_of
from isochrone.ledger.rollups import DAY, date_of
from isochrone.pipeline import Pipeline
from isochrone.routing.leases import Leases
from isochrone.settings import Settings
from isochrone.stores.protocols import AnswerStore, FleetStore, LedgerStore, RollupStore, StoreUnavailable
from isochrone.warming.forecast import Day, Forecast, forecast
from isochrone.warming.history import OWN_REQUESTS, History, Name, history
from isochrone.warming.plan import Held, Line, Means, Plan, plan
from isochrone.warming.stock import Item, Stock

log = logging.getLogger("isochrone.warming")

DUTY = "duty/warm"
# The answers that are read for a plan: those that are most likely asked for in the next two days.
MOST_READ = 500
_AT_ONCE = 8
_GENERATIONS_AT_ONCE = 4
_SOON_SECONDS = 2 * DAY
# A generation that cannot begin with so many seconds left is not begun.
_RESERVE_SECONDS = 5.0
_FULL = frozenset({429, 503})
_FAILED, _NOT_KEPT, _NOBODY_FREE, _OVER = "failed", "not kept", "no backend is free", "over budget"
_BUSY: Literal["another process has the duty"] = "another process has the duty"


class Stores(NamedTuple):
    """What a warmer reads and writes by itself; the pipeline has its own."""

    answers: AnswerStore
    ledger: LedgerStore
    rollups: RollupStore
    fleet: FleetStore


class Made(NamedTuple):
    """What became of one line: `outcome` "made", or why not; `cost` is in dollars, of what was really generated."""

    line: Line
    outcome: str
    cost: float

    @property
    def went_wrong(self) -> bool:
        """It was asked for, and there is no new answer."""
        return self.outcome == _NOT_KEPT or self.outcome.startswith(_FAILED)


class Run(NamedTuple):
    """What one run did; `state` is "done", or why it ended before it had made all that was due."""

    state: Literal["done", "another process has the duty", "out of time", "out of budget", "the fleet is busy"]
    made: tuple[Made, ...] = ()

    @property
    def cost(self) -> float:
        """Dollars."""
        return sum(one.cost for one in self.made)

    @property
    def is_complete(self) -> bool:
        """Is nothing left of what was due, or another process at it?"""
        return self.state in ("done", _BUSY) and not any(one.went_wrong for one in self.made)


class Warmer:
    """One region's. `flush` finishes what replies left to the background; `new_id` names a request."""

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        stores: Stores,
        leases: Leases,
        *,
        flush: Callable[[], Awaitable[None]],
        new_id: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._stores = stores
        self._leases = leases
        self._flush = flush
        self._new_id = new_id
        self._clock = clock
        self._stock = Stock(stores.answers, pipeline)

    async def plan(self) -> Plan:
        """What to make and when, as things stand now. Raises StoreUnavailable."""
        now = self._clock()
        tenants = await self._pipeline.rooms.front.identity.tenants(now=now)
        past = await history(self._stores.rollups, self._stores.ledger, tenants, now=now)
        held, left = await self._held(past, now)
        found = plan(held, past.load, await self._means(now), now=now)
        return found._replace(left=dict(Counter(found.left) + left))

    async def apply(self, *, ends_at: float) -> Run:
        """Make what is due now; `ends_at` is on the event loop's clock. Raises StoreUnavailable."""
        if not await self._hold_duty():
            return Run(_BUSY)
        try:
            return await self._make_all((await self.plan()).due(self._clock()), ends_at)
        finally:
            await self._leases.let_go()

    async def spent_today(self) -> float:
        """Dollars, by all runs of this region. Raises StoreUnavailable."""
        return await self._spend(0.0)

    async def _means(self, now: float) -> Means:
        warm = self._settings.warm
        spent = await self.spent_today()
        return Means(warm.budget, spent, warm.requests, warm.interval, warm.second_worth)

    async def _held(self, past: History, now: float) -> tuple[list[Held], Counter[str]]:
        day = Day.of(past.load)
        foreseen = {name: forecast(asks, now, day) for name, asks in past.asks.items()}
        likely = sorted(foreseen, key=lambda name: (-foreseen[name].chance(now, now + _SOON_SECONDS), name))
        held: list[Held] = []
        left: Counter[str] = Counter({"not among the likeliest": max(0, len(likely) - MOST_READ)})
        for start in range(0, min(len(likely), MOST_READ), _AT_ONCE):
            names = likely[start : min(start + _AT_ONCE, MOST_READ)]
            for name, item in zip(names, await self._items(names, now), strict=True):
                if isinstance(item, str):
                    left[item] += 1
                elif item.answer.fresh_until == float("inf"):
                    left["never expires"] += 1
                else:
                    held.append(_held_of(name, item, foreseen[name]))
        return held, left

    async def _items(self, names: Sequence[Name], now: float) -> list[Item | str]:
        return await asyncio.gather(*(self._stock.item(mark, now=now) for _, mark in names))

    async def _hold_duty(self) -> bool:
        """A run that dies holds up the next one for no longer than one generation takes."""
        return await self._leases.hold(DUTY, self._settings.deadlines.total + 60.0)

    async def _make_all(self, due: list[Line], ends_at: float) -> Run:
        made: list[Made] = []
        for start in range(0, len(due), _GENERATIONS_AT_ONCE):
            if time.monotonic() + _RESERVE_SECONDS > ends_at:
                return Run("out of time", tuple(made))
            if not await self._hold_duty():
                return Run(_BUSY, tuple(made))
            batch = due[start : start + _GENERATIONS_AT_ONCE]
            made += await asyncio.gather(*(self._try_to_make(line, ends_at) for line in batch))
            outcomes = {one.outcome for one in made}
            if _OVER in outcomes:
                return Run("out of budget", tuple(made))
            if _NOBODY_FREE in outcomes:
                return Run("the fleet is busy", tuple(made))
        return Run("done", tuple(made))

    async def _try_to_make(self, line: Line, ends_at: float) -> Made:
        try:
            return await self._make(line, ends_at)
        except StoreUnavailable as error:
            return Made(line, f"{_FAILED}: {error}", 0.0)

    async def _make(self, line: Line, ends_at: float) -> Made:
        """Its dollars are taken first, and what was really spent is settled afterwards: several runs share a day."""
        if await self._spend(line.cost) > self._settings.warm.budget:
            await self._spend(-line.cost)
            return Made(line, _OVER, 0.0)
        outcome, cost = await self._generate(line, ends_at)
        await self._spend(cost - line.cost)
        return Made(line, outcome, cost)

    async def _generate(self, line: Line, ends_at: float) -> tuple[str, float]:
        item = await self._stock.item(line.mark, now=self._clock())
        if isinstance(item, str):
            return item, 0.0
        try:
            await self._pipeline.answer(
                item.caller,
                item.ask,
                item.controls._replace(cache=CacheMode.NO_CACHE),
                request_id=OWN_REQUESTS + self._new_id(),
                begun=time.monotonic(),
                lasts_until=min(ends_at, time.monotonic() + self._settings.deadlines.total),
                permit=item.permit,
            )
        except ApiError as error:
            log.info("answer %s was not made: %s", line.mark, error)
            return (_NOBODY_FREE if status_of(error) in _FULL else f"{_FAILED}: {error}"), 0.0
        await self._flush()
        answer = await self._stock.answer(line.mark, now=self._clock(), consistent=True)
        if answer is None or answer.created <= item.answer.created:
            return _NOT_KEPT, line.cost
        return "made", answer.cost

    async def _spend(self, dollars: float) -> float:
        """Dollars that are spent or promised today, with these. Raises StoreUnavailable."""
        day = int(self._clock() // DAY)
        sums = await self._stores.fleet.add(f"warm/{date_of(day)}", {"dollars": dollars}, expires=(day + 2) * DAY)
        return sums["dollars"]


def _held_of(name: Name, item: Item, foreseen: Forecast) -> Held:
    answer = item.answer
    return Held(
        tenant=name[0],
        mark=name[1],
        model=answer.model,
        seconds=answer.seconds,
        cost=answer.cost,
        ttl=item.inquiry.terms.ttl,
        fresh_until=answer.fresh_until,
        forecast=foreseen,
        question=item.question,
    )
