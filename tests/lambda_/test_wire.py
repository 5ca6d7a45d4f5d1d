"""The HTTP client of the loop, against a scripted server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from isochrone_streaming.wire import Connection, HttpReply, WireError


@asynccontextmanager
async def connected(*script: bytes | None) -> AsyncIterator[Connection]:
    """A connection to a server that says each part of the script in turn; None closes the connection."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for part in script:
            if part is None:
                writer.close()
                return
            writer.write(part)
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connection = await Connection.open("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Recorder:
    """A writer that remembers each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    async def drain(self) -> None:
        """Never slow."""


async def test_head_and_first_bytes_leave_in_one_write_and_each_chunk_in_one_more() -> None:
    recorder = Recorder()
    connection = Connection("api", asyncio.StreamReader(), cast(asyncio.StreamWriter, recorder))
    await connection.begin_chunked("/response", {"content-type": "x/y"}, b"prelude and first bytes")
    await connection.send_chunk(b"more")
    await connection.end_chunked({"Error-Type": "E"})
    assert recorder.writes == [
        b"POST /response HTTP/1.1\r\nhost: api\r\ncontent-type: x/y\r\ntransfer-encoding: chunked\r\n\r\n"
        b"17\r\nprelude and first bytes\r\n",
        b"4\r\nmore\r\n",
        b"0\r\nError-Type: E\r\n\r\n",
    ]


async def test_whole_body_leaves_in_one_write() -> None:
    reader, recorder = asyncio.StreamReader(), Recorder()
    reader.feed_data(b"HTTP/1.1 202 \r\nContent-Length: 2\r\n\r\n{}")
    connection = Connection("api", reader, cast(asyncio.StreamWriter, recorder))
    assert (await connection.post_chunked("/response", {}, b"all")).status == 202
    head = b"POST /response HTTP/1.1\r\nhost: api\r\ntransfer-encoding: chunked\r\n\r\n"
    assert recorder.writes == [head + b"3\r\nall\r\n0\r\n\r\n"]


async def test_small_writes_are_not_held_back_by_nagle() -> None:
    async with connected() as connection:
        plug = connection._writer.get_extra_info("socket")
        assert plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    "said",
    [
        [b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 200\r\nX-A: b\r\nContent-Length: 5\r\n\r\n", b"hel", b"lo"],
        [b"HTTP/1.1 200 OK\r\nX-A:b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n"],
    ],
    ids=["whole", "in-pieces", "chunked"],
)
async def test_reply_is_read_however_it_is_framed(said: list[bytes]) -> None:
    async with connected(*said) as connection:
        reply = await connection.request("GET", "/", {})
        assert (reply.status, reply.headers["x-a"], reply.body) == (200, "b", b"hello")
        assert connection.usable


async def test_two_replies_come_over_one_connection() -> None:
    first, second = (b"HTTP/1.1 202 \r\nContent-Length: 1\r\n\r\n" + body for body in (b"a", b"b"))
    async with connected(first + second) as connection:
        assert [(await connection.read_reply()).body for _ in range(2)] == [b"a", b"b"]


@pytest.mark.parametrize(
    "said",
    [
        [None],
        [b"HTTP/1.1 200 OK\r\nContent-Le", None],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", None],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", None],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"],
        [b"SSH-2.0-OpenSSH\r\n\r\n"],
    ],
    ids=["nothing", "half-head", "half-body", "half-chunk", "bad-chunk-size", "bad-length", "not-http"],
)
async def test_reply_that_is_not_whole_is_a_wire_error_and_ends_the_connection(said: list[bytes | None]) -> None:
    async with connected(*said) as connection:
        with pytest.raises(WireError):
            await connection.request("GET", "/", {})
        assert not connection.usable


async def test_connection_that_the_server_wants_closed_is_not_used_again() -> None:
    async with connected(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") as connection:
        assert await connection.read_reply() == HttpReply(200, {"connection": "close", "content-length": "0"}, b"")
        assert not connection.usable


async def test_server_that_is_not_there_is_a_wire_error_with_its_address() -> None:
    with pytest.raises(WireError, match=r"cannot connect to 127\.0\.0\.1:1"):
        await Connection.open("127.0.0.1", 1)
