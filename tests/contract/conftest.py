"""The stores under test, in memory and on MiniStack's DynamoDB, and an endpoint that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from isochrone.settings import Backend, Region, Service, Settings, table_name
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.fleet import DynamoFleetStore
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.memory import MemoryAnswerStore, MemoryDirectoryStore, MemoryFleetStore, MemoryLedgerStore
from isochrone.stores.protocols import AnswerStore, DirectoryStore, FleetStore, LedgerStore

# The emulator shares two cores with other tests; what is tested here is not its speed.
PATIENT = Timeouts(connect=10, total=60)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


@dataclass
class Stores:
    answers: AnswerStore
    fleet: FleetStore
    ledger: LedgerStore
    clock: Clock
    directory: DirectoryStore


@pytest.fixture
def settings() -> Settings:
    """Settings whose tables no other test uses."""
    return Settings(
        service=Service(name=f"t{uuid4().hex[:12]}"),
        region=(Region(name="eu-west-1"),),
        backend=(Backend(name="b", base_url="http://127.0.0.1:1/v1", models={"m": "m"}),),
    )


@pytest.fixture
async def client(ministack: str) -> AsyncIterator[DynamoClient]:
    async with connect("eu-west-1", endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        yield client


@pytest.fixture(params=["memory", "dynamodb"])
async def stores(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Stores]:
    clock = Clock()
    if request.param == "memory":
        yield Stores(
            MemoryAnswerStore(clock=clock),
            MemoryFleetStore(clock=clock),
            MemoryLedgerStore(),
            clock,
            MemoryDirectoryStore(),
        )
        return
    endpoint = request.getfixturevalue("ministack")
    async with connect("eu-west-1", endpoint_url=endpoint, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
        yield dynamo_stores(client, settings, clock)


def dynamo_stores(client: DynamoClient, settings: Settings, clock: Clock) -> Stores:
    return Stores(
        DynamoAnswerStore(client, table_name(settings, "answers"), clock=clock),
        DynamoFleetStore(client, table_name(settings, "fleet"), clock=clock),
        DynamoLedgerStore(client, table_name(settings, "ledger")),
        clock,
        DynamoDirectoryStore(client, table_name(settings, "directory")),
    )


Reaction = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Endpoint:
    """A server that reacts to one request after the other as `script` says; the last reaction repeats."""

    script: list[Reaction] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    server: TestServer | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return str(self.server.make_url("")).rstrip("/")

    @property
    def open_connections(self) -> int:
        """How many connections the server holds now."""
        server: Any = self.server
        return len(server.runner.server.connections)

    async def until_closed(self) -> None:
        """Wait until the server holds no connection; TimeoutError if one stays open."""
        with anyio.fail_after(10):
            while self.open_connections:  # noqa: ASYNC110 (the server tells only who asks)
                await anyio.sleep(0.01)

    async def react(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.requests.append(request)
        step = min(len(self.requests), len(self.script)) - 1
        return await self.script[step](request)

    @staticmethod
    def replying(status: int, body: bytes | str) -> Reaction:
        """Answer with this."""

        async def react(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body)

        return react

    @staticmethod
    def fault(code: str, status: int = 400) -> Reaction:
        """An error as DynamoDB words it."""
        error = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "as scripted"}
        return Endpoint.replying(status, json.dumps(error))

    @staticmethod
    async def hang(request: web.Request) -> web.StreamResponse:
        """Take the request and never answer it."""
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")

    @staticmethod
    async def hang_up(request: web.Request) -> web.StreamResponse:
        """Close the connection in place of an answer."""
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", endpoint.react)
    endpoint.server = TestServer(app, host="127.0.0.1", shutdown_timeout=0)
    async with endpoint.server:
        yield endpoint
