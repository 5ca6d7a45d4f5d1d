"""Sums in this process: for the local edition with state.kind = "memory", and as a fake in tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from isochrone.stores.limits import check_amounts
from isochrone.stores.protocols import StoreUnavailable


class _Kept(NamedTuple):
    sums: dict[str, float]
    expires: float


class MemoryRollupStore:
    """When there are `capacity` keys, those that end first make room. `failing` makes it answer like a store that is
    gone."""

    def __init__(self, *, capacity: int = 10_000) -> None:
        self.failing = False
        self._capacity = capacity
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def add(self, partition: str, key: str, amounts: Mapping[str, float], *, expires: float) -> None:
        self._check()
        check_amounts(f"{partition} {key}", amounts)
        found = self._kept.get((partition, key))
        sums = defaultdict(float, found.sums if found else {})
        for name, amount in amounts.items():
            sums[name] += amount
        self._kept[partition, key] = _Kept(dict(sums), expires)
        if len(self._kept) > self._capacity:
            del self._kept[min(self._kept, key=lambda name: self._kept[name].expires)]

    async def sums(self, partition: str, *, now: float) -> dict[str, dict[str, float]]:
        self._check()
        return {
            key: dict(kept.sums)
            for (where, key), kept in sorted(self._kept.items())
            if where == partition and kept.expires > now
        }

    def _check(self) -> None:
        if self.failing:
            raise StoreUnavailable("MemoryRollupStore is switched off")
