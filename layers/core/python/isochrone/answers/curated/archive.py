"""The versions of the curated answers in the directory, each whole, and which of them counts.

    curated          current                 {"book": "00000008-ab12cd34"}
                     00000007-12ab34cd       {"version": 7, "parts": 1, "digest": ..., "entries": 120, ...}
                     00000008-ab12cd34       {"version": 8, ...}
    curated/00000008-ab12cd34   0000, 0001...   the entries as JSONL, cut into parts that fit into an item

A version is written part by part before `current` names it, so readers see all of an import or nothing. The directory
is replicated item by item: what does not have all its parts yet, or not the right ones, is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.sheet import to_jsonl
from isochrone.stores.protocols import DirectoryStore

PARTITION = "curated"
VERSIONS_KEPT = 10
_CURRENT = "current"
# A character takes 4 bytes at the most, also as JSON within JSON, so a part fits into an item.
_PART_CHARS = 100_000

_decode = msgspec.json.Decoder(Entry).decode


class Conflict(Exception):
    """Somebody else changed the curated answers meanwhile."""


class Version(Struct, frozen=True, kw_only=True):
    """What is known of one version without reading it; `written` is epoch seconds, `note` says what was done, `before`
    is the version that counted until then, 0 for none."""

    book: str
    version: int
    parts: int
    digest: str
    entries: int
    written: float
    note: str = ""
    before: int = 0


class Archive:
    """The versions in one directory store. Every method may raise StoreUnavailable."""

    def __init__(self, store: DirectoryStore) -> None:
        self._store = store

    async def current(self, *, consistent: bool = False) -> Version | None:
        """The version that counts; None while there is none, or while it has not come here yet."""
        return _current_of(await self._store.items(PARTITION, consistent=consistent))

    async def versions(self) -> list[Version]:
        """Those that are kept, oldest first."""
        return _versions_in(await self._store.items(PARTITION, consistent=True))

    async def entries(self, version: Version, *, consistent: bool = False) -> list[Entry] | None:
        """What a version holds, or None when not all of it is here."""
        parts = await self._store.items(_partition(version.book), consistent=consistent)
        content = "".join(part["entries"] for part in parts.values()).encode()
        if len(parts) != version.parts or sha256(content).hexdigest() != version.digest:
            return None
        return [_decode(line) for line in content.splitlines()]

    async def write(
        self, entries: Iterable[Entry], *, after: Version | None, now: float, token: str, note: str
    ) -> Version:
        """Make a new version that counts from now on; `after` is the one that it was made from, `token` a random text.
        Raises Conflict when that does not count any more."""
        lines = [to_jsonl([entry]) for entry in entries]
        content = b"".join(lines)
        parts = _parts_of(content.decode())
        number = 1 + max((version.version for version in await self.versions()), default=0)
        book = f"{number:08}-{token}"
        for place, part in enumerate(parts):
            await self._store.put(_partition(book), f"{place:04}", {"entries": part})
        digest = sha256(content).hexdigest()
        version = Version(
            book=book,
            version=number,
            parts=len(parts),
            digest=digest,
            entries=len(lines),
            written=now,
            note=note,
            before=after.version if after else 0,
        )
        await self._store.put(PARTITION, book, msgspec.to_builtins(version))
        await self._name(version, after)
        await self._drop_old(version)
        return version

    async def roll_back(self, to: Version, *, after: Version | None) -> None:
        """Let an older version count again. Raises Conflict."""
        await self._name(to, after)

    async def _name(self, version: Version, after: Version | None) -> None:
        if await self.current(consistent=True) != after:
            raise Conflict("somebody else changed the curated answers meanwhile; nothing was changed, try again")
        await self._store.put(PARTITION, _CURRENT, {"book": version.book})

    async def _drop_old(self, current: Version) -> None:
        for version in (await self.versions())[:-VERSIONS_KEPT]:
            if version.version in (current.version, current.before):
                continue
            for key in await self._store.items(_partition(version.book), consistent=True):
                await self._store.delete(_partition(version.book), key)
            await self._store.delete(PARTITION, version.book)


def _partition(book: str) -> str:
    return f"{PARTITION}/{book}"


def _current_of(items: dict[str, dict[str, Any]]) -> Version | None:
    named = items.get(_CURRENT, {}).get("book")
    return next((version for version in _versions_in(items) if version.book == named), None)


def _versions_in(items: dict[str, dict[str, Any]]) -> list[Version]:
    return [msgspec.convert(data, Version) for key, data in items.items() if key != _CURRENT]


def _parts_of(content: str) -> list[str]:
    return [content[start : start + _PART_CHARS] for start in range(0, len(content), _PART_CHARS)]
