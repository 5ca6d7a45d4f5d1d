"""A connection on which a test writes its own HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.faults.harness import RunningEdge


class WireReply(NamedTuple):
    """`status` 0 says that the connection was closed without a word."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Whatever is written goes out as it is; what comes back is only cut into replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, within: float = 5.0) -> WireReply:
        """The next one. Raises TimeoutError."""
        async with asyncio.timeout(within):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").rstrip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return WireReply(0, {}, b"")
        return WireReply(int(first.split(" ")[1]), headers, body)

    async def is_closed(self, *, within: float = 5.0) -> bool:
        """Has the other side nothing more to say, for ever?"""
        try:
            async with asyncio.timeout(within):
                return not await self.reader.read()
        except TimeoutError:
            return False
        except ConnectionError:
            return True


@asynccontextmanager
async def wired(edge: RunningEdge) -> AsyncIterator[Wire]:
    """One connection to this edge."""
    host, port = edge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def told(edge: RunningEdge, raw: bytes) -> WireReply:
    """What the edge says to these bytes on a connection of their own."""
    async with wired(edge) as wire:
        await wire.send(raw)
        return await wire.reply()
