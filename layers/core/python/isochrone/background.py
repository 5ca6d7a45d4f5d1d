"""Work that a reply need not wait for: kept, so that it is neither lost nor collected, and finished on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from isochrone.faults import wordless

log = logging.getLogger("isochrone")


class Background:
    """The tasks of one edge."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it beside the requests; what it raises is logged. The task is for who wants to wait a while for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("work in the background failed", exc_info=wordless(error))

    async def finish(self) -> None:
        """Wait for all that was started."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
