"""An edge that stops leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isochrone.stores.memory import MemoryLedgerStore
from tests.faults.harness import backend, eventually, running_edge
from tests.upstream import Upstream


async def test_entries_that_a_flush_holds_while_the_edge_stops_are_written(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    busy = asyncio.Event()

    async def slowly(self: MemoryLedgerStore, entries: list[dict[str, Any]]) -> None:
        busy.set()
        await asyncio.sleep(0.2)
        written.extend(entry["request_id"] for entry in entries)

    monkeypatch.setattr(MemoryLedgerStore, "append", slowly)
    monkeypatch.setattr("isochrone.life._LEDGER_FLUSH_SECONDS", 0.01)
    async with running_edge(backend(near)) as edge:
        await edge.chat(headers={"x-request-id": "last"})
        await eventually(busy.is_set)
    assert written == ["last"]
