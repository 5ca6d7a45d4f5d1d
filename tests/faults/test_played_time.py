"""What tests in played time rely on."""

from __future__ import annotations

import asyncio
import time

import pytest

from isochrone.pipeline import Pipeline
from tests.faults import played_time


def now() -> tuple[float, float, float]:
    """What the clocks tell: one that is asked for by name, the wall's, and one that was bound as a default."""
    assert Pipeline.__init__.__kwdefaults__ is not None
    return time.monotonic(), time.time(), Pipeline.__init__.__kwdefaults__["now"]()


def test_all_clocks_go_on_together_while_nobody_has_anything_to_do() -> None:
    async def an_hour() -> list[float]:
        before = now()
        await asyncio.sleep(3600)
        return [after - then for after, then in zip(now(), before, strict=True)]

    assert played_time.run(an_hour()) == pytest.approx(3 * [3600.0])


def test_work_takes_no_time() -> None:
    async def work() -> float:
        begun = time.monotonic()
        for _ in range(1000):
            await asyncio.sleep(0)
        return time.monotonic() - begun

    assert played_time.run(work()) == 0


def test_reply_on_its_way_is_no_silence() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def talk() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(200):
                writer.write(b"still there?\n")
                async with asyncio.timeout(5):
                    await reader.readline()
            writer.close()
            await writer.wait_closed()

    played_time.run(talk())


def test_real_clocks_are_back_afterwards() -> None:
    clocks = time.monotonic, time.time

    async def nothing() -> None:
        assert (time.monotonic, time.time) != clocks

    played_time.run(nothing())
    assert (time.monotonic, time.time) == clocks
    assert abs(now()[1] - now()[2]) < 60
