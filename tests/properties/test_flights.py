"""Identical requests in processes that fail, sleep and are left at random: each ends in time and in truth, all end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from random import Random
from typing import Any

import pytest

from isochrone.answers.completion import Answer, replay_body, replay_stream
from isochrone.answers.flights import Asker, Flights, Generation
from isochrone.answers.generations import Generations, Pace
from isochrone.api.errors import ApiError, BadRequest, DeadlinePassed, NothingAlive
from isochrone.api.exchange import Reply
from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.background import Background
from isochrone.stores.memory import MemoryFleetStore
from isochrone.upstream.rejoin import Rejoin
from tests.flights import HEADERS, MARK, STREAM, answer, read
from tests.tellings import text_of
from tests.upstream import TEXT, completion

PACE = Pace(patience=0.05, alone=0.1, look=0.03, part=0.03, poll=0.01, silence=0.3, want=0.1)
WAYS = ("sound",) * 6 + ("failing", "refused", "broken", "unkept", "silent", "late")
ERROR = b'data: {"error":{"message":"cut"}}\n\n'
WORLDS = 30
# What a busy machine may add to a deadline.
SLACK = 2.0


class Sleeper:
    """One process's way to the table. Asleep, it does not come through."""

    def __init__(self, store: MemoryFleetStore) -> None:
        self._store = store
        self.awake = asyncio.Event()
        self.awake.set()

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        await self.awake.wait()
        return await self._store.read(name, now=now)

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        await self.awake.wait()
        return await self._store.write(name, document, version=version, expires=expires)

    async def add(self, *_: Any, **__: Any) -> dict[str, float]:
        raise NotImplementedError


class World:
    """Three processes, one table, one store of answers, and chance."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.background = Background()
        store = MemoryFleetStore()
        self.ways = [Sleeper(store) for _ in range(3)]
        generations = [Generations(way, clock=lambda: 1_900_000_000.0, pace=PACE) for way in self.ways]
        self.flights = [Flights(self.background, Rejoin, one) for one in generations]
        self.kept: Answer | None = None
        self.fence = 0
        self.open = 0
        self.log: list[str] = []

    def asker(self, *, stream: bool, include_usage: bool, seconds: float) -> Asker:
        ends_at = asyncio.get_running_loop().time() + seconds

        async def generate(generation: Generation) -> Reply:
            try:
                async with asyncio.timeout_at(ends_at):
                    return await self.generate(generation, stream, ends_at)
            except TimeoutError:
                raise DeadlinePassed("late") from None

        async def recall() -> Answer | None:
            return self.kept

        def replay(known: Answer) -> Reply:
            body = replay_body(known, request_id="r", now=0)
            told = replay_stream(known, request_id="r", now=0, include_usage=include_usage)
            return Reply(status=200, headers={"x-isochrone-cache": "coalesced"}, body=told if stream else body)

        return Asker(
            mark=MARK,
            stream=stream,
            include_usage=include_usage,
            ends_at=ends_at,
            priority=5,
            generate=generate,
            recall=recall,
            replay=replay,
        )

    async def generate(self, generation: Generation, stream: bool, ends_at: float) -> Reply:
        way = self.chance.choice(WAYS)
        self.log.append(f"{way} {'stream' if stream else 'body'}")
        await asyncio.sleep(self.chance.uniform(0, 0.1) if way != "late" else 0.4)
        if way == "failing":
            raise NothingAlive("dead")
        if way == "refused":
            raise BadRequest("no")
        if way == "silent":
            await asyncio.Event().wait()
        if stream:
            return Reply(status=200, headers=dict(HEADERS), stream=self.tell(generation, way, ends_at))
        await asyncio.sleep(self.chance.uniform(0, 0.3))
        self.settle(generation, way)
        return Reply(status=200, headers=dict(HEADERS), body=json.dumps(completion()).encode())

    async def tell(self, generation: Generation, way: str, ends_at: float) -> AsyncGenerator[bytes, None]:
        self.open += 1
        try:
            for at, piece in enumerate(STREAM):
                if (way == "broken" and at == 5) or asyncio.get_running_loop().time() > ends_at:
                    generation.broke()
                    yield ERROR
                    return
                if at % 4 == 1:
                    yield KEEP_ALIVE
                yield piece
                await asyncio.sleep(self.chance.uniform(0, 0.05))
            self.settle(generation, way)
        finally:
            self.open -= 1

    def settle(self, generation: Generation, way: str) -> None:
        if way == "unkept" and self.chance.random() < 0.5:
            return

        async def keep(fence: int | None) -> bool:
            await asyncio.sleep(self.chance.uniform(0, 0.02))
            if way == "unkept" or (fence and fence < self.fence):
                return False
            assert fence is None or fence != self.fence, "no fence is given twice"
            self.kept, self.fence = answer(), fence or self.fence
            return True

        generation.settle(answer(), keep)

    async def one(self) -> None:
        """One client at one of the processes, at any time, for any time."""
        await asyncio.sleep(self.chance.uniform(0, 0.6))
        stream, usage = self.chance.random() < 0.6, self.chance.random() < 0.3
        seconds = self.chance.choice((0.3, 1.0, 3.0, 3.0))
        flights = self.chance.choice(self.flights)
        leaves = self.chance.random() < 0.2
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(self.chance.uniform(0, 0.4) if leaves else None):
                told = await read(await flights.share(self.asker(stream=stream, include_usage=usage, seconds=seconds)))
        except TimeoutError:
            assert leaves
            return
        except ApiError:
            pass
        else:
            self.judge(told, stream=stream, usage=usage)
        assert clock() - begun < seconds + SLACK

    def judge(self, told: bytes, *, stream: bool, usage: bool) -> None:
        if not stream:
            assert json.loads(told)["choices"][0]["message"]["content"] == TEXT
        elif told.endswith(DONE_EVENT):
            assert (text_of(told), told.count(DONE_EVENT), b'"usage"' in told) == (TEXT, 1, usage)
        else:
            assert told.endswith(b"\n\n") and b'"error"' in told.rstrip().rpartition(b"\n\n")[2]
            assert TEXT.startswith(text_of(told.rpartition(b"data: ")[0]))

    async def sleep(self) -> None:
        """A process sleeps and wakes, twice."""
        for _ in range(2):
            await asyncio.sleep(self.chance.uniform(0, 0.4))
            way = self.chance.choice(self.ways)
            way.awake.clear()
            await asyncio.sleep(self.chance.choice((0.1, 0.6)))
            way.awake.set()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_each_request_ends_in_time_and_in_truth(seed: int) -> None:
    worlds = [World(1000 * seed + number) for number in range(WORLDS)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(world.sleep() for world in worlds), *(world.one() for world in worlds for _ in range(14))
        )
        for world in worlds:
            await world.background.finish()
    assert [world.open for world in worlds] == [0] * WORLDS
    assert [len(flights) for world in worlds for flights in world.flights] == [0] * 3 * WORLDS
    assert all(world.log for world in worlds)
