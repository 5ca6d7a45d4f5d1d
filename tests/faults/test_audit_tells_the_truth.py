"""What the audit log says of requests that ended otherwise than usual, at a running edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isochrone.audit.entry import AuditEntry
from isochrone.audit.reading import entries_of, files_in, lines_of
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.faults.test_flights import asked, slowly
from tests.upstream import USAGE, Exchange, Upstream, words


@asynccontextmanager
async def audited(folder: Path, *backends: dict[str, Any], **sections: Any) -> AsyncIterator[RunningEdge]:
    state = {"spool": str(folder / "spool")}
    audit = {"to": "file", "folder": str(folder / "audit")}
    async with running_edge(*backends, state=state, audit=audit, **sections) as edge:
        yield edge


async def entries(edge: RunningEdge, folder: Path) -> list[AuditEntry]:
    await edge.settled()
    found = entries_of(lines_of(files_in([folder / "audit"])))
    return [entry for entry in found if isinstance(entry, AuditEntry)]


async def breaks_off(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send(*words()[:4])
    await exchange.backend.gate.wait()
    exchange.hang_up()


async def test_all_who_share_a_stream_that_breaks_are_told_as_broken(near: Upstream, tmp_path: Path) -> None:
    near.scripts["breaks-off"] = breaks_off
    async with audited(tmp_path, backend(near, "breaks-off")) as edge:
        answers = await asked(edge, near, *[{"stream": True}] * 3)
        found = await entries(edge, tmp_path)
    assert all(b"[DONE]" not in answer.body for answer in answers)
    assert [entry.outcome for entry in found] == ["broken"] * 3


async def test_stream_whose_time_is_over_is_told_as_broken(near: Upstream, tmp_path: Path) -> None:
    near.scripts["slowly"] = slowly
    deadlines = {"connect": 1.0, "first_token": 5, "stall": 5, "total": 10.0}
    async with audited(tmp_path, backend(near, "slowly"), deadlines=deadlines) as edge:
        short = {"x-isochrone-timeout": "0.3"}
        await asyncio.gather(*(edge.chat(stream=True, headers=short) for _ in range(2)))
        found = await entries(edge, tmp_path)
    assert [entry.outcome for entry in found] == ["broken"] * 2


async def test_tokens_are_told_of_the_one_who_had_them_generated(near: Upstream, tmp_path: Path) -> None:
    near.scripts["slowly"] = slowly
    async with audited(tmp_path, backend(near, "slowly")) as edge:
        await asked(edge, near, *[{"stream": True}] * 3)
        found = await entries(edge, tmp_path)
    assert sorted(entry.output_tokens for entry in found) == [0, 0, USAGE["completion_tokens"]]
    assert [entry.outcome for entry in found] == ["complete"] * 3
