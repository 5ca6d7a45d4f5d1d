"""Whose turn it is among those who are equally urgent: tenants take turns, and each tenant is first come, first served.

    acme    ● ● ● ● ● ● ●  ┐
    globex  ●              ├──▶ acme, globex, initech, acme, initech, acme, acme, ...
    initech ● ●            ┘

Deficit round robin (Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995): with
each visit a tenant is credited its weight, and pays for its requests what they cost while it can. Who has nobody
waiting keeps no credit. A turn takes constant time where a request costs about what a visit credits.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import Generic, TypeVar

from isochrone.routing.shares import Shares

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Those who wait, by tenant. The first tenant is the one that is visited."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._waiting: OrderedDict[str, dict[T, None]] = OrderedDict()
        self._credit: dict[str, float] = {}
        self._tenant_of: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._tenant_of)

    def join(self, who: T, tenant: str) -> None:
        """At the end of its tenant's line."""
        self._tenant_of[who] = tenant
        if tenant in self._waiting:
            self._waiting[tenant][who] = None
            return
        self._waiting[tenant] = {who: None}
        self._credit[tenant] = 0.0
        if len(self._waiting) == 1:
            self._visit()

    def leave(self, who: T) -> None:
        """Whoever is not there (any more) need not."""
        if (tenant := self._tenant_of.pop(who, None)) is None:
            return
        del self._waiting[tenant][who]
        if self._waiting[tenant]:
            return
        was_visited = tenant == self._visited
        del self._waiting[tenant], self._credit[tenant]
        if was_visited and self._waiting:
            self._visit()

    def next(self) -> T | None:
        """Whose turn it is, the same one until it is served or leaves; None when nobody waits."""
        if not self._waiting:
            return None
        for _ in range(len(self._waiting)):
            if self._can_pay():
                break
            self._waiting.move_to_end(self._visited)
            self._visit()
        if not self._can_pay():
            self._skip_rounds()
            return self.next()
        return next(iter(self._waiting[self._visited]))

    def serve(self, who: T) -> None:
        """It had its turn: its tenant pays, and it leaves."""
        tenant = self._tenant_of[who]
        self._credit[tenant] -= self._shares.cost(tenant)
        self.leave(who)

    def ahead_of(self, tenant: str) -> int:
        """How many will be served before one of this tenant who joins now, if nobody joins after that."""
        own = len(self._waiting.get(tenant, ()))
        rounds = (own + 1) * self._rounds_for(tenant)
        others = (
            min(len(waiting), rounds / self._rounds_for(other))
            for other, waiting in self._waiting.items()
            if other != tenant
        )
        return own + int(sum(others))

    @property
    def _visited(self) -> str:
        return next(iter(self._waiting))

    def _visit(self) -> None:
        self._credit[self._visited] += self._shares.weight(self._visited)

    def _can_pay(self) -> bool:
        return self._credit[self._visited] >= self._shares.cost(self._visited)

    def _rounds_for(self, tenant: str) -> float:
        """How many visits pay for one request."""
        return self._shares.cost(tenant) / self._shares.weight(tenant)

    def _skip_rounds(self) -> None:
        """All those at once after which nobody could pay yet."""
        lacks = {tenant: self._shares.cost(tenant) - credit for tenant, credit in self._credit.items()}
        rounds = ceil(min(lack / self._shares.weight(tenant) for tenant, lack in lacks.items())) - 1
        for tenant in self._credit:
            self._credit[tenant] += rounds * self._shares.weight(tenant)
