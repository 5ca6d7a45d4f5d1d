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
        self._held = 0
        self._partitions: dict[str, dict[str, _Kept]] = {}

    async def add(self, partition: str, key: str, amounts: Mapping[str, float], *, expires: float) -> None:
        self._check()
        check_amounts(f"{partition} {key}", amounts)
        kept = self._partitions.setdefault(partition, {})
        self._held += key not in kept
        sums = defaultdict(float, kept[key].sums if key in kept else {})
        for name, amount in amounts.items():
            sums[name] += amount
        kept[key] = _Kept(dict(sums), expires)
        if self._held > self._capacity:
            self._make_room()

    async def sums(self, partition: str, *, now: float) -> dict[str, dict[str, float]]:
        self._check()
        kept = self._partitions.get(partition, {})
        return {key: dict(one.sums) for key, one in sorted(kept.items()) if one.expires > now}

    def _make_room(self) -> None:
        ends = (
            (one.expires, partition, key) for partition, kept in self._partitions.items() for key, one in kept.items()
        )
        _, partition, key = min(ends)
        del self._partitions[partition][key]
        self._held -= 1

    def _check(self) -> None:
        if self.failing:
            raise StoreUnavailable("MemoryRollupStore is switched off")
