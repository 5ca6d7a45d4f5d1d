"""What passes between a door (HTTP, Lambda) and the pipeline: one Request in, one Reply out.

A door knows sockets or events; the pipeline knows neither. Header names are lower case on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from msgspec import Struct, field

from isochrone.api.errors import ApiError
from isochrone.api.trail import Trail


class Request(Struct, kw_only=True):
    """One HTTP request as a door received it.

    `path` is what stood in the request line, without the query string; the edge brings it and the headers into one
    normal form (`isochrone.api.head`). `peer` is the address that the platform saw: the socket's peer, or
    requestContext's sourceIp. `trust_forwarded` is false where the platform's own field is final (AWS).
    `time_left` is how many seconds the platform still gives us (Lambda), None when nobody counts. `trail` is
    what will be remembered of it. `flaw` is what the door found wrong with it already.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    query: Mapping[str, str] = field(default_factory=dict)
    trust_forwarded: bool = True
    time_left: float | None = None
    trail: Trail = field(default_factory=Trail)
    flaw: ApiError | None = None


class ByteStream(Protocol):
    """An async generator of bytes, or what can be iterated and closed like one."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Reply(Struct, kw_only=True):
    """One HTTP reply. With `stream` set, the body is what it yields and `body` is empty.

    The door always calls the stream's `aclose()` in the end: that is how the pipeline learns that the client left. A
    stream never raises: what goes wrong after the headers is said in band.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    stream: ByteStream | None = None


class Watched:
    """A stream with something to do when it is over: `on_end` is called once, after it was closed."""

    def __init__(self, stream: ByteStream, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end: Callable[[], None] | None = on_end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            on_end, self._on_end = self._on_end, None
            if on_end:
                on_end()
