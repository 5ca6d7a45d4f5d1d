"""Clients that take their time, or keep a connection without a word, take nothing from those who have something to ask.

Seconds are shortened here; what they are is in `isochrone.doors.local` and `.connections`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from isochrone.doors import connections, local
from tests.faults.harness import RunningEdge, backend, eventually, running_edge
from tests.security.wire import Wire, wired
from tests.upstream import TEXT, Exchange, Upstream

GET = b"GET /healthz HTTP/1.1\r\nHost: edge\r\n\r\n"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
POST = HEAD % len(BODY) + BODY


@asynccontextmanager
async def small(upstream: Upstream, script: str = "ok", *, most: int = 3) -> AsyncIterator[RunningEdge]:
    """An edge with places for `most` connections, that answers nothing from what it knows."""
    async with running_edge(
        backend(upstream, script, assemble=False),
        limits={"connections": most},
        answers={"exact": False, "coalesce": False},
    ) as edge:
        yield edge


@asynccontextmanager
async def many(edge: RunningEdge, count: int, says: bytes = b"") -> AsyncIterator[list[Wire]]:
    """So many connections, each having said that."""
    async with AsyncExitStack() as stack:
        wires = []
        for _ in range(count):
            wires.append(await stack.enter_async_context(wired(edge)))
            await wires[-1].send(says)
        yield wires


def is_open(wire: Wire) -> bool:
    return not wire.reader.at_eof()


@pytest.mark.parametrize(
    "says",
    [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: e\r\nX: ", HEAD % 5000 + b"{"],
    ids=["nothing", "a letter", "half a head", "half a body"],
)
async def test_two_hundred_slow_clients_keep_nobody_from_being_served(upstream: Upstream, says: bytes) -> None:
    async with small(upstream, most=50) as edge, many(edge, 200, says) as slow:
        for _ in range(5):
            async with wired(edge) as wire:
                await wire.send(POST)
                assert (await wire.reply()).status == 200
        await eventually(lambda: sum(is_open(wire) for wire in slow) < 50)
        assert is_open(slow[-1])


async def test_slow_clients_that_go_on_dribbling_keep_nobody_from_being_served(upstream: Upstream) -> None:
    async def dribble(wire: Wire) -> None:
        try:
            while True:
                await wire.send(b"X: y\r\n")
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass

    async with small(upstream, most=50) as edge, many(edge, 200, b"GET /healthz HTTP/1.1\r\nHost: e\r\n") as slow:
        dribbling = asyncio.gather(*map(dribble, slow))
        for _ in range(5):
            assert (await edge.chat()).text() == TEXT
        dribbling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dribbling


@pytest.mark.parametrize("beginning", [b"GET /healthz HTTP/1.1\r\nHost:", b"\r\n\r\n", b"\r\n\r\n\r\nGET /healthz"])
async def test_head_that_does_not_come_to_its_end_is_not_waited_for(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    async with wired(edge) as wire:
        await wire.send(beginning)
        reply = await wire.reply()
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (408, "headers_too_slow")
        assert await wire.is_closed()


async def test_second_head_on_a_connection_has_the_same_time_as_the_first(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    async with wired(edge) as wire:
        await wire.send(GET)
        assert (await wire.reply()).status == 200
        await asyncio.sleep(0.2)  # silence between requests is no slow head
        await wire.send(b"GET /healthz")
        assert (await wire.reply()).status == 408
        assert await wire.is_closed()


async def test_answer_may_take_longer_than_a_head(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await upstream.scripts["ok"](exchange)

    upstream.scripts["slow"] = slow
    async with small(upstream, "slow") as edge, wired(edge) as wire:
        await wire.send(POST)
        assert (await wire.reply()).status == 200
        await wire.send(GET)
        assert (await wire.reply()).status == 200


async def test_requests_sent_in_a_row_are_answered_in_a_row(edge: RunningEdge) -> None:
    async with wired(edge) as wire:
        await wire.send(GET + POST + GET)
        assert [(await wire.reply()).status for _ in range(3)] == [200, 200, 200]


async def test_who_has_been_silent_for_the_longest_gives_way_first(upstream: Upstream) -> None:
    async with small(upstream) as edge, many(edge, 3) as wires:
        for wire in (wires[1], wires[0], wires[2]):  # each begins to be silent when it has its reply
            await wire.send(GET)
            assert (await wire.reply()).status == 200
        async with wired(edge) as late:
            await late.send(GET)
            assert (await late.reply()).status == 200
            assert await wires[1].is_closed()
            for wire in (wires[0], wires[2]):
                await wire.send(GET)
                assert (await wire.reply()).status == 200


async def test_nobody_whose_request_is_whole_gives_way(upstream: Upstream) -> None:
    """Who comes when all are being answered is told to come again, and those who are being answered notice nothing."""
    async with small(upstream, "gated") as edge, many(edge, 3, POST) as wires:
        await eventually(lambda: len(upstream.requests) == 3)
        async with wired(edge) as late:
            reply = await late.reply()
            assert (reply.status, json.loads(reply.body)["error"]["code"]) == (429, "too_many_connections")
            assert reply.headers["retry-after"] == "1"
            assert await late.is_closed()
        upstream.gate.set()
        assert [(await wire.reply()).status for wire in wires] == [200, 200, 200]


async def test_place_of_a_connection_that_was_closed_is_free(upstream: Upstream) -> None:
    async with small(upstream, "gated") as edge:
        async with many(edge, 3, POST):
            await eventually(lambda: len(upstream.requests) == 3)
        await eventually(lambda: edge.edge.pipeline.rooms.fleet.states[0].in_flight == 0)
        upstream.gate.set()
        for _ in range(4):
            async with wired(edge) as wire:
                await wire.send(POST)
                assert (await wire.reply()).status == 200


async def test_client_that_does_not_take_a_long_body_is_hung_up_on(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_WRITE_SECONDS", 0.1)
    monkeypatch.setattr(local, "_SLOWEST_BYTES_PER_SECOND", 10**9)
    whole = {"index": 0, "message": {"role": "assistant", "content": "x" * 20_000_000}, "finish_reason": "stop"}

    async def long(exchange: Exchange) -> None:
        await exchange.json({"id": "x", "choices": [whole]})

    upstream.scripts["long"] = long
    async with small(upstream, "long") as edge, wired(edge) as wire:
        await wire.send(POST)
        await eventually(lambda: len(upstream.requests) == 1)
        await asyncio.sleep(0.5)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.reader.readexactly(20_000_000)


async def test_bodies_that_come_at_once_have_only_so_much_room(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows yet who sends them, so they may not fill the memory; when some are through there is room again."""
    monkeypatch.setattr(local, "_ROOM_FOR_BODIES", 100_000)
    part = HEAD % 60_000 + b"x" * 50_000
    async with running_edge(backend(upstream), limits={"body_bytes": 100_000}) as edge:
        async with many(edge, 2, part) as (first, second), wired(edge) as third:
            await asyncio.sleep(0.05)
            await third.send(part)
            replies = [asyncio.create_task(wire.reply()) for wire in (first, second, third)]
            done, _ = await asyncio.wait(replies, return_when=asyncio.FIRST_COMPLETED, timeout=5)
            (refused,) = (task.result() for task in done)
            assert (refused.status, json.loads(refused.body)["error"]["code"]) == (429, "too_many_bodies")
            for task in replies:
                task.cancel()
        assert (await edge.chat()).text() == TEXT
