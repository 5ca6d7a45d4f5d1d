"""The server side of HTTP/1.1, kept low so that chunks and trailers can be seen as they come."""

from __future__ import annotations

from asyncio import StreamReader
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple


class Head(NamedTuple):
    """Request line and headers (names in lower case)."""

    method: str
    path: str
    headers: dict[str, str]


async def read_head(reader: StreamReader) -> Head | None:
    """The next request's head, None when the connection ended cleanly between requests."""
    first = await reader.readline()
    if not first:
        return None
    method, path, _ = first.decode("latin-1").split(" ", 2)
    return Head(method, path, await _read_fields(reader))


async def read_chunks(reader: StreamReader, trailers: dict[str, str]) -> AsyncIterator[bytes]:
    """A chunked body, chunk by chunk as it was sent; `trailers` is filled at the end."""
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where its size says")
    trailers.update(await _read_fields(reader))


async def read_body(reader: StreamReader, head: Head) -> bytes:
    """A body with a length."""
    return await reader.readexactly(int(head.headers.get("content-length", "0")))


def reply(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> bytes:
    """A whole reply."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} \r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


async def _read_fields(reader: StreamReader) -> dict[str, str]:
    fields: dict[str, str] = {}
    while line := (await reader.readline()).decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return fields
