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
    """`do` every `every` seconds; the first time at once, or after that interval when it was `done_at_start`."""

    def __init__(
        self, what: str, every: float, do: Callable[[], Awaitable[None]], *, done_at_start: bool = False
    ) -> None:
        self.what = what
        self._every = every
        self._do = do
        self._wait = every if done_at_start else 0.0
        self._due_at: float | None = None

    async def keep_doing(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._wait)
            await self._attempt()

    async def catch_up(self, now: float) -> None:
        """Do it if it is due at `now`, seconds on any one clock."""
        if self._due_at is None:
            self._due_at = now + self._wait
        if now >= self._due_at:
            await self._attempt()
            self._due_at = now + self._wait

    async def _attempt(self) -> None:
        self._wait = self._every
        try:
            await self._do()
        except Exception:
            self._wait = min(self._every, RETRY_SECONDS)
            log.exception("%s failed, next try in %g s", self.what, self._wait)


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
