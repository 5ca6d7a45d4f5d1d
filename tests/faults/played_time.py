"""An event loop whose time passes only while nobody has anything to do: hours of waiting take seconds, and a busy
machine changes nothing, since work takes no time at all.

Sockets are real. Before the clock moves on, the loop looks once more whether bytes have come meanwhile; and it moves on
by a small step, so that no deadline can pass while something is on its way. `time.time` and `time.monotonic` tell the
same time, so code that reads them keeps its own deadlines, windows and pauses.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

_STEP_SECONDS = 0.5
# Real seconds that bytes may be on their way from one socket of this machine to another.
_ON_THE_WAY_SECONDS = 0.0001
_EPOCH = 1_738_000_000.0


class _Selector(selectors.SelectSelector):
    """Says at once what is ready; when nothing is, it lets played time pass and not real time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        ready = super().select(_ON_THE_WAY_SECONDS)
        if not ready:
            self.now += min(timeout, _STEP_SECONDS)
        return ready


class PlayedTimeLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0."""

    def __init__(self) -> None:
        self._played = _Selector()
        super().__init__(self._played)

    def time(self) -> float:
        return self._played.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, in played time."""
    with asyncio.Runner(loop_factory=PlayedTimeLoop) as runner:
        clock = runner.get_loop().time
        with patch("time.monotonic", clock), patch("time.time", lambda: _EPOCH + clock()):
            return runner.run(main)
