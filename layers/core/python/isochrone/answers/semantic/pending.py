"""Questions whose answers are being generated now, so that a similar one within the merge window can follow.

One small document of the fleet table for each scope, since other processes must see it at once; the index of answers is
filled later. Without that table only this process knows. Lost writes cost a generation, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec

from isochrone.stores.protocols import FleetStore

# More similar questions at once than these are not looked at.
_AT_ONCE = 16
_SCOPES_HELD = 1_000


class Underway(NamedTuple):
    """One question, the fingerprint under which it is generated, and since when (epoch seconds)."""

    mark: str
    question: str
    since: float


class Pending:
    """`window`: for how many seconds a question may be followed."""

    def __init__(self, store: FleetStore | None, *, window: float) -> None:
        self._store = store
        self._window = window
        self._here: OrderedDict[str, list[Underway]] = OrderedDict()

    async def of(self, scope: str, *, now: float) -> list[Underway]:
        """Those of the scope that may be followed, the newest last. Raises StoreUnavailable."""
        underway, _ = await self._read(scope, now)
        return underway

    async def begin(self, scope: str, mark: str, question: str, *, now: float) -> None:
        """Say that this one is generated from now on. Raises StoreUnavailable."""
        underway, version = await self._read(scope, now)
        underway = [*(one for one in underway if one.mark != mark), Underway(mark, question, now)][-_AT_ONCE:]
        if self._store is None:
            self._here[scope] = underway
            self._here.move_to_end(scope)
            while len(self._here) > _SCOPES_HELD:
                self._here.popitem(last=False)
            return
        document = {"underway": msgspec.to_builtins(underway)}
        await self._store.write(_name(scope), document, version=version, expires=now + self._window)

    async def _read(self, scope: str, now: float) -> tuple[list[Underway], int]:
        if self._store is None:
            found, version = self._here.get(scope, []), 0
        else:
            document, version = await self._store.read(_name(scope), now=now)
            found = _underway_of(document)
        return [one for one in found if now - self._window < one.since <= now + self._window], version


def _name(scope: str) -> str:
    return f"similar/{scope}"


def _underway_of(document: dict[str, Any] | None) -> list[Underway]:
    try:
        return msgspec.convert(document["underway"], list[Underway]) if document else []
    except (KeyError, msgspec.ValidationError):
        return []
