"""While the directory is throttled, slow, silent or gone, who is known goes on and nobody else comes in. What was taken
back meanwhile is refused as soon as the table is there again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from isochrone.admin import KeyAdmin
from isochrone.admission import key_directory
from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.client import Timeouts, connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.brown_out import TROUBLES, Way, way_to
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge, settings_with
from tests.upstream import Upstream

PATIENT = Timeouts(connect=10, total=60)
# A stranger is told within two seconds; the rest is for a busy machine.
TOLD_WITHIN = 10.0


class World:
    """An edge that reads its keys through `way`, and an operator who does not."""

    def __init__(self, edge: RunningEdge, way: Way, admin: KeyAdmin) -> None:
        self.edge = edge
        self.way = way
        self.admin = admin

    async def make(self) -> str:
        return (await self.admin.create({"tenant": "t"}, random=os.urandom(32), now=time.time())).key

    async def ask(self, key: str) -> Answer:
        async with asyncio.timeout(TOLD_WITHIN):
            return await self.edge.chat(headers={"authorization": f"Bearer {key}"})


@asynccontextmanager
async def world(ministack: str, upstream: Upstream, folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(ministack))
        facts = backend(upstream)
        own: dict[str, Any] = {
            "service": {"name": f"t{uuid4().hex[:12]}"},
            "state": {"kind": "dynamodb", "endpoint_url": way.url, "spool": str(folder)},
            "auth": {"required": True},
        }
        settings: Settings = settings_with(facts, **own)
        client = await stack.enter_async_context(
            connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={})
        )
        await create_tables(client, settings, lambda line: None)
        edge = await stack.enter_async_context(running_edge(facts, **own))
        store = DynamoDirectoryStore(client, table_name(settings, "directory"))
        try:
            yield World(edge, way, KeyAdmin(settings, store))
        finally:
            way.end()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_known_keys_work_and_strangers_are_refused_while_the_directory_is(
    near: Upstream, ministack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(key_directory, "RENEW_SECONDS", 0.0)  # every key is old as soon as it was read
    monkeypatch.setattr(key_directory, "STALE_SECONDS", 0.0)
    async with world(ministack, near, tmp_path) as running:
        known, unseen = await running.make(), await running.make()
        assert (await running.ask(known)).status == 200
        running.way.begin("directory", TROUBLES[trouble])
        answers = await asyncio.gather(*(running.ask(known) for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
        guessed = await running.ask("isk_" + "x" * 43)
        assert guessed.status in ((401, 503) if trouble == "throttled" else (503,))
        if trouble != "throttled":
            refused = await running.ask(unseen)
            assert refused.fields["error"]["code"] == "keys_unavailable"
            assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize("trouble", ["hanging", "gone"])
async def test_key_that_was_taken_back_in_an_outage_is_refused_when_it_is_over(
    near: Upstream, ministack: str, tmp_path: Path, trouble: str
) -> None:
    async with world(ministack, near, tmp_path) as running:
        key = await running.make()
        assert (await running.ask(key)).status == 200
        running.way.begin("directory", TROUBLES[trouble])
        (record,) = (await running.admin.listing()).records
        await running.admin.revoke(record.key.id, now=time.time())
        running.way.end()
        await eventually(lambda: _is_refused(running, key), within=20)


async def _is_refused(running: World, key: str) -> bool:
    await asyncio.sleep(0.1)
    return (await running.ask(key)).status == 401
