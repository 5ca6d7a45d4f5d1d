"""Counting, warming and its commands over the real tables."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from isochrone.admin import KeyAdmin
from isochrone.answers.codec import from_bytes, to_bytes
from isochrone.ledger.demand import Demand
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.rollups import DynamoRollupStore
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.harness import backend, running_edge, settings_with
from tests.faults.test_cache import asked_and_settled
from tests.lambda_.harness import ROOT
from tests.upstream import Upstream

REGION, TTL = "eu-west-1", 600
PRICE = {"input": 1.0, "output": 2.0}
CONFIG = """
[service]
name = "{name}"

[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"

[[region]]
name = "eu-west-1"

[[backend]]
name = "pool-0"
region = "eu-west-1"
base_url = "{url}"
models = {{ "m" = "ok" }}
price = {{ input = 1.0, output = 2.0 }}

[answers]
warm = true
ttl = 600

[auth]
required = false

[routing]
probe_interval = 0
"""
INVOKED = """
import json

class Context:
    def get_remaining_time_in_millis(self):
        return 60_000

from handler import handler
print(json.dumps(handler({}, Context())))
"""


class Known(NamedTuple):
    """An answer in the tables that expires soon and is often asked for, by this tenant."""

    tenant: str
    mark: str
    config: Path
    upstream: Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture(params=["anonymous", "with a key of the directory"])
async def known(
    request: Any, ministack: str, client: DynamoClient, settings: Any, tmp_path: Path, upstream: Upstream
) -> Known:
    name = settings.service.name
    config = tmp_path / "isochrone.toml"
    has_key = request.param != "anonymous"
    text = CONFIG.replace("required = false", f"required = {str(has_key).lower()}")
    config.write_text(text.format(name=name, endpoint=ministack, url=upstream.base_url))
    sections: dict[str, Any] = {
        "service": {"name": name},
        "state": {"kind": "dynamodb", "endpoint_url": ministack},
        "answers": {"warm": True, "ttl": TTL},
        "auth": {"required": has_key},
    }
    facts = backend(upstream, price=PRICE, region=REGION)
    await create_tables(client, settings_with(facts, **sections), lambda line: None)
    tenant, headers = "anonymous", {"cookie": "canary", "x-api-key": "canary"}
    if has_key:
        admin = KeyAdmin(settings, DynamoDirectoryStore(client, f"{name}-directory"))
        new = await admin.create({"tenant": "team-d"}, random=os.urandom(32), now=time.time())
        tenant, headers = "team-d", headers | {"authorization": f"Bearer {new.key}"}
    async with running_edge(facts, region=REGION, **sections) as edge:
        await asked_and_settled(edge, headers=headers)
        mark = (await edge.chat(headers=headers)).headers["x-isochrone-answer"]
    await age(DynamoAnswerStore(client, f"{name}-answers"), mark)
    demand = Demand(DynamoRollupStore(client, f"{name}-ledger"), wanted=True)
    for _ in range(3000):
        demand.asked(tenant, mark, time.time())
    await demand.flush()
    return Known(tenant, mark, config, upstream)


async def age(store: DynamoAnswerStore, mark: str) -> None:
    """As if it had been made long ago."""
    now = time.time()
    value = await store.get(mark, now=now, consistent=True)
    answer = from_bytes(value or b"")
    assert answer
    older = replace(answer, created=now - 500, fresh_until=now + 100)
    await store.delete(mark)
    await store.put(mark, to_bytes(older), tenant="anonymous", expires=now + 100, fresh_until=now + 100)


async def said(*words: str, **environ: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of a command, and the JSON that it prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=pipe, stderr=pipe, env={**os.environ, **environ}
    )
    output, errors = await process.communicate()
    assert errors.decode() == ""
    return process.returncode or 0, [json.loads(line) for line in output.splitlines()]


async def test_commands_see_what_edges_counted_and_make_what_is_due(known: Known) -> None:
    config = ["--config", str(known.config), "--json"]
    _, [stats] = await said("-m", "isochrone.cli", "answers", "stats", *config)
    assert (stats[known.tenant]["hits"], stats[known.tenant]["requests"]) == (1, 2)
    _, [planned] = await said("-m", "isochrone.cli", "warm", "--plan", *config)
    (line,) = planned["plan"]
    assert (line["answer"], line["question"], line["kind"]) == (known.mark, "How far?", "rising")
    assert len(known.upstream.requests) == 1
    status, [run] = await said("-m", "isochrone.cli", "warm", "--apply", *config)
    assert (status, run["state"], [one["outcome"] for one in run["made"]]) == (0, "done", ["made"])
    assert len(known.upstream.requests) == 2
    _, [after] = await said("-m", "isochrone.cli", "warm", "--plan", *config)
    assert (after["plan"], after["spent_today"]) == ([], pytest.approx(run["spent"]))


async def test_the_function_makes_what_is_due(known: Known) -> None:
    path = os.pathsep.join([str(ROOT / "functions/warmer"), str(ROOT / "layers/core/python")])
    status, [run] = await said(
        "-W", "error", "-c", INVOKED, PYTHONPATH=path, ISOCHRONE_CONFIG=str(known.config), AWS_REGION=REGION
    )
    assert (status, run["state"], run["due"], run["made"]) == (0, "done", 1, 1)
    assert run["dollars"] > 0
    assert len(known.upstream.requests) == 2
    sent = known.upstream.requests[1]
    assert (sent.header("authorization"), "canary" in f"{sent.headers} {sent.body!r}") == ([], False)
