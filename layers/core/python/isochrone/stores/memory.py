"""The stores in this process: for the local edition with state.kind = "memory", and as fakes in tests.

All are bounded. Each has a switch, `failing` (every call) and `fail_next` (so many calls), that makes it answer like a
store that is gone; tests use it to see what callers do then.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, TypeVar

import msgspec

from isochrone.stores.bounded import BoundedValues
from isochrone.stores.entries import Entry, Neighbour
from isochrone.stores.limits import (
    ANSWER_BYTES,
    NUMBERING_SECONDS,
    check_amounts,
    check_item,
    check_size,
    encode_document,
    ledger_sort_key,
    moment_key,
)
from isochrone.stores.neighbours import Neighbours
from isochrone.stores.protocols import StoreUnavailable, Taken


class _Switch:
    failing = False
    fail_next = 0

    def _check(self) -> None:
        if self.failing or self.fail_next > 0:
            self.fail_next = max(0, self.fail_next - 1)
            raise StoreUnavailable(f"{type(self).__name__} is switched off")


class _StoredAnswer(NamedTuple):
    value: bytes
    fence: int | None
    fresh_until: float
    stored_at: float

    def yields_to(self, fence: int | None, now: float) -> bool:
        if fence is None or self.fence is None or self.fence <= fence:
            return True
        return self.fresh_until <= now or self.stored_at <= now - NUMBERING_SECONDS


def _weigh(stored: _StoredAnswer) -> int:
    return len(stored.value)


class MemoryAnswerStore(_Switch):
    """Answers, least recently used out first. `capacity` is bytes with the bookkeeping."""

    max_bytes = ANSWER_BYTES

    def __init__(self, *, capacity: int = 64 * 1024 * 1024, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: BoundedValues[_StoredAnswer] = BoundedValues(capacity, weigh=_weigh)
        self._neighbours = Neighbours(self._kept.__contains__)

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, fingerprint: str, *, now: float, consistent: bool = False) -> bytes | None:
        self._check()
        found = self._kept.get(fingerprint, now=now)
        return found.value if found else None

    async def put(
        self,
        fingerprint: str,
        value: bytes,
        *,
        tenant: str,
        expires: float,
        fresh_until: float = inf,
        fence: int | None = None,
        entry: Entry | None = None,
    ) -> bool:
        self._check()
        check_size("answer", len(value), self.max_bytes)
        now = self._clock()
        found = self._kept.get(fingerprint, now=now)
        if found and not found.yields_to(fence, now):
            return False
        self._kept.put(fingerprint, _StoredAnswer(value, fence, fresh_until, now), until=expires)
        self._neighbours.discard(fingerprint)
        if entry:
            self._neighbours.put(fingerprint, entry, fresh_until=fresh_until, expires=expires)
        return True

    async def delete(self, fingerprint: str) -> None:
        self._check()
        self._kept.discard(fingerprint)

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        self._check()
        return self._neighbours.search(scope, vector, limit=limit, now=now)

    async def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes = b"") -> bool:
        self._check()
        return self._neighbours.learn(fingerprint, lessons, before=before, embedding=embedding)


class _Document(NamedTuple):
    encoded: bytes
    version: int
    expires: float


class _Counters(NamedTuple):
    sums: dict[str, float]
    expires: float


_Kept = TypeVar("_Kept", _Document, _Counters)


class MemoryFleetStore(_Switch):
    """Documents and counters by name. When `capacity` of a kind are alive, a new one is refused: dropping a live lease
    would let two callers hold it."""

    def __init__(self, *, capacity: int = 10_000, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._clock = clock
        self._documents: dict[str, _Document] = {}
        self._counters: dict[str, _Counters] = {}

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        self._check()
        found = self._documents.get(name)
        if found is None or found.expires <= now:
            return None, 0
        return msgspec.json.decode(found.encoded, type=dict[str, Any]), found.version

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        self._check()
        encoded = encode_document(name, document)
        now = self._clock()
        found = self._documents.get(name)
        if version != (found.version if found and found.expires > now else 0):
            return 0
        if found is None:
            self._make_room(self._documents, now)
        written = found.version + 1 if found else 1
        self._documents[name] = _Document(encoded, written, expires)
        return written

    async def add(self, name: str, amounts: Mapping[str, float], *, expires: float) -> dict[str, float]:
        return (await self.take(name, amounts, most={}, expires=expires)).sums

    async def take(
        self,
        name: str,
        amounts: Mapping[str, float],
        *,
        most: Mapping[str, float],
        expires: float,
        drop: Collection[str] = (),
    ) -> Taken:
        self._check()
        check_amounts(name, amounts)
        now = self._clock()
        found = self._counters.get(name)
        if found is None:
            self._make_room(self._counters, now)
        before = found.sums if found and found.expires > now else {}
        sums = {counter: before[counter] for counter in before if counter not in drop}
        for counter, amount in amounts.items():
            sums[counter] = before.get(counter, 0.0) + amount
        if any(sums.get(counter, 0.0) > bound for counter, bound in most.items()):
            return Taken(False, dict(before))
        self._counters[name] = _Counters(sums, expires)
        return Taken(True, dict(sums))

    @property
    def offset(self) -> float:
        return 0.0

    def _make_room(self, kept: dict[str, _Kept], now: float) -> None:
        if len(kept) < self._capacity:
            return
        for name in [name for name, one in kept.items() if one.expires <= now]:
            del kept[name]
        if len(kept) >= self._capacity:
            raise StoreUnavailable(f"fleet: {self._capacity} names are alive, there is no room for another")


class MemoryLedgerStore(_Switch):
    """Entries in the order of their start; the oldest go when there are more than `capacity`."""

    def __init__(self, *, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._order: list[tuple[str, str]] = []
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}

    async def append(self, entries: list[dict[str, Any]]) -> None:
        self._check()
        for key, entry in [((ledger_sort_key(entry), entry["tenant"]), entry) for entry in entries]:
            if key not in self._entries:
                self._entries[key] = dict(entry)
                insort(self._order, key)
        while len(self._order) > self._capacity:
            del self._entries[self._order.pop(0)]

    async def recent(self, tenant: str, *, limit: int = 100) -> list[dict[str, Any]]:
        self._check()
        newest = (self._entries[key] for key in reversed(self._order) if key[1] == tenant)
        return [dict(entry) for _, entry in zip(range(limit), newest, strict=False)]

    async def all(self, *, tenant: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        self._check()
        first = "" if since is None else moment_key(since)
        return [dict(self._entries[key]) for key in self._order if key[0] >= first and tenant in (None, key[1])]


class MemoryDirectoryStore(_Switch):
    """Items by partition and key. When there are `capacity` items, a new one is refused: none may be lost."""

    def __init__(self, *, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._partitions: dict[str, dict[str, dict[str, Any]]] = {}

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        self._check()
        kept = self._partitions.get(partition, {})
        return {key: dict(data) for key, data in sorted(kept.items()) if key.startswith(prefix)}

    async def put(self, partition: str, key: str, data: dict[str, Any]) -> None:
        self._check()
        check_item(partition, key, data)
        kept = self._partitions.setdefault(partition, {})
        if key not in kept and sum(map(len, self._partitions.values())) >= self._capacity:
            raise StoreUnavailable(f"directory: there are {self._capacity} items, there is no room for another")
        kept[key] = dict(data)

    async def delete(self, partition: str, key: str) -> None:
        self._check()
        self._partitions.get(partition, {}).pop(key, None)
