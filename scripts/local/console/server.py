"""The console's own small web server: the page, its pictures as server-sent events, and the "try it" box.

It serves people at this machine and nobody else: loopback only, and only under a loopback name, so that no page from
elsewhere can reach it through a name of its own that it points here (DNS rebinding). Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from local.console import asking
from local.console.watch import Watch

_PAGE = Path(__file__).with_name("page")
_FILES = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
    "/world.svg": ("world.svg", "image/svg+xml"),
}
_MAX_BODY = 65_536
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Console:
    """The handlers; `hosts` are the names under which it may be asked, each with its port."""

    def __init__(self, watch: Watch, session: aiohttp.ClientSession, *, hosts: frozenset[str]) -> None:
        self._watch = watch
        self._session = session
        self._hosts = hosts

    def application(self) -> web.Application:
        """Everything wired."""
        application = web.Application(middlewares=[self._guard], client_max_size=_MAX_BODY)
        application.on_response_prepare.append(_add_headers)
        for path, (name, kind) in _FILES.items():
            application.router.add_get(path, _file(_PAGE / name, kind))
        application.router.add_get("/snapshot", self.show_snapshot)
        application.router.add_get("/events", self.send_events)
        application.router.add_post("/ask", self.ask)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host.lower() not in self._hosts:
            return _refusal(421, "This console answers only under its own address on this machine.")
        if request.headers.get("origin", f"http://{request.host}").lower() != f"http://{request.host}".lower():
            return _refusal(403, "This console answers only its own page.")
        return await handler(request)

    async def show_snapshot(self, _: web.Request) -> web.Response:
        """The picture once, as JSON."""
        return web.Response(body=await self._watch.picture(), content_type="application/json")

    async def send_events(self, request: web.Request) -> web.StreamResponse:
        """A picture about once a second, until the browser goes."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        while True:
            await response.write(b"data: " + await self._watch.picture() + b"\n\n")
            await self._watch.pause()

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """The "try it" box."""
        if request.content_type != "application/json":
            return _refusal(415, "Send application/json.")
        try:
            wish = asking.wish_of(await request.read(), self._watch.edges)
        except asking.Refused as error:
            return _refusal(400, str(error))
        return await asking.answer(wish, self._watch.edges[wish.edge], self._session, request)


def _file(path: Path, kind: str) -> Handler:
    body = path.read_bytes()

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return show


def _refusal(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "code": None, "param": None}
    return web.json_response({"error": error}, status=status)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


@asynccontextmanager
async def serving(port: int, edges: Mapping[str, str], pools: Mapping[str, str]) -> AsyncIterator[int]:
    """Serve on 127.0.0.1:`port` (0: any that is free) inside the block, which gets the port. Raises OSError."""
    listener = socket.create_server(("127.0.0.1", port))
    own_port = int(listener.getsockname()[1])
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        hosts = frozenset(f"{name}:{own_port}" for name in ("127.0.0.1", "localhost"))
        application = Console(Watch(edges, pools, session), session, hosts=hosts).application()
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield own_port
        finally:
            await runner.cleanup()
