"""Whether anybody can be given the entries of a file: what they say of models, tenants and time, beside what is so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from isochrone.answers.curated.entry import has_expired
from isochrone.answers.curated.sheet import Row


class Remark(NamedTuple):
    """What is to be said of the entry that begins on a line of the file."""

    line: int
    message: str


def mistakes(rows: Iterable[Row], *, models: Collection[str]) -> Iterator[Remark]:
    """What cannot be meant; `models` are those that backends serve."""
    for line, entry in rows:
        for name in entry.models:
            if name not in models:
                yield Remark(line, f"models: no backend serves {name!r:.80}; there are {', '.join(sorted(models))}")


def doubts(rows: Iterable[Row], *, tenants: Collection[str], now: float) -> Iterator[Remark]:
    """What may be meant all the same; `tenants` are those that the configuration knows, `now` is epoch seconds."""
    for line, entry in rows:
        for name in entry.tenants:
            if name not in tenants:
                yield Remark(line, f"tenants: no [[key]] of the configuration has {name!r:.80}")
        if has_expired(entry, now):
            yield Remark(line, f"expires: {entry.expires} is over, so nobody gets this answer")
