"""A way to DynamoDB on which one table is in trouble: throttled, slow, hanging or gone. A stream to an audit log may
be, too: what arrives there is kept here."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

SLOW_SECONDS = 2.0
EVERYTHING = "everything"
FAR = "far-"

Trouble = Callable[["Way", web.Request, str], Awaitable[web.Response | None]]


def _fault(code: str) -> web.Response:
    error = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "as scripted"}
    return web.json_response(error, status=400)


async def throttled(way: Way, _: web.Request, table: str) -> web.Response | None:
    """Every other call is turned away."""
    return _fault("ProvisionedThroughputExceededException") if way.calls[table] % 2 else None


async def slow(way: Way, _: web.Request, table: str) -> web.Response | None:
    """Every call is answered, after two seconds."""
    await asyncio.sleep(SLOW_SECONDS)
    return None


async def hanging(way: Way, request: web.Request, table: str) -> web.Response | None:
    """No call is ever answered."""
    await way.is_over.wait()
    return _fault("InternalServerError")


async def gone(way: Way, request: web.Request, table: str) -> web.Response | None:
    """There is no such table."""
    return _fault("ResourceNotFoundException")


TROUBLES: dict[str, Trouble] = {"throttled": throttled, "slow": slow, "hanging": hanging, "gone": gone}


class Way:
    """`trouble` is what becomes of calls to the table whose name ends in `table`, or to all; others go through. Tables
    of another region than `home`, if that is said, have FAR before their names. `calls` and `reads` count them by
    table, `met` those that met the trouble; `delivered` are the records that streams took."""

    def __init__(self, endpoint: str, session: aiohttp.ClientSession, home: str) -> None:
        self.url = ""
        self.calls: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.met = 0
        self.delivered: list[bytes] = []
        self.is_over = asyncio.Event()
        self._endpoint = endpoint
        self._session = session
        self._home = home
        self._table = ""
        self._trouble: Trouble | None = None

    def begin(self, table: str, trouble: Trouble) -> None:
        """From now on the table is in trouble."""
        self._table, self._trouble = table, trouble
        self.is_over.clear()

    def end(self) -> None:
        """All is well again."""
        self._trouble = None
        self.is_over.set()

    async def carry(self, request: web.Request) -> web.Response:
        """One call, to the emulator and back, or as far as it comes."""
        body = await request.read()
        asked = json.loads(body)
        table = (
            self._far(request) + str(asked.get("TableName") or asked.get("DeliveryStreamName", "")).rpartition("-")[2]
        )
        self.calls[table] += 1
        self.reads[table] += request.headers["x-amz-target"].endswith("GetItem")
        if self._trouble and self._table in (table, EVERYTHING):
            self.met += 1
            if reply := await self._trouble(self, request, table):
                return reply
        if "DeliveryStreamName" in asked:
            return self._deliver(asked["Records"])
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._session.post(self._endpoint, data=body, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    def _far(self, request: web.Request) -> str:
        """By the scope of its signature."""
        return "" if not self._home or f"/{self._home}/" in request.headers["authorization"] else FAR

    def _deliver(self, records: list[dict[str, str]]) -> web.Response:
        self.delivered += [base64.b64decode(record["Data"]) for record in records]
        return web.json_response({"FailedPutCount": 0, "RequestResponses": [{"RecordId": "r"} for _ in records]})


@asynccontextmanager
async def way_to(endpoint: str, home: str = "") -> AsyncIterator[Way]:
    """The way to an emulator, closed on the way out."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        way = Way(endpoint, session, home)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", way.carry)
        server: Any = TestServer(app, host="127.0.0.1", shutdown_timeout=0)
        async with server:
            way.url = str(server.make_url("")).rstrip("/")
            try:
                yield way
            finally:
                way.end()
