"""Asks edges and pools how they are, about once a second and only while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import aiohttp
import msgspec

from local.console.reports import Ledger, Status
from local.console.snapshot import EdgeView, merge
from local.console.tally import Tally

INTERVAL = 1.0  # seconds between two rounds
PATIENCE = 0.8  # seconds for one answer: with the interval, nobody is silent for two before it shows
_PAGE, _LONG_PAGE = 100, 1000  # ledger entries

FAILURES = (aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError)  # all that a peer can cause

Report = TypeVar("Report")


class Watch:
    """The latest picture of `edges` and `pools`, each a URL by name. `clock` and `now` are in seconds."""

    def __init__(
        self,
        edges: Mapping[str, str],
        pools: Mapping[str, str],
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.edges = dict(edges)
        self._views = [EdgeView(name, url) for name, url in edges.items()]
        self._pools = dict(pools)
        self._direct: dict[str, str] = {}
        self._tally = Tally()
        self._session = session
        self._clock, self._now = clock, now
        self._one_round = asyncio.Lock()
        self._looked_at = float("-inf")
        self._picture = b""

    async def picture(self) -> bytes:
        """The picture as JSON, at most INTERVAL old; all who look share one round of questions."""
        async with self._one_round:
            if self._clock() - self._looked_at >= INTERVAL:
                self._looked_at = self._clock()
                await self._look()
                self._picture = msgspec.json.encode(merge(self._views, self._direct, self._tally, now=self._now()))
        return self._picture

    async def pause(self) -> None:
        """Until it is time for the next picture."""
        await asyncio.sleep(max(0.0, self._looked_at + INTERVAL - self._clock()))

    async def _look(self) -> None:
        edges = [self._ask_edge(view) for view in self._views]
        ledgers = [self._ask_ledger(view) for view in self._views]
        pools = [self._ask_pool(name, url) for name, url in self._pools.items()]
        await asyncio.gather(*edges, *ledgers, *pools)

    async def _ask_edge(self, view: EdgeView) -> None:
        try:
            view.status = await self._get(f"{view.url}/v1/status", Status)
        except FAILURES as error:
            view.failure = failure_of(error)
            return
        view.failure = ""
        view.rate.mark(self._clock(), sum(view.status.family("answered").values()))

    async def _ask_ledger(self, view: EdgeView) -> None:
        """A ledger that cannot be read now is read later: nothing in it goes away."""
        try:
            page = await self._page(view, _PAGE)
            if self._tally.has_gap(view.name, page.data, limit=_PAGE):
                page = await self._page(view, _LONG_PAGE)
        except FAILURES:
            return
        self._tally.take(view.name, page.data)

    async def _page(self, view: EdgeView, limit: int) -> Ledger:
        return await self._get(f"{view.url}/v1/ledger?limit={limit}", Ledger)

    async def _ask_pool(self, name: str, url: str) -> None:
        try:
            await self._get(f"{url}/health", dict)
        except FAILURES as error:
            self._direct[name] = failure_of(error)
        else:
            self._direct[name] = ""

    async def _get(self, url: str, kind: type[Report]) -> Report:
        async with asyncio.timeout(PATIENCE), self._session.get(url, raise_for_status=True) as response:
            return msgspec.json.decode(await response.read(), type=kind)


def failure_of(error: Exception) -> str:
    """A word for the page's dictionary."""
    if isinstance(error, TimeoutError):
        return "silent"
    if isinstance(error, aiohttp.ClientResponseError | msgspec.MsgspecError | UnicodeDecodeError):
        return "odd"
    return "refused"
