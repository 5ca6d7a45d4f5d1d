"""What happens next: the list of events that drives the simulation, and its clock."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

Action = Callable[[Any], None]


class Agenda:
    """Events in the order of their time, and of their entry where times are equal. Seconds from 0."""

    __slots__ = ("_entries", "_heap", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._entries = 0

    def at(self, time: float, action: Action, subject: Any) -> None:
        """Call `action(subject)` at `time`, which is not before now."""
        self._entries = entry = self._entries + 1
        heappush(self._heap, (time, entry, action, subject))

    def run_until(self, time: float) -> None:
        """Everything that happens up to `time`; the clock then stands there."""
        heap = self._heap
        while heap and heap[0][0] <= time:
            self.now, _, action, subject = heappop(heap)
            action(subject)
        if time < inf:
            self.now = time
