"""The requests of a day are counted in the table: over processes, and over their deaths."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import aiohttp

from isochrone.settings import load
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.contract.conftest import PATIENT
from tests.faults.test_ledger_survives import kill, serving
from tests.upstream import Upstream

CONFIG = """
[service]
name = "{name}"
[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"
spool = "{spool}"
[auth]
required = false
[routing]
probe_interval = 0
[[region]]
name = "us-east-1"
[[backend]]
name = "free"
base_url = "{upstream}"
models = {{ m = "ok" }}
requests_per_day = 5
"""


async def ask(url: str, session: aiohttp.ClientSession) -> int:
    asked = {"model": "m", "messages": [{"role": "user", "content": uuid4().hex}]}
    async with session.post(url + "/v1/chat/completions", json=asked) as response:
        return response.status


async def test_two_processes_and_one_that_starts_after_them_send_no_more_than_the_cap(
    ministack: str, tmp_path: Path
) -> None:
    async with Upstream() as upstream, aiohttp.ClientSession() as session:
        config = tmp_path / "isochrone.toml"
        config.write_text(
            CONFIG.format(
                name=f"t{uuid4().hex[:12]}", endpoint=ministack, spool=tmp_path / "spool", upstream=upstream.base_url
            )
        )
        async with connect("us-east-1", endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
            await create_tables(client, load(config), lambda line: None)
        async with serving(config) as one, serving(config) as other:
            statuses = await asyncio.gather(*(ask(edge.url, session) for edge in (one, other) for _ in range(8)))
            await kill(one)
        async with serving(config) as successor:
            statuses += [await ask(successor.url, session) for _ in range(2)]
    assert sorted(statuses) == [200] * 5 + [429] * 13
    assert len(upstream.requests) == 5
