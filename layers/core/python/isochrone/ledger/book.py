"""The ledger: one entry per attempt, written in the background through a durable buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from isochrone.durable.outbox import Outbox
from isochrone.durable.spool import NoSpool
from isochrone.ledger.entry import Begun, Entry
from isochrone.stores.protocols import LedgerStore


class Book(Outbox[Begun, Entry]):
    """Entries on their way to the ledger's store."""

    def __init__(self, store: LedgerStore, spool: NoSpool[Begun, Entry] | None = None) -> None:
        super().__init__(self._append, spool or NoSpool(), what="ledger", name=_name)
        self._store = store

    async def _append(self, entries: Sequence[Entry]) -> None:
        await self._store.append([structs.asdict(entry) for entry in entries])

    async def recent(self, tenant: str, *, limit: int) -> list[dict[str, Any]]:
        """The tenant's newest entries, newest first. Raises StoreUnavailable."""
        await self._hand_over_buffer()
        return await self._store.recent(tenant, limit=limit)


def _name(entry: Entry) -> str:
    return f"request {entry.request_id}, attempt {entry.attempt},"
