"""The HTTP/1.1 that the Runtime API needs, on asyncio streams: one kept connection, chunked bodies, trailers.

asyncio sets TCP_NODELAY on every TCP socket, so each write leaves at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_MAX_HEAD = 256 * 1024


class WireError(ConnectionError):
    """The other side closed the connection, or what it sent is not HTTP/1.1."""


class HttpReply(NamedTuple):
    """One reply, read whole. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One request at a time. Every method raises WireError when the connection is lost."""

    def __init__(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect. Raises WireError."""
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=_MAX_HEAD)
        except OSError as error:
            raise WireError(f"cannot connect to {host}:{port}: {error.strerror or error}") from None
        return cls(f"{host}:{port}", reader, writer)

    @property
    def usable(self) -> bool:
        """False once the other side has closed."""
        return not (self._writer.is_closing() or self._reader.at_eof())

    def close(self) -> None:
        self._writer.close()

    async def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> HttpReply:
        """Send a request with a whole body and read its reply."""
        head = self._head(method, path, {**headers, "content-length": str(len(body))})
        await self._write(head + body)
        return await self.read_reply()

    async def post_chunked(self, path: str, headers: Mapping[str, str], body: bytes) -> HttpReply:
        """POST a whole body (not empty) as one chunk, in one write."""
        head = self._head("POST", path, {**headers, "transfer-encoding": "chunked"})
        await self._write(head + _chunk(body) + b"0\r\n\r\n")
        return await self.read_reply()

    async def begin_chunked(self, path: str, headers: Mapping[str, str], first: bytes) -> None:
        """Start a POST whose body follows in chunks; the head and the first chunk leave in one write."""
        head = self._head("POST", path, {**headers, "transfer-encoding": "chunked"})
        await self._write(head + _chunk(first))

    async def send_chunk(self, data: bytes) -> None:
        """Send `data` (not empty) and wait while the other side is slower than we are."""
        await self._write(_chunk(data))

    async def end_chunked(self, trailers: Mapping[str, str]) -> None:
        """End the body; `read_reply` then gives the answer."""
        await self._write(b"0\r\n" + _lines(trailers.items()) + b"\r\n")

    async def read_reply(self) -> HttpReply:
        """The next reply, with its whole body."""
        try:
            status, headers = _parse_head(await self._reader.readuntil(b"\r\n\r\n"))
            body = await self._read_body(headers)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise WireError(f"{self._host}: no whole reply ({error})") from None
        if headers.get("connection", "").lower() == "close":
            self.close()
        return HttpReply(status, headers, body)

    async def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            self.close()
            raise WireError(f"{self._host}: connection lost ({error})") from None

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        return f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\n".encode() + _lines(headers.items()) + b"\r\n"

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._read_chunks()
        return await self._reader.readexactly(int(headers.get("content-length", "0")))

    async def _read_chunks(self) -> bytes:
        chunks: list[bytes] = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            chunks.append((await self._reader.readexactly(size + 2))[:-2])
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return b"".join(chunks)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    version, status, *_ = first.split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not an HTTP/1.1 reply: {first[:40]!r}")
    pairs = (line.partition(":") for line in lines)
    return int(status), {name.lower(): value.strip() for name, _, value in pairs}
