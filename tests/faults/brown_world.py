"""Two edges that are processes over tables in trouble, and everybody who asks them: who may, who may not, and who may
not so often."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from msgspec import Struct

from isochrone import settings as config
from isochrone.admin import KeyAdmin
from isochrone.admission.keys import digest_of
from isochrone.admission.policies import directory as policies
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.brown_out import Way, way_to
from tests.faults.herd import text_of
from tests.faults.test_ledger_survives import serving
from tests.faults.test_similar_questions import by_question
from tests.upstream import Upstream

REGION = "us-east-1"
# Where days and months are counted.
MAIN_REGION = "eu-west-1"
EDGES = 2
# Of a key that asks far more often than that.
LIMIT = 40
_PATIENT = Timeouts(connect=10, total=60)
# A client of ours gives up after this, which counts as a failure.
_GIVES_UP_SECONDS = 20.0
_CONFIG = """
[service]
name = "{service}"
[state]
kind = "dynamodb"
endpoint_url = "{way}"
spool = "{spool}"
[[region]]
name = "us-east-1"
[[region]]
name = "eu-west-1"
default = true
[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{base_url}"
max_concurrency = 1000
models = {{ m = "m", another = "m" }}
[routing]
probe_interval = 0
[answers]
memory_ttl = 2
[auth]
policies = true
[limits]
local_share = {share}
[audit]
to = "firehose"
[[policy]]
id = "the-good"
effect = "allow"
principal = {{ tenant = ["good-*"] }}
[[tenant]]
name = "good-a"
requests_per_day = 100000
[[tenant]]
name = "good-b"
dollars_per_month = 100000.0
"""
_KEY = """
[[key]]
id = "{name}"
sha256 = "{digest}"
tenant = "{tenant}"
{more}
"""


class Told(Struct, kw_only=True):
    """What one request came to: `status` is 0 where no reply did. `begun` and `ended` are epoch seconds; `right` says
    that the text is the answer to what was asked."""

    who: str
    begun: float
    ended: float
    status: int = 0
    request_id: str = ""
    attempts: int = 0
    cache: str = ""
    right: bool = False
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class World:
    """The edges, and their operator, who reaches the tables by another way than they do."""

    def __init__(
        self, file: Path, way: Way, client: DynamoClient, session: aiohttp.ClientSession, upstream: Upstream
    ) -> None:
        settings = config.load(file)
        self.file = file
        self.way = way
        self.upstream = upstream
        self.urls: list[str] = []
        self.keys: dict[str, str] = {}
        self.told: list[Told] = []
        self.directory = DynamoDirectoryStore(client, config.table_name(settings, "directory"))
        self.ledger = DynamoLedgerStore(client, config.table_name(settings, "ledger"))
        self._admin = KeyAdmin(settings, self.directory)
        self._session = session

    # -- callers ---------------------------------------------------------------------------------------------------

    async def ask(self, who: str, question: str, *, edge: int, stream: bool = False) -> Told:
        """One answer for this caller, read to its end."""
        asked = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": question}]}
        told = Told(who=who, begun=time.time(), ended=0.0)
        try:
            url = self.urls[edge] + "/v1/chat/completions"
            async with self._session.post(url, json=asked, headers=self._shown_by(who)) as reply:
                body = await reply.read()
            told.status = reply.status
            told.request_id = reply.headers.get("x-request-id", "")
            told.cache = reply.headers.get("x-isochrone-cache", "")
            if told.cache != "coalesced":  # those are of whoever asked first
                told.attempts = int(reply.headers.get("x-isochrone-attempts", "0"))
            told.right = reply.status == 200 and text_of(body, stream=stream) == f"The answer to: {question}"
            told.error = "" if reply.status == 200 else body.decode()
        except (aiohttp.ClientError, TimeoutError) as error:
            told.error = repr(error)
        told.ended = time.time()
        self.told.append(told)
        return told

    async def ask_everywhere(self, who: Iterable[str], question: str) -> list[Told]:
        """The same of every edge."""
        asking = [self.ask(name, question, edge=edge) for name in who for edge in range(EDGES)]
        return await asyncio.gather(*asking)

    async def status(self) -> list[dict[str, Any]]:
        """GET /v1/status of every edge."""
        return [await self._status(url) for url in self.urls]

    async def _status(self, url: str) -> dict[str, Any]:
        async with self._session.get(url + "/v1/status", headers=self._shown_by("good-config")) as reply:
            status: dict[str, Any] = await reply.json()
            return status

    def _shown_by(self, who: str) -> dict[str, str]:
        key = "isk_" + uuid4().hex + "_" * 11 if who == "guessing" else self.keys.get(who)
        return {"authorization": f"Bearer {key}"} if key else {}

    # -- the operator ----------------------------------------------------------------------------------------------

    async def make_key(self, name: str, tenant: str, **more: Any) -> None:
        """In the directory."""
        made = await self._admin.create({"id": name, "tenant": tenant, **more}, random=os.urandom(32), now=time.time())
        self.keys[name] = made.key

    async def take_back(self, name: str) -> None:
        await self._admin.revoke(name, now=time.time())

    async def deny(self, *names: str) -> None:
        """By a policy in the directory."""
        principal = config.PolicyPrincipal(key=names)
        await policies.put(self.directory, config.Policy(id=f"no-{names[0]}", effect="deny", principal=principal))


OUTSIDERS = (
    "nobody",
    "guessing",
    "not-ours",
    "taken-back",
    "past-its-end",
    "past-its-end-config",
    "denied",
    "not-allowed",
    "other-models",
)
"""Whoever must never get an answer."""

OFTEN = ("good-config", "good-1", "good-2")
RARELY = tuple(f"rare-{number}" for number in range(6))
"""So rarely that what is known of their keys is old by then."""
GOOD = OFTEN + RARELY
"""Whoever may ask."""


@asynccontextmanager
async def world_of(cloud: str, folder: Path) -> AsyncIterator[World]:
    """Everybody is there, and no edge yet."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        upstream.scripts["m"] = by_question
        way = await stack.enter_async_context(way_to(cloud, REGION))
        file = folder / "isochrone.toml"
        file.write_text(_config(way, upstream, folder))
        connected = partial(connect, endpoint_url=cloud, timeouts=_PATIENT, environ={})
        client = await stack.enter_async_context(connected(REGION))
        async with connected(MAIN_REGION) as main:
            for each in (client, main):
                await create_tables(each, config.load(file), lambda line: None)
        session = await stack.enter_async_context(_session())
        world = World(file, way, client, session, upstream)
        await _people(world)
        yield world


@asynccontextmanager
async def edges_of(world: World) -> AsyncIterator[None]:
    """All edges are up. On the way out they have said all that they had to say, and ended."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(serving(world.file)) for _ in range(EDGES)]
        world.urls = [edge.url for edge in running]
        stack.callback(world.way.end)
        yield


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_GIVES_UP_SECONDS)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def _config(way: Way, upstream: Upstream, folder: Path) -> str:
    facts = {"service": f"t{uuid4().hex[:12]}", "way": way.url, "spool": folder / "spool"}
    over = _in_config("past-its-end-config", "good-a", "expires = 2020-01-01T00:00:00Z")
    own = _CONFIG.format(**facts, base_url=upstream.base_url, share=1 / EDGES)
    return own + _in_config("good-config", "good-a") + over


def _in_config(name: str, tenant: str, more: str = "") -> str:
    return _KEY.format(name=name, digest=digest_of(f"key of {name}"), tenant=tenant, more=more)


async def _people(world: World) -> None:
    """Whoever is there all the time. One of them is past its end by then."""
    world.keys |= {name: f"key of {name}" for name in ("good-config", "past-its-end-config", "not-ours")}
    ends = datetime.now(UTC) + timedelta(seconds=1)
    await world.make_key("past-its-end", "good-a", expires=ends)
    await world.make_key("good-1", "good-a")
    await world.make_key("good-2", "good-b")
    for name in RARELY:
        await world.make_key(name, "good-b")
    await world.make_key("taken-back", "good-a")
    await world.take_back("taken-back")
    await world.make_key("denied", "good-a")
    await world.deny("denied")
    await world.make_key("not-allowed", "others")
    await world.make_key("other-models", "good-a", models=["another"])
    await asyncio.sleep(max(0.0, ends.timestamp() - time.time()))
