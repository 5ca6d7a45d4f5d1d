"""The WAN links of the local edition: time moves, nothing else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from local.wan import open_link

pytestmark = pytest.mark.anyio

RTT_MS = 200.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def linked(far_end: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to `far_end` through a link with a round trip of RTT_MS."""
    before = asyncio.all_tasks()
    target = await asyncio.start_server(far_end, "127.0.0.1", 0)
    link = await open_link(0, port_of(target), RTT_MS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(link))
    try:
        yield reader, writer
    finally:
        writer.close()
        link.close()
        target.close()
        await asyncio.wait(asyncio.all_tasks() - before, timeout=5)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ending(reader: asyncio.StreamReader) -> bytes:
    """What still comes; a reset connection has nothing more to say."""
    with suppress(ConnectionResetError):
        return await reader.read()
    return b""


async def test_echo_takes_no_less_than_the_round_trip() -> None:
    async with linked(echo) as (reader, writer):
        began = time.monotonic()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert time.monotonic() - began >= RTT_MS / 1000


async def test_a_large_transfer_arrives_whole_and_in_order() -> None:
    sent = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    async with linked(echo) as (reader, writer):
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent


async def test_bytes_sent_apart_arrive_apart() -> None:
    async def two_words(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"one")
        await asyncio.sleep(0.2)
        writer.write(b"two")
        await asyncio.sleep(0.2)
        writer.close()

    async with linked(two_words) as (reader, _writer):
        assert await reader.read(100) == b"one"
        assert await reader.read(100) == b"two"
        assert await reader.read(100) == b""


async def test_a_far_end_that_is_not_there_breaks_the_connection() -> None:
    closed = await asyncio.start_server(echo, "127.0.0.1", 0)
    gone = port_of(closed)
    closed.close()
    await closed.wait_closed()
    link = await open_link(0, gone, RTT_MS)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(link))
    assert await asyncio.wait_for(ending(reader), timeout=5) == b""
    writer.close()
    link.close()


async def test_a_client_that_leaves_is_gone_for_the_far_end_too() -> None:
    left = asyncio.Event()

    async def waits_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    async with linked(waits_for_the_end) as (_reader, writer):
        writer.close()
        await asyncio.wait_for(left.wait(), timeout=5)
