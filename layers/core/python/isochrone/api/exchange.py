"""What passes between a door (HTTP, Lambda) and the pipeline: one Request in, one Reply out.

A door knows sockets or events; the pipeline knows neither. Header names are lower case on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, Protocol

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

    def __repr__(self) -> str:
        """Without what a log must not have: headers hold keys, bodies and queries what people say."""
        return f"Request({self.method} {self.path[:200]!r}, {len(self.body)} bytes)"


class ByteStream(Protocol):
    """An async generator of bytes, or what can be iterated and closed like one."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


Outcome = Literal["complete", "broken", "left"]
Ending = Callable[[Outcome], None]
"""Hears how a reply ended: "broken" is told in band, "left" says that its caller did not hear the end."""
# What every error event that a stream of ours ends with begins with.
_ERROR_EVENT = b'data: {"error":'


class Reply(Struct, kw_only=True):
    """One HTTP reply. With `stream` set, the body is what it yields and `body` is empty.

    Who gives a `stream` may add `endings`, which the edge calls when it is over.

    The door always calls the stream's `aclose()` in the end: that is how the pipeline learns that the client left. A
    stream never raises: what goes wrong after the headers is said in band.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    stream: ByteStream | None = None
    endings: list[Ending] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Reply({self.status}, {'a stream' if self.stream else f'{len(self.body)} bytes'})"


class Watched:
    """A stream that tells each of `endings` once how it ended."""

    def __init__(self, stream: ByteStream, endings: Sequence[Ending]) -> None:
        self._stream = stream
        self._endings = endings
        self._last = b""
        self._told_out = False
        self._telling = self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._telling

    async def _tell(self) -> AsyncGenerator[bytes, None]:
        async for data in self._stream:
            self._last = data
            yield data
        self._told_out = True

    @property
    def _outcome(self) -> Outcome:
        """Whoever shares a stream hears of its end in the stream alone."""
        if not self._told_out:
            return "left"
        last_line = self._last.rstrip(b"\n").rpartition(b"\n")[2]
        return "broken" if last_line.startswith(_ERROR_EVENT) else "complete"

    async def aclose(self) -> None:
        try:
            await self._telling.aclose()
            await self._stream.aclose()
        finally:
            endings, self._endings = self._endings, ()
            for ending in endings:
                ending(self._outcome)
