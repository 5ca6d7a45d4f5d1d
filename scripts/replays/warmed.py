"""The same edge with a warmer beside it: its history, forecasts and plans are the program's own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from isochrone.answers.completion import Answer
from isochrone.ledger.rollups import DAY
from isochrone.settings import Warm
from isochrone.warming.forecast import Day, Forecast, forecast
from isochrone.warming.history import OWN_REQUESTS, history
from isochrone.warming.plan import Held, Line, Means, plan
from replays.known import MODEL, TENANT, Replay, now


class Beside:
    """Runs the warmer of a replay every `interval`, and notes what came of it."""

    def __init__(self, replay: Replay, warm: Warm) -> None:
        self.made = 0
        self.dollars = 0.0
        self._replay = replay
        self._warm = warm
        self._spent: dict[int, float] = {}
        self._old_until: dict[tuple[str, float], float] = {}
        self._spared: set[tuple[str, float]] = set()
        replay.on_hit = self._note_hit

    @property
    def spared(self) -> int:
        """How many answers were given after the time of those in whose place they were made: each of them spared
        somebody a generation."""
        return len(self._spared)

    async def keep_running(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._warm.interval)
            await self._replay.demand.flush()
            await self._run()

    def _note_hit(self, mark: str, answer: Answer) -> None:
        old_until = self._old_until.get((mark, answer.created))
        if old_until is not None and now() >= old_until and self._replay.counts:
            self._spared.add((mark, answer.created))

    async def _run(self) -> None:
        tables, at = self._replay.tables, now()
        past = await history(tables.rollups, tables.ledger, [TENANT], now=at)
        day = Day.of(past.load)
        held = []
        for (tenant, mark), asks in past.asks.items():
            if answer := await self._replay.known(mark):
                seen = forecast(asks, at, day)
                held.append(self._held(tenant, mark, answer, seen))
        warm, spent = self._warm, self._spent.get(int(at // DAY), 0.0)
        means = Means(warm.budget, spent, warm.requests, warm.interval, warm.second_worth)
        for line in plan(held, past.load, means, now=at).due(at):
            await self._make(line)

    def _held(self, tenant: str, mark: str, answer: Answer, seen: Forecast) -> Held:
        return Held(tenant, mark, MODEL, answer.seconds, answer.cost, self._replay.ttl, answer.fresh_until, seen)

    async def _make(self, line: Line) -> None:
        old, row, day = await self._replay.known(line.mark), self._replay.rows[line.mark], int(now() // DAY)
        answer = await self._replay.generate(row, attempt=OWN_REQUESTS)
        await self._replay.keep(row, answer)
        self._spent[day] = self._spent.get(day, 0.0) + answer.cost
        if old:
            self._old_until[line.mark, answer.created] = old.fresh_until
        if self._replay.counts:
            self.made += 1
            self.dollars += answer.cost


async def play_warmed(replay: Replay, warm: Warm, rows: Any) -> Beside:
    """The trace with the warmer beside it."""
    beside = Beside(replay, warm)
    running = asyncio.create_task(beside.keep_running())
    await replay.play(rows)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    return beside
