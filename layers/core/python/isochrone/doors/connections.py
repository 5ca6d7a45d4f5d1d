"""The connections of the local server: how many there are, and how long one may take to say what it wants.

    waiting ----- first bytes -----> reading (HEAD_SECONDS for the head, then as long as a body may take)
       ^                                |
       '------------ reply ---------- held (its request is whole)

There is a place for `most`. When all are taken, who comes gets the place of the one that has been waiting or reading
for the longest, so silence cannot keep anybody out; only when every request is whole somebody is turned away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from isochrone.api.errors import ApiError, BadRequest, BodyTooSlow, HeadersTooLarge, Saturated, UrlTooLong
from isochrone.api.exchange import Reply
from isochrone.api.head import MAX_URL
from isochrone.faults import wordless

HEAD_SECONDS = 10.0
# Instead of aiohttp's own, which tells its version and Python's.
SERVER = {"server": "isochrone"}
# One header. Not the same number as MAX_URL: by it a line that is too long is known to be one or the other.
_MAX_FIELD = MAX_URL + 2
_HEAD_END = b"\r\n\r\n"
_TOO_MANY_HEADERS = "Too many headers received"  # aiohttp has no class for it

log = logging.getLogger("isochrone")

Refuse = Callable[[ApiError], Reply]
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One of them."""

    def __init__(self, manager: Connections, **options: Any) -> None:
        super().__init__(manager, **options)
        self._connections = manager
        self._deadline: asyncio.TimerHandle | None = None
        self._is_reading = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.arrive(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.stop_clock()
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_reading:
            self._is_reading = True
            if _HEAD_END not in data.lstrip(b"\r\n"):  # most heads are whole at once, and need no clock
                self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._hang_up)
        super().data_received(data)

    def stop_clock(self) -> None:
        """The head is there."""
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While there is a whole request and no whole reply yet: nobody else gets its place."""
        self._connections.hold(self)
        try:
            yield
        finally:
            self._is_reading = False
            self._connections.release(self)

    def _hang_up(self) -> None:
        self.turn_away(BodyTooSlow("The headers came too slowly.", code="headers_too_slow"))

    def turn_away(self, error: ApiError) -> None:
        """Say why, in one go, and close."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.write(_as_bytes(self._connections.refuse(error)))
        self.force_close()

    def abort(self) -> None:
        """Close without a word: who is silent would not read one."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the parser refused, of which nothing goes into a log since it may hold a key; or a fault of ours."""
        if status >= 500:
            log.error("a request failed in the door", exc_info=wordless(exc))
        if request.writer.output_size > 0:
            raise ConnectionError("a reply has begun already")
        reply = self._connections.refuse(_error_of(status, exc))
        response = web.Response(status=reply.status, body=reply.body, headers={**SERVER, **reply.headers})
        response.force_close()
        return response


class Connections(web.Server):
    """All of one server. `refuse` makes an error a reply."""

    def __init__(self, answer: Answer, *, refuse: Refuse, most: int, most_headers: int, keep_alive: float) -> None:
        super().__init__(answer, handler_cancellation=True)
        self.refuse = refuse
        self._most = most
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}  # oldest first
        self._options: dict[str, Any] = {
            "loop": asyncio.get_running_loop(),
            "keepalive_timeout": keep_alive,
            "access_log": None,
            "auto_decompress": False,
            "max_line_size": MAX_URL,
            "max_field_size": _MAX_FIELD,
            "max_headers": most_headers,
        }

    def __call__(self) -> web.RequestHandler:
        return Connection(self, **self._options)

    def arrive(self, connection: Connection) -> None:
        """A new one: there is a place for it, or one is made."""
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) > self._most:
            longest = next(iter(self._waiting))
            self.leave(longest)
            if longest is connection:
                connection.turn_away(Saturated("Too many connections.", code="too_many_connections", retry_after=1))
            else:
                longest.abort()

    def leave(self, connection: Connection) -> None:
        """It is closed, or about to be."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def hold(self, connection: Connection) -> None:
        """Its request is whole."""
        self._waiting.pop(connection, None)

    def release(self, connection: Connection) -> None:
        """Its reply is there; it waits for the next request, if it is still open."""
        if connection in self._open:
            self._waiting[connection] = None


def _error_of(status: int, exc: BaseException | None) -> ApiError:
    if status >= 500:
        return ApiError("Something went wrong inside the edge.", code="internal_error")
    if isinstance(exc, LineTooLong):
        if exc.args[1] == MAX_URL:
            return UrlTooLong(f"The URL is longer than {MAX_URL} bytes.")
        return HeadersTooLarge(f"A header is longer than {_MAX_FIELD} bytes.")
    if getattr(exc, "message", None) == _TOO_MANY_HEADERS:
        return HeadersTooLarge("The request has too many headers.")
    return BadRequest("This is not HTTP/1.1 as it is read here.", code="invalid_request")


def _as_bytes(reply: Reply) -> bytes:
    """A whole HTTP/1.1 response, for who gets no other one on this connection."""
    headers = {**SERVER, **reply.headers, "content-length": str(len(reply.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + reply.body
