"""Limiters under test: on a store in memory, with a clock that the test sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from isochrone.admission.limits.limiter import Limiter, Limits
from isochrone.admission.limits.notices import Notices
from isochrone.admission.limits.scopes import Tables
from isochrone.admission.limits.table import Table
from isochrone.admission.principal import Principal
from isochrone.background import Background
from isochrone.settings import OwnLimits, PerAddress
from isochrone.stores.memory import MemoryFleetStore
from isochrone.stores.protocols import FleetStore, Taken

# The start of a minute, and of no day.
START = 1_800_000_000.0 // 60 * 60


class Clock:
    """Epoch seconds that the test sets."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class CountedStore(MemoryFleetStore):
    """Counts the calls; `behind` is how far the clock of the process is behind that of the store."""

    def __init__(self, clock: Clock, *, behind: float = 0.0) -> None:
        super().__init__(clock=lambda: clock() + behind)
        self.calls = 0
        self.behind = behind

    async def take(
        self,
        name: str,
        amounts: Mapping[str, float],
        *,
        most: Mapping[str, float],
        expires: float,
        drop: Collection[str] = (),
    ) -> Taken:
        self.calls += 1
        return await super().take(name, amounts, most=most, expires=expires, drop=drop)

    @property
    def offset(self) -> float:
        return self.behind


class Places:
    """The places of one scope, counted by this process alone."""

    is_held = False

    def __init__(self, capacity: int) -> None:
        self.free = capacity

    def take_at_hand(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> bool:
        return False

    def give_back(self) -> None:
        self.free += 1

    async def keep(self) -> None: ...

    async def settle(self) -> None: ...


class Bench:
    """One process: its limiter, its clock and what it counted, told and logged."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        store: FleetStore | None = None,
        far: FleetStore | None = None,
        tenants: Mapping[str, OwnLimits] | None = None,
        models: Mapping[str, OwnLimits] | None = None,
        per_address: PerAddress | None = None,
        local_share: float = 1.0,
    ) -> None:
        self.clock = clock or Clock()
        self.background = Background()
        self.counts: Counter[str] = Counter()
        self.posted: list[dict[str, Any]] = []
        store = store or CountedStore(self.clock)
        self.own, self.main = (
            Table(
                one, clock=self.clock, background=self.background, holder=lambda: hex(id(self)), local_share=local_share
            )
            for one in (store, far or store)
        )
        self.limiter = Limiter(
            Limits(tenants or {}, models or {}, per_address or PerAddress()),
            Tables(self.own, self.main),
            seats_of=lambda name, capacity: Places(capacity),
            notices=Notices(count=self.count, post=self.post),
            clock=self.clock,
            count=self.count,
        )

    def count(self, name: str) -> None:
        self.counts[name] += 1

    async def post(self, notice: dict[str, Any]) -> None:
        self.posted.append(notice)


def key(name: str = "a", tenant: str = "t", **limits: Any) -> Principal:
    """A principal with these limits."""
    return Principal(name, tenant, limits=OwnLimits(**limits))
