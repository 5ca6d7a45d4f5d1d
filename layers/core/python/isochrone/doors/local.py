"""The HTTP door of the local edition: aiohttp's low-level server, one Request in, one Reply out, nothing buffered."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from isochrone.api.errors import ApiError, BadRequest, BodyTooLarge, BodyTooSlow, Saturated
from isochrone.api.exchange import ByteStream, Reply, Request
from isochrone.api.head import target_of
from isochrone.doors.connections import SERVER, Connection, Connections
from isochrone.edge import Edge
from isochrone.settings import Limits

DRAIN_SECONDS = 30.0
_CLOSE_GRACE_SECONDS = 2.0
_KEEP_ALIVE_SECONDS = 75.0
# A body has this long and what it earns by coming; one write to a client that reads slowly must be through within that.
_READ_SECONDS = 30.0
_SLOWEST_BYTES_PER_SECOND = 50_000
_WRITE_SECONDS = 30.0
# All bodies that are still coming, of callers whom nobody knows yet: each may be small, and many of them are not.
_ROOM_FOR_BODIES = 256 * 1024 * 1024
_VERSIONS = (HttpVersion10, HttpVersion11)
# Below asyncio's high-water mark: written to an empty buffer, it never waits.
_FITS_AT_ONCE = 32 * 1024


class LocalDoor:
    """Serves one edge on one address."""

    def __init__(self, edge: Edge, limits: Limits) -> None:
        self._edge = edge
        self._limits = limits
        self._coming = 0
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises OSError when the address cannot be had."""
        server = self._connections()
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

    def _connections(self) -> Connections:
        return Connections(
            self._answer,
            refuse=self._edge.refuse,
            most=self._limits.connections,
            most_headers=self._limits.headers,
            keep_alive=_KEEP_ALIVE_SECONDS,
        )

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
        connection = incoming.protocol
        assert isinstance(connection, Connection)
        connection.stop_clock()
        request = _request_of(incoming)
        if request.flaw is None:
            await self._read_body(incoming, request)
        with connection.held():
            reply = await self._edge.handle(request)
            return await _send(incoming, reply, is_last=request.flaw is not None)

    async def _read_body(self, incoming: web.BaseRequest, request: Request) -> None:
        try:
            request.body = await self._body_of(incoming)
        except ApiError as error:
            request.flaw = error
        except TimeoutError:
            request.flaw = BodyTooSlow("The body came too slowly.")

    async def _body_of(self, incoming: web.BaseRequest) -> bytes:
        """The whole body, however it is framed, still packed as it came.

        Raises BodyTooLarge before more than the limit was read, BadRequest for broken framing, TimeoutError.
        """
        if (incoming.content_length or 0) > self._limits.body_bytes:
            raise self._too_large()
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
        try:
            while chunk := await content.readany():
                body += chunk
                self._coming += len(chunk)
                self._check_room(len(body))
                if patience:
                    patience.reschedule(ends_at + len(body) / _SLOWEST_BYTES_PER_SECOND)
        finally:
            self._coming -= len(body)
        return bytes(body)

    def _check_room(self, size: int) -> None:
        """For a body of which so much has come. Raises BodyTooLarge, Saturated."""
        if size > self._limits.body_bytes:
            raise self._too_large()
        if self._coming > max(_ROOM_FOR_BODIES, self._limits.body_bytes):
            raise Saturated("Too many bodies are coming at once.", code="too_many_bodies", retry_after=1)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limits.body_bytes} bytes.")


def _request_of(incoming: web.BaseRequest) -> Request:
    """What the head says; the body is still on its way."""
    headers: dict[str, str] = {}
    for name, value in incoming.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    request = Request(method=incoming.method, path="", headers=headers, body=b"", peer=incoming.remote or "")
    try:
        _check_framing(incoming)
        request.path, query = target_of(incoming.raw_path)
        request.query = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    except (ApiError, ValueError) as error:
        request.flaw = error if isinstance(error, ApiError) else BadRequest("The query cannot be read.")
    return request


def _check_framing(incoming: web.BaseRequest) -> None:
    """aiohttp refuses most of what has two readings (two lengths, folded lines, bare line ends). This is the rest."""
    if incoming.version not in _VERSIONS:
        raise BadRequest("Speak HTTP/1.1.", code="invalid_request")
    codings = incoming.headers.getall(hdrs.TRANSFER_ENCODING, ())
    if codings and (incoming.version != HttpVersion11 or [coding.lower() for coding in codings] != ["chunked"]):
        raise BadRequest("The only transfer-encoding is chunked, in HTTP/1.1.", code="invalid_request")


async def _send(incoming: web.BaseRequest, reply: Reply, *, is_last: bool) -> web.StreamResponse:
    """`is_last`: nothing more is read from a connection of which something was refused unread."""
    headers = {**SERVER, **reply.headers}
    if reply.stream is not None:
        return await _send_stream(incoming, reply.status, headers, reply.stream)
    response = web.Response(status=reply.status, body=reply.body, headers=headers)
    if is_last:
        response.force_close()
        if incoming.content.exception():
            incoming.content.feed_eof()
    elif len(reply.body) >= _FITS_AT_ONCE:
        await _send_body(incoming, response)
    return response


async def _send_body(incoming: web.BaseRequest, response: web.Response) -> None:
    """One that may have to wait for its reader has the time that it takes at the slowest."""
    size = response.content_length or 0
    try:
        async with asyncio.timeout(_WRITE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND):
            await response.prepare(incoming)
            await response.write_eof()
    except TimeoutError:
        if incoming.transport:
            incoming.transport.abort()


async def _send_stream(
    incoming: web.BaseRequest, status: int, headers: dict[str, str], stream: ByteStream
) -> web.StreamResponse:
    """Headers and first bytes leave together; a client that leaves closes the stream."""
    response = web.StreamResponse(status=status, headers=headers)
    try:
        await response.prepare(incoming)
        async for data in stream:
            await _write(incoming, response, data)
        await response.write_eof()
    except ConnectionError:
        pass
    except TimeoutError:
        if incoming.transport:
            incoming.transport.abort()
    finally:
        await stream.aclose()
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
