"""A bare reverse proxy on aiohttp, the peer that does nothing but pass on: `aiohttp_proxy.py PORT UPSTREAM_PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy

PER_CONNECTION = {"host", "content-length", "connection", "transfer-encoding", "keep-alive"}
SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)


def passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that mean the same on both sides."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in PER_CONNECTION)


async def forward(request: web.Request) -> web.StreamResponse:
    """One request there, its answer back."""
    url = request.app[UPSTREAM] + request.path_qs
    body = await request.read()
    session = request.app[SESSION]
    async with session.request(request.method, url, data=body, headers=passed_on(request.headers)) as answer:
        if answer.headers.get("Transfer-Encoding") != "chunked":
            return web.Response(status=answer.status, body=await answer.read(), headers=passed_on(answer.headers))
        reply = web.StreamResponse(status=answer.status, headers=passed_on(answer.headers))
        await reply.prepare(request)
        with suppress(ConnectionError):  # the client left
            async for data in answer.content.iter_any():
                await reply.write(data)
            await reply.write_eof()
        return reply


async def open_session(app: web.Application) -> AsyncIterator[None]:
    """A pooled client as long as the server runs."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve until SIGTERM."""
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    app = web.Application()
    app[UPSTREAM] = f"http://127.0.0.1:{upstream}"
    app.router.add_route("*", "/{path:.*}", forward)
    app.cleanup_ctx.append(open_session)
    web.run_app(app, host="127.0.0.1", port=port, backlog=4096, access_log=None, print=None)


if __name__ == "__main__":
    main()
