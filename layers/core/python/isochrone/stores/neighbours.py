"""Entries in memory, found by the vectors nearest to one: exact, by posting lists over the dimensions.

A vector of a short text is mostly zeros, so a search touches a small part of all numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from isochrone.stores.entries import Entry, Neighbour

Postings = defaultdict[int, dict[str, float]]


class _Kept(NamedTuple):
    entry: Entry
    fresh_until: float
    expires: float


class Neighbours:
    """Entries by fingerprint. `alive(fingerprint)` says whether the answer beside an entry is still there: the entry
    goes when it is not."""

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self._alive = alive
        self._entries: dict[str, _Kept] = {}
        self._scopes: dict[str, Postings] = {}
        self._sweep_at = 64

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, fingerprint: str, entry: Entry, *, fresh_until: float, expires: float) -> None:
        """Keep it in place of an older one."""
        self.discard(fingerprint)
        self._entries[fingerprint] = _Kept(entry, fresh_until, expires)
        postings = self._scopes.setdefault(entry.scope, defaultdict(dict))
        for dimension, weight in _said(entry.vector):
            postings[dimension][fingerprint] = weight
        if len(self._entries) >= self._sweep_at:
            self._sweep()

    def discard(self, fingerprint: str) -> None:
        """Forget it if it is here."""
        found = self._entries.pop(fingerprint, None)
        if found is None:
            return
        postings = self._scopes[found.entry.scope]
        for dimension, _ in _said(found.entry.vector):
            del postings[dimension][fingerprint]
            if not postings[dimension]:
                del postings[dimension]
        if not postings:
            del self._scopes[found.entry.scope]

    def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        """The nearest of the scope that are alive at `now`, best first."""
        scores = self._scores(scope, vector)
        found: list[Neighbour] = []
        for fingerprint in nlargest(limit, scores, key=scores.__getitem__):
            if self._entries[fingerprint].expires > now and self._alive(fingerprint):
                found.append(self._neighbour(fingerprint, scores[fingerprint]))
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

    def _scores(self, scope: str, vector: Sequence[float]) -> dict[str, float]:
        scores: dict[str, float] = {}
        postings: Mapping[int, Mapping[str, float]] = self._scopes.get(scope, {})
        for dimension, weight in _said(vector):
            for fingerprint, other in postings.get(dimension, {}).items():
                scores[fingerprint] = scores.get(fingerprint, 0.0) + weight * other
        return scores

    def _neighbour(self, fingerprint: str, score: float) -> Neighbour:
        entry, fresh_until, _ = self._entries[fingerprint]
        return Neighbour(fingerprint, score, entry.question, entry.embedding, entry.lessons, fresh_until)

    def _sweep(self) -> None:
        for fingerprint in [fingerprint for fingerprint in self._entries if not self._alive(fingerprint)]:
            self.discard(fingerprint)
        self._sweep_at = max(64, 2 * len(self._entries))


def _said(vector: Sequence[float]) -> list[tuple[int, float]]:
    return [(dimension, weight) for dimension, weight in enumerate(vector) if weight]
