"""An edge and a pool for the console's tests: scripted, with switches, and they note what they were asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

ANSWER = (
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n',
    'data: {"choices":[{"delta":{"content":"<b>Ça va</b>"}}]}\n\n'.encode(),
    'data: {"choices":[{"delta":{"content":", 海."}}]}\n\n'.encode(),
    b"data: [DONE]\n\n",
)


def seen(name: str = "pool-eu", **facts: Any) -> dict[str, Any]:
    """One backend of a status."""
    usual = {"kind": "pool", "region": "eu-west-1", "location": [53.35, -6.26], "models": ["m"], "standing": "healthy"}
    load = {"in_flight": 0, "waiting": 0, "rtt_ms": 80.0, "rtt_from": "probe", "why": None, "first_token_ms": None}
    return {"name": name, **usual, **load, **facts}


def attempt(number: int, **facts: Any) -> dict[str, Any]:
    """One entry of a ledger; a higher number is newer."""
    usual = {"model": "m", "backend": "pool-eu", "attempt": 1, "outcome": "ok", "input_tokens": 10, "output_tokens": 5}
    figures = {"cost": 0.5, "started_at": 1000.0 + number, "first_token_ms": 40.0, "total_ms": 90.0, "tenant": "t"}
    return {"request_id": f"request-{number}", **usual, **figures, **facts}


class FakeEdge:
    """`healthy` False lets every question wait; `odd` answers what no edge says; `dies` breaks answers off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.healthy, self.odd, self.dies = True, False, False
        self.ready = True
        self.backends = [seen()]
        self.counters: dict[str, int] = {}
        self.entries: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.prompts: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Serve, on the port of before if there was one."""
        application = web.Application()
        application.router.add_get("/v1/status", self._status)
        application.router.add_get("/v1/ledger", self._ledger)
        application.router.add_get("/health", self._health)
        application.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """As if killed."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _status(self, _: web.Request) -> web.Response:
        counters = {"status_200": 99, **self.counters}
        status = {"edge": self.name, "version": "1", "ready": self.ready, "counters": counters}
        return await self._tell("status", {**status, "backends": self.backends})

    async def _ledger(self, request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        return await self._tell(f"ledger {limit}", {"object": "list", "data": self.entries[::-1][:limit]})

    async def _health(self, _: web.Request) -> web.Response:
        return await self._tell("health", {"status": "ok"})

    async def _tell(self, what: str, body: dict[str, Any]) -> web.Response:
        self.asked.append(what)
        while not self.healthy:  # noqa: ASYNC110 - a switch that any test may turn
            await asyncio.sleep(0.01)
        return web.json_response({"data": 1} if self.odd else body)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.prompts.append((headers, json.loads(await request.read())))
        if self.odd:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        own = {"x-isochrone-backend": "pool-eu", "x-isochrone-reason": "near", "x-private": "no"}
        response = web.StreamResponse(headers={**own, "content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in ANSWER[:2] if self.dies else ANSWER:
            await response.write(piece)
        if self.dies and request.transport:
            request.transport.abort()
        return response


@asynccontextmanager
async def fakes(*names: str) -> AsyncIterator[list[FakeEdge]]:
    """Running fakes, stopped at the end."""
    all_of_them = [FakeEdge(name) for name in names]
    try:
        for fake in all_of_them:
            await fake.start()
        yield all_of_them
    finally:
        for fake in all_of_them:
            await fake.stop()
