"""All who wait at an edge, and who goes when there are too many: nobody can fill the room alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares

T = TypeVar("T")


class Crowd(Generic[T]):
    """Those who wait, by class and tenant, in the order in which they came."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._present: dict[Priority, dict[str, dict[T, None]]] = {priority: {} for priority in Priority}
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[T]:
        for tenants in self._present.values():
            for waiting in tenants.values():
                yield from waiting

    def add(self, who: T, priority: Priority, tenant: str) -> None:
        """The last of its tenant."""
        self._present[priority].setdefault(tenant, {})[who] = None
        self._number += 1

    def remove(self, who: T, priority: Priority, tenant: str) -> bool:
        """False when it is not there (any more)."""
        tenants = self._present[priority]
        if who not in tenants.get(tenant, ()):
            return False
        del tenants[tenant][who]
        self._number -= 1
        if not tenants[tenant]:
            del tenants[tenant]
        return True

    def who_gives_way(self, priority: Priority, tenant: str) -> T | None:
        """Who goes when one of this class and tenant comes; None: the newcomer.

        It is of the lowest class, and there of the tenant that has most waiting for its weight: who came last.
        """
        lowest = min(priority for priority, tenants in self._present.items() if tenants)
        tenants = self._present[lowest]
        largest = max(tenants, key=lambda one: self._size(lowest, one))
        if priority < lowest or (priority is lowest and not self._has_less(lowest, tenant, largest)):
            return None
        return next(reversed(tenants[largest]))

    def _has_less(self, priority: Priority, tenant: str, largest: str) -> bool:
        """Also with one more?"""
        return self._size(priority, tenant, more=1) < self._size(priority, largest)

    def _size(self, priority: Priority, tenant: str, more: int = 0) -> float:
        return (len(self._present[priority].get(tenant, ())) + more) / self._shares.weight(tenant)
