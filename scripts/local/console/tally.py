"""Sums over what the console has seen so far: attempts, tokens, money and requests per second."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from local.console.reports import Attempt

SHOWN = 20
RATE_SECONDS = 10.0
_REMEMBERED = 10_000

Key = tuple[str, int, float]


class Tally:
    """Every attempt once, however often a ledger lists it."""

    def __init__(self) -> None:
        self._known: dict[Key, None] = {}
        self._edges: set[str] = set()
        self._newest: list[tuple[Attempt, str]] = []
        self._count = self._input = self._output = 0
        self._cost = 0.0
        self._since: float | None = None

    def has_gap(self, edge: str, page: Sequence[Attempt], *, limit: int) -> bool:
        """Whether attempts may lie between this full page and the last one of the same edge."""
        return edge in self._edges and len(page) == limit and not any(_key(attempt) in self._known for attempt in page)

    def take(self, edge: str, page: Sequence[Attempt]) -> None:
        """Add what is new of an edge's page."""
        self._edges.add(edge)
        for attempt in page:
            if _key(attempt) not in self._known:
                self._add(attempt, edge)
        self._newest = sorted(self._newest, key=lambda one: one[0].started_at, reverse=True)[:SHOWN]
        for key in list(self._known)[:-_REMEMBERED]:
            del self._known[key]

    def _add(self, attempt: Attempt, edge: str) -> None:
        self._known[_key(attempt)] = None
        self._newest.append((attempt, edge))
        self._count += 1
        self._input += attempt.input_tokens or 0
        self._output += attempt.output_tokens or 0
        self._cost += attempt.cost
        self._since = attempt.started_at if self._since is None else min(self._since, attempt.started_at)

    def totals(self) -> dict[str, Any]:
        """Tokens and dollars of all attempts since the oldest that was seen."""
        return {
            "attempts": self._count,
            "input_tokens": self._input,
            "output_tokens": self._output,
            "cost": self._cost,
            "since": self._since,
        }

    def newest(self) -> list[dict[str, Any]]:
        """The last attempts, newest first, each with the edge that made it."""
        return [{**structs.asdict(attempt), "edge": edge} for attempt, edge in self._newest]


def _key(attempt: Attempt) -> Key:
    return attempt.request_id, attempt.attempt, attempt.started_at


class Rate:
    """How fast a counter grows, over the last RATE_SECONDS."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, count: int) -> None:
        """The counter stood at `count`; a lower count than before means that it began anew."""
        if self._marks and count < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, count))
        while now - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()

    def per_second(self) -> float:
        """0 until there are two marks."""
        if not self._marks:
            return 0.0
        (begun, low), (ended, high) = self._marks[0], self._marks[-1]
        return (high - low) / (ended - begun) if ended > begun else 0.0
