"""What becomes of curated answers when some are brought in, changed or taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import structs

from isochrone.answers.curated.entry import Entry


class Edition(NamedTuple):
    """The entries after a change, and what it did to them: ids, each in one of the lists."""

    entries: list[Entry]
    new: list[str]
    changed: list[str]
    same: list[str]
    gone: list[str]

    @property
    def changes_anything(self) -> bool:
        return bool(self.new or self.changed or self.gone)


def brought_in(before: Iterable[Entry], after: Sequence[Entry], *, replace: bool) -> Edition:
    """`after` over what was there `before`, or in its place. An entry that says something else counts one up."""
    known = {entry.id: entry for entry in before}
    edition = Edition([], [], [], [], [])
    merged = {entry.id: _numbered(entry, known, edition) for entry in after}
    left = [entry for entry in known.values() if entry.id not in merged]
    if replace:
        edition.gone.extend(entry.id for entry in left)
    entries = (merged if replace else {entry.id: entry for entry in left} | merged).values()
    return edition._replace(entries=sorted(entries, key=lambda entry: entry.id))


def taken_out(before: Iterable[Entry], ids: Iterable[str]) -> Edition:
    """Without those of `ids`."""
    unwanted = set(ids)
    entries = list(before)
    kept = [entry for entry in entries if entry.id not in unwanted]
    gone = [entry.id for entry in entries if entry.id in unwanted]
    return Edition(kept, [], [], [entry.id for entry in kept], gone)


def _numbered(entry: Entry, known: dict[str, Entry], edition: Edition) -> Entry:
    old = known.get(entry.id)
    if old is None:
        edition.new.append(entry.id)
        return structs.replace(entry, version=1)
    if old.says_the_same_as(entry):
        edition.same.append(entry.id)
        return old
    edition.changed.append(entry.id)
    return structs.replace(entry, version=old.version + 1)
