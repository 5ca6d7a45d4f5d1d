"""What an edge does from time to time besides answering: probes, ledger flushes, reading its secrets anew.

A resident edge does its chores by itself; one that may be frozen between requests (a Lambda) catches up on those that
are due before it is. A chore that fails is logged and done again, sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger("isochrone")

# A chore that failed waits no longer than this for its next try.
RETRY_SECONDS = 30.0


class Chore:
    """`do` every `every` seconds; the first time at once, unless it was done by hand before."""

    def __init__(self, what: str, every: float, do: Callable[[], Awaitable[None]]) -> None:
        self.what = what
        self._every = every
        self._do = do
        self._wait = 0.0
        self._due_at: float | None = None

    async def do_now(self) -> None:
        """Once, whether it is due or not; the next time is an interval from here, or sooner if it fails."""
        self._wait = self._every
        try:
            await self._do()
        except Exception:
            self._wait = min(self._every, RETRY_SECONDS)
            log.exception("%s failed, next try in %g s", self.what, self._wait)

    async def keep_doing(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._wait)
            await self.do_now()

    async def catch_up(self, now: float) -> None:
        """Do it if it is due at `now`, seconds on any one clock."""
        if self._due_at is None:
            self._due_at = now + self._wait
        if now < self._due_at:
            return
        try:
            await self.do_now()
        finally:  # also when our caller has no more time: the next one would run into the same
            self._due_at = now + self._wait


class Chores:
    """All chores of one edge."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Do each by itself from now on."""
        self._tasks = [asyncio.create_task(chore.keep_doing(), name=chore.what) for chore in self._chores]

    async def catch_up(self, now: float) -> None:
        """Do all that are due, side by side."""
        await asyncio.gather(*(chore.catch_up(now) for chore in self._chores))

    async def stop(self) -> None:
        """Do none any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
