"""An event loop whose time passes only while nobody has anything to do: hours of waiting take seconds, and a busy
machine changes nothing, since work takes no time at all.

Sockets are real. Before the clock moves on, the loop looks once more whether bytes have come meanwhile; and it moves on
by a small step, so that no deadline can pass while something is on its way. `time.time` and `time.monotonic` tell the
same time, also where they are the default of an argument, so all of ours keeps its deadlines, windows and pauses.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import time
from collections.abc import Collection, Coroutine, Iterator
from contextlib import ExitStack
from types import FunctionType
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

_STEP_SECONDS = 0.5
# Real seconds that bytes may be on their way from one socket of this machine to another.
_ON_THE_WAY_SECONDS = 0.0001
_EPOCH = 1_738_000_000.0


class _Selector(selectors.DefaultSelector):  # select() itself would refuse sockets beyond the 1,024th
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
        time.sleep(_ON_THE_WAY_SECONDS)
        ready = super().select(0)
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
    with asyncio.Runner(loop_factory=PlayedTimeLoop) as runner, ExitStack() as patches:
        clock = runner.get_loop().time
        played = {time.monotonic: clock, time.time: lambda: _EPOCH + clock()}
        for defaults, name in list(_defaults_in(played)):
            patches.enter_context(patch.dict(defaults, {name: played[defaults[name]]}))
        for real, instead in played.items():
            patches.enter_context(patch.object(time, real.__name__, instead))
        return runner.run(main)


def _defaults_in(clocks: Collection[object]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where functions of ours keep one of these as the default of an argument."""
    functions = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
    for function in functions:
        if str(function.__module__).startswith("isochrone."):
            defaults = function.__kwdefaults__ or {}
            yield from ((defaults, name) for name, default in defaults.items() if any(default is c for c in clocks))
