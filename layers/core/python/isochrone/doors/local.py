"""The HTTP door of the local edition: aiohttp's low-level server, one Request in, one Reply out, nothing buffered."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from isochrone.api.errors import ApiError, BadRequest, BodyTooLarge, BodyTooSlow
from isochrone.api.exchange import Reply, Request
from isochrone.edge import Edge

DRAIN_SECONDS = 30.0
_CLOSE_GRACE_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 75.0
# A body has this long and what it earns by coming; one write to a client that reads slowly must be through within that.
_READ_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 50_000
_WRITE_SECONDS = 30.0
# Below asyncio's high-water mark: written to an empty buffer, it never waits.
_FITS_AT_ONCE = 32 * 1024


class LocalDoor:
    """Serves one edge on one address."""

    def __init__(self, edge: Edge, *, max_body: int) -> None:
        self._edge = edge
        self._max_body = max_body
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises OSError when the address cannot be had."""
        server = web.Server(
            self._answer, handler_cancellation=True, keepalive_timeout=_KEEP_ALIVE_SECONDS, access_log=None
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_CLOSE_GRACE_SECONDS)
        await runner.setup()
        site = web.TCPSite(runner, host, port, backlog=4096)
        try:
            await site.start()
            await self._edge.start()
            _settle_memory()
            on_ready(f"http://{host}:{_port_of(runner)}")
            await _until_told_to_stop()
            await self._drain(site)
        finally:
            await runner.cleanup()
            await self._edge.close()

    async def _drain(self, site: web.TCPSite) -> None:
        """Take no new connection, let the requests in flight finish within DRAIN_SECONDS."""
        self._edge.ready = False
        await site.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()

    async def _answer(self, incoming: web.BaseRequest) -> web.StreamResponse:
        self._busy += 1
        self._idle.clear()
        try:
            return await self._exchange(incoming)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _exchange(self, incoming: web.BaseRequest) -> web.StreamResponse:
        try:
            body = await self._body_of(incoming)
        except ApiError as error:
            return self._hang_up_on(incoming, error)
        except TimeoutError:
            return self._hang_up_on(incoming, BodyTooSlow("The body came too slowly."))
        reply = await self._edge.handle(_request_of(incoming, body))
        if reply.stream is None:
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        return await _send_stream(incoming, reply)

    def _hang_up_on(self, incoming: web.BaseRequest, error: ApiError) -> web.Response:
        """No other request on a connection whose body was refused; what cannot be unpacked is not read on."""
        reply = self._edge.refuse(error)
        response = web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        response.force_close()
        if incoming.content.exception():
            incoming.content.feed_eof()
        return response

    async def _body_of(self, incoming: web.BaseRequest) -> bytes:
        """The whole body, however it is framed and packed.

        Raises BodyTooLarge before more than the limit was read, BadRequest for what cannot be unpacked, TimeoutError.
        """
        if (incoming.content_length or 0) > self._max_body:
            raise BodyTooLarge(f"The body is larger than {self._max_body} bytes.")
        if not incoming.can_read_body:
            return b""
        if incoming.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and incoming.transport:
            incoming.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if incoming.content.is_eof():  # most are small and all there, so that nobody has to watch the clock
                return await self._read(incoming.content, None)
            async with asyncio.timeout(_READ_SECONDS) as patience:
                return await self._read(incoming.content, patience)
        except (HttpProcessingError, web.RequestPayloadError) as error:
            raise BadRequest(f"The body cannot be read: {error}.", code="invalid_body") from None

    async def _read(self, content: StreamReader, patience: asyncio.Timeout | None) -> bytes:
        """What comes earns it more time."""
        body, ends_at = bytearray(), (patience and patience.when()) or 0.0
        while chunk := await content.readany():
            body += chunk
            if patience:
                patience.reschedule(ends_at + len(body) / _SLOWEST_BYTES_PER_SECOND)
            if len(body) > self._max_body:
                raise BodyTooLarge(f"The body is larger than {self._max_body} bytes.")
        return bytes(body)


def _request_of(incoming: web.BaseRequest, body: bytes) -> Request:
    headers: dict[str, str] = {}
    for name, value in incoming.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return Request(
        method=incoming.method,
        path=incoming.path,
        headers=headers,
        body=body,
        peer=incoming.remote or "",
        query=dict(incoming.query) if incoming.query_string else {},
    )


async def _send_stream(incoming: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Headers and first bytes leave together; a client that leaves closes the stream."""
    assert reply.stream is not None
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    try:
        await response.prepare(incoming)
        async for data in reply.stream:
            await _write(incoming, response, data)
        await response.write_eof()
    except ConnectionError:
        pass
    except TimeoutError:
        if incoming.transport:
            incoming.transport.abort()
    finally:
        await reply.stream.aclose()
    return response


async def _write(incoming: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    """Raises TimeoutError for a client that takes nothing: it holds a backend's place meanwhile."""
    transport = incoming.transport
    if transport and not transport.get_write_buffer_size() and len(data) < _FITS_AT_ONCE:
        await response.write(data)
        return
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(data)


async def _until_told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


def _port_of(runner: web.ServerRunner) -> Any:
    return runner.addresses[0][1]


def _settle_memory() -> None:
    """What was loaded so far stays; looking through it again at every collection would only cost time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
