"""What the audit log says of requests that ended otherwise than usual, at a running edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isochrone.audit.entry import AuditEntry
from isochrone.audit.reading import entries_of, files_in, lines_of
from tests.faults.harness import RunningEdge, backend, eventually, running_edge
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


@pytest.mark.parametrize("cache", ["", "no-store"])
async def test_tokens_that_somebody_heard_who_left_are_told(near: Upstream, tmp_path: Path, cache: str) -> None:
    near.scripts["slowly"] = slowly
    deadlines = {"connect": 1.0, "first_token": 5, "stall": 5, "total": 10.0}
    async with audited(tmp_path, backend(near, "slowly"), deadlines=deadlines) as edge:
        heard = asyncio.Event()
        headers = {"x-isochrone-cache": cache}
        leaving = asyncio.create_task(edge.chat(stream=True, headers=headers, on_first=heard.set))
        await heard.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        async def is_booked() -> bool:
            return bool(await edge.ledger())

        await eventually(is_booked, within=5)
        (attempt,) = await edge.ledger()
        (entry,) = [entry for entry in await entries(edge, tmp_path) if entry.method == "POST"]
    assert (entry.outcome, attempt["outcome"]) == ("left", "cancelled")
    assert (entry.input_tokens, entry.output_tokens) == (attempt["input_tokens"], attempt["output_tokens"])
    assert entry.output_tokens > 0


async def test_who_leaves_before_the_reply_is_told_with_what_was_used_for_it(near: Upstream, tmp_path: Path) -> None:
    near.scripts["slowly"] = slowly
    deadlines = {"connect": 1.0, "first_token": 5, "stall": 5, "total": 10.0}
    async with audited(tmp_path, backend(near, "slowly", assemble=True), deadlines=deadlines) as edge:
        leaving = asyncio.create_task(edge.chat())
        await eventually(lambda: bool(near.requests))
        staying = asyncio.create_task(edge.chat(headers={"x-request-id": "stays"}))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.sleep(0.1)  # until the edge has noticed
        near.gate.set()
        assert (await staying).status == 200
        found = {entry.outcome: entry for entry in await entries(edge, tmp_path)}
    assert found.keys() == {"left", "complete"}
    assert found["left"].output_tokens == USAGE["completion_tokens"]
    assert found["complete"].output_tokens == 0
