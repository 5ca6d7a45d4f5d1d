"""In which lines each tenant waits, and so what part of its weight counts in each of them. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar

from isochrone.routing.shares import Shares


class Shared(Protocol):
    """A line: `share` is the weight of all who wait in it."""

    share: float

    def __hash__(self) -> int: ...


L = TypeVar("L", bound=Shared)


class Presence(Generic[L]):
    """Keeps the share of each line: a tenant's weight is spread evenly over the lines that it waits in."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._lines: dict[str, Counter[L]] = {}

    def enter(self, tenant: str, line: L) -> None:
        """One more of this tenant waits there."""
        self._change(tenant, line, 1)

    def leave(self, tenant: str, line: L) -> None:
        """One less."""
        self._change(tenant, line, -1)

    def _change(self, tenant: str, line: L, by: int) -> None:
        lines = self._lines.setdefault(tenant, Counter())
        self._count(tenant, lines, -1)
        lines[line] += by
        if not lines[line]:
            del lines[line]
        self._count(tenant, lines, 1)
        if not lines:
            del self._lines[tenant]

    def _count(self, tenant: str, lines: Counter[L], sign: int) -> None:
        for line in lines:
            line.share += sign * self._shares.weight(tenant) / len(lines)
