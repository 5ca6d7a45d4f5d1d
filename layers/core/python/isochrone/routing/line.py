"""The order of those who wait for the same places: by priority, tenants by turns within a class. Pure.

    high      ● ● ● ●  8 turns ┐
    standard  ● ●      3 turns ├──▶ the next who asks for a place that was freed
    low       ● ● ●    1 turn  ┘

Classes have their turns by smooth weighted round robin (as nginx gives them to servers), so none starves; whose turn it
is within a class, `round_robin` says.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from isochrone.routing.priority import Priority
from isochrone.routing.round_robin import RoundRobin
from isochrone.routing.shares import Shares

T = TypeVar("T")


class Turn(NamedTuple, Generic[T]):
    """Who is next, and with which right: that of the highest class, when it is its turn before a higher one."""

    who: T
    priority: Priority
    right: Priority


class Line(Generic[T]):
    """The order in one line."""

    def __init__(self, shares: Shares) -> None:
        self._waiting: dict[Priority, RoundRobin[T]] = {priority: RoundRobin(shares) for priority in Priority}
        self._owed = dict.fromkeys(Priority, 0)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def join(self, who: T, priority: Priority, tenant: str) -> None:
        """At the end of its class, behind those of its tenant."""
        self._waiting[priority].join(who, tenant)

    def leave(self, who: T, priority: Priority) -> None:
        """Whoever is not there (any more) need not."""
        self._waiting[priority].leave(who)
        if not self._waiting[priority]:
            self._owed[priority] = 0

    def next(self) -> Turn[T] | None:
        """Whose turn it is; None when nobody waits."""
        present = self._present()
        if not present:
            return None
        priority = max(present, key=lambda one: (self._owed[one] + one.weight, one))
        right = Priority.HIGH if priority < max(present) else priority
        who = self._waiting[priority].next()
        assert who is not None
        return Turn(who, priority, right)

    def serve(self, who: T, priority: Priority) -> None:
        """It had its turn, and leaves. The others are owed theirs the more."""
        present = self._present()
        for one in present:
            self._owed[one] += one.weight
        self._owed[priority] -= sum(one.weight for one in present)
        self._waiting[priority].serve(who)
        self.leave(who, priority)

    def ahead_of(self, priority: Priority, tenant: str) -> int:
        """How many will be served before one of this class and tenant who joins now, if nobody joins after that."""
        own = self._waiting[priority].ahead_of(tenant)
        turns = (own + 1) / priority.weight
        others = (min(len(self._waiting[one]), turns * one.weight) for one in Priority if one != priority)
        return own + int(sum(others))

    @property
    def highest(self) -> Priority:
        """The highest class that waits; LOW when nobody does."""
        return max(self._present(), default=Priority.LOW)

    def _present(self) -> list[Priority]:
        return [priority for priority, waiting in self._waiting.items() if waiting]
