"""Entries in memory, found by the vectors nearest to one: exact, by posting lists over the dimensions.

A vector of a short text is mostly zeros, so a search touches a small part of all numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import NamedTuple

from isochrone.stores.entries import Entry, Neighbour


class _Kept(NamedTuple):
    entry: Entry
    fresh_until: float
    expires: float
    slot: int


class _Scope:
    """The vectors of one scope. Each has a slot; those of vectors that went are used again."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self._free: list[int] = []
        # Most scopes have one entry: what nothing is in takes no room.
        self._postings: dict[int, dict[int, float]] = {}

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    def put(self, name: str, vector: Sequence[float]) -> int:
        slot = self._free.pop() if self._free else len(self.names)
        self.names[slot : slot + 1] = [name]
        for dimension, weight in _said(vector):
            self._postings.setdefault(dimension, {})[slot] = weight
        return slot

    def discard(self, slot: int, vector: Sequence[float]) -> None:
        self.names[slot] = None
        self._free.append(slot)
        for dimension, _ in _said(vector):
            del self._postings[dimension][slot]

    def nearest(self, vector: Sequence[float], limit: int) -> list[tuple[float, str]]:
        """Scores and names, best first; those that have nothing in common with the vector are not among them."""
        scores = [0.0] * len(self.names)
        for dimension, weight in _said(vector):
            for slot, other in self._postings.get(dimension, {}).items():
                scores[slot] += weight * other
        best = nlargest(limit, range(len(scores)), key=scores.__getitem__)
        return [(scores[slot], name) for slot in best if (name := self.names[slot]) and scores[slot]]


class Neighbours:
    """Entries by fingerprint. `alive(fingerprint)` says whether the answer beside an entry is still there: the entry
    goes when it is not."""

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self._alive = alive
        self._entries: dict[str, _Kept] = {}
        self._scopes: dict[str, _Scope] = {}
        self._sweep_at = 64

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, fingerprint: str, entry: Entry, *, fresh_until: float, expires: float) -> None:
        """Keep it in place of an older one."""
        self.discard(fingerprint)
        slot = self._scopes.setdefault(entry.scope, _Scope()).put(fingerprint, entry.vector)
        self._entries[fingerprint] = _Kept(entry, fresh_until, expires, slot)
        if len(self._entries) >= self._sweep_at:
            self._sweep()

    def discard(self, fingerprint: str) -> None:
        """Forget it if it is here."""
        if found := self._entries.pop(fingerprint, None):
            scope = self._scopes[found.entry.scope]
            scope.discard(found.slot, found.entry.vector)
            if not len(scope):
                del self._scopes[found.entry.scope]

    def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        """The nearest of the scope that are alive at `now`, best first."""
        found: list[Neighbour] = []
        for score, fingerprint in self._scopes[scope].nearest(vector, limit) if scope in self._scopes else ():
            kept = self._entries[fingerprint]
            if kept.expires > now and self._alive(fingerprint):
                entry = kept.entry
                found.append(
                    Neighbour(fingerprint, score, entry.question, entry.embedding, entry.lessons, kept.fresh_until)
                )
            else:
                self.discard(fingerprint)
        return found

    def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes) -> bool:
        """Replace the lessons `before`; False when others stand there, or none does."""
        found = self._entries.get(fingerprint)
        if found is None or found.entry.lessons != before:
            return False
        learned = found.entry._replace(lessons=lessons, embedding=embedding or found.entry.embedding)
        self._entries[fingerprint] = found._replace(entry=learned)
        return True

    def _sweep(self) -> None:
        for fingerprint in [fingerprint for fingerprint in self._entries if not self._alive(fingerprint)]:
            self.discard(fingerprint)
        self._sweep_at = max(64, 2 * len(self._entries))


def _said(vector: Sequence[float]) -> list[tuple[int, float]]:
    return [(dimension, weight) for dimension, weight in enumerate(vector) if weight]
