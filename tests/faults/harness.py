"""A real edge on a free port, in this process, with scripted upstreams behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest.mock import patch

import aiohttp
import msgspec
from msgspec import Struct

from isochrone.doors import local
from isochrone.edge import Edge
from isochrone.settings import Settings
from isochrone.wiring import build_edge
from tests.upstream import Upstream

# An edge stands in the first region unless told otherwise, so that a plan without a client's place has this order.
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
START_SECONDS = 10.0
ENVIRON = {"POOL_KEY": "pool-secret", "LONG_KEY": "sk-" + "canaryupstream4c1d" * 3}


class Answer(Struct, kw_only=True):
    """A reply that was read to its end; `whole` is False when the connection broke first."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the body."""
        error: dict[str, Any] = self.fields["error"]
        return error

    @property
    def events(self) -> list[bytes]:
        """The data of every event of a stream, comments left out."""
        text = self.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf")
        return [block.removeprefix(b"data: ") for block in text.split(b"\n\n") if block.startswith(b"data:")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events that are JSON."""
        return [json.loads(data) for data in self.events if data != b"[DONE]"]

    def text(self, name: str = "content") -> str:
        """What the stream or the body says."""
        if "text/event-stream" not in self.headers["content-type"]:
            return self.fields["choices"][0]["message"].get(name) or ""
        deltas = [choice.get("delta", {}) for chunk in self.chunks for choice in chunk.get("choices", ())]
        return "".join(delta.get(name) or "" for delta in deltas)


class RunningEdge:
    """The edge, its address, and a client for it."""

    def __init__(self, edge: Edge, url: str, session: aiohttp.ClientSession) -> None:
        self.edge = edge
        self.url = url
        self.session = session

    async def chat(
        self, *, headers: dict[str, str] | None = None, on_first: Callable[[], None] | None = None, **fields: Any
    ) -> Answer:
        """One chat completion for the model "m"; `on_first` is called when its first bytes are there."""
        asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How far?"}], **fields}
        return await self.request("POST", "/v1/chat/completions", json=asked, headers=headers, on_first=on_first)

    async def request(
        self, method: str, path: str, *, on_first: Callable[[], None] | None = None, **options: Any
    ) -> Answer:
        """Any request, its reply read to the end."""
        async with self.session.request(method, self.url + path, **options) as response:
            body, whole = bytearray(), True
            try:
                async for piece in response.content.iter_any():
                    body += piece
                    if on_first:
                        on_first()
            except aiohttp.ClientPayloadError:
                whole = False
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(status=response.status, headers=headers, body=bytes(body), whole=whole)

    async def status(self) -> dict[str, Any]:
        """GET /v1/status."""
        return (await self.request("GET", "/v1/status")).fields

    async def ledger(self) -> list[dict[str, Any]]:
        """GET /v1/ledger, oldest first."""
        entries: list[dict[str, Any]] = (await self.request("GET", "/v1/ledger")).fields["data"]
        return entries[::-1]

    async def settled(self) -> None:
        """Wait until the background has done what replies did not wait for."""
        await self.edge.flush()


async def eventually(condition: Callable[[], bool | Awaitable[bool]], *, within: float = 1.0) -> None:
    """Wait until it is so; TimeoutError when it is not within so many seconds."""
    async with asyncio.timeout(within):
        while not (met if isinstance(met := condition(), bool) else await met):  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)


def backend(upstream: Upstream, script: str = "ok", *, place: int = 0, **more: Any) -> dict[str, Any]:
    """A [[backend]] that serves "m" as the script says; `place` 0 is the nearest to the edge, then 1 and 2."""
    facts = {"name": f"pool-{place}", "region": REGIONS[place], "base_url": upstream.base_url, "models": {"m": script}}
    return {**facts, **more}


def settings_with(*backends: dict[str, Any], **sections: Any) -> Settings:
    """A configuration for tests: no probes, no keys, quick deadlines unless `sections` says otherwise."""
    document = {
        "region": [{"name": name} for name in REGIONS],
        "backend": list(backends),
        "routing": {"probe_interval": 0},
        "auth": {"required": False},
        "deadlines": {"connect": 1.0, "first_token": 0.4, "stall": 0.4, "total": 10.0},
        **sections,
    }
    return msgspec.convert(document, Settings)


@asynccontextmanager
async def running_edge(
    *backends: dict[str, Any], region: str = REGIONS[0], **sections: Any
) -> AsyncIterator[RunningEdge]:
    """An edge of this region over these backends, drained and closed on the way out."""
    settings = settings_with(*backends, **sections)
    edge = build_edge(settings, region=region, environ=ENVIRON, resident=True)
    addresses: asyncio.Queue[str] = asyncio.Queue()
    door = local.LocalDoor(edge, settings.limits)
    # What the door does to the collector is for a process that only serves; this one also runs other tests.
    with patch.object(local, "_settle_memory"):
        serving = asyncio.create_task(door.serve("127.0.0.1", 0, on_ready=addresses.put_nowait))
        async with asyncio.timeout(START_SECONDS):
            url = await addresses.get()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield RunningEdge(edge, url, session)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
