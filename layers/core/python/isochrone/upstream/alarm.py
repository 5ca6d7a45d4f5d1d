"""Many waits in a row, each bounded, with one timer for all of them.

asyncio.timeout_at sets a timer for each wait and takes it back: 3 us, as much as reading an event. Nearly every wait
is short, and the next one's end lies later. So this timer stays set when a wait is over; when it rings too early, it
is set anew for the wait of then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class Alarm:
    """For waits one after the other, of any task; times are on the event loop's clock. `stop` it behind the last."""

    __slots__ = ("_loop", "_rang", "_timer", "_until", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._until = 0.0
        self._rang = False

    async def wait(self, call: Awaitable[T], until: float) -> T:
        """What `call` gives. Raises TimeoutError when it takes longer than `until`, like asyncio.timeout_at."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting, self._until, self._rang = task, until, False
        if self._timer is None or until < self._timer.when():
            self._set()
        cancelled_before = task.cancelling()
        try:
            return await call
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task as well: that counts for more.
            if self._take_back(task) and task.cancelling() <= cancelled_before:
                raise TimeoutError from None
            raise
        finally:
            self._take_back(task)
            self._waiting = None

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.stop()
        self._timer = self._loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._until:
            self._set()
            return
        self._rang = True
        self._waiting.cancel()

    def _take_back(self, task: asyncio.Task[Any]) -> bool:
        """Did it ring? Then the task is no longer being cancelled for that."""
        rang, self._rang = self._rang, False
        if rang:
            task.uncancel()
        return rang
