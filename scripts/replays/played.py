"""An event loop whose time jumps to whatever comes next: days of traffic take seconds, and work takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


class PlayedLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0. Nothing in it may wait for a socket."""

    def __init__(self) -> None:
        self._played = _Selector()
        super().__init__(self._played)

    def time(self) -> float:
        return self._played.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, in played time."""
    with asyncio.Runner(loop_factory=PlayedLoop) as runner:
        return runner.run(main)
