"""Askers that share an answer, and generations that say what a test tells them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from isochrone.answers.completion import Answer, replay_body, replay_stream
from isochrone.answers.flights import Asker, Flights, Generation
from isochrone.answers.generations import Generations
from isochrone.api.exchange import Reply
from isochrone.api.sse import DONE_EVENT
from isochrone.background import Background
from isochrone.upstream.rejoin import Rejoin
from tests.upstream import TEXT, USAGE, chunk, completion, event, words

MARK = "ab" * 32
STOP = chunk(finish="stop")
USAGE_EVENT = event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": USAGE})
STREAM = [*words(), STOP, USAGE_EVENT, DONE_EVENT]
WITHOUT_USAGE = b"".join([*words(), STOP, DONE_EVENT])
HEADERS = {"x-isochrone-cache": "miss", "x-isochrone-backend": "pool"}


def answer(text: str = TEXT) -> Answer:
    return Answer(operation="chat", backend="pool", created=1_800_000_000.0, body=completion({"content": text}))


class Source:
    """One generation: it says what is put into it, `None` ends it, an exception breaks it. `kept` is what its storing
    comes to."""

    def __init__(self, *said: Any, stream: bool = True, kept: bool = True) -> None:
        self.stream = stream
        self.kept = kept
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()
        self.generation: Generation | None = None
        self.fences: list[int | None] = []
        self.keep: Callable[[Answer, int | None], bool] = lambda answer, fence: True
        self._says: asyncio.Queue[Any] = asyncio.Queue()
        self.say(*said)

    def say(self, *pieces: Any) -> None:
        for piece in pieces:
            self._says.put_nowait(piece)

    @property
    def unsaid(self) -> int:
        return self._says.qsize()

    async def __call__(self, generation: Generation) -> Reply:
        self.generation = generation
        self.begun.set()
        try:
            if not self.stream:
                said = await self._next()
                self._settle(generation)
                return Reply(status=200, headers=dict(HEADERS), body=said)
            first = await self._next()
        except BaseException:
            self.closed.set()
            raise
        return Reply(status=200, headers=dict(HEADERS), stream=self._tell(first, generation))

    async def _next(self) -> Any:
        said = await self._says.get()
        if isinstance(said, BaseException):
            raise said
        return said

    async def _tell(self, first: bytes, generation: Generation) -> AsyncGenerator[bytes, None]:
        try:
            said = first
            while said is not None:
                yield said
                said = await self._next()
            self._settle(generation)
        finally:
            self.closed.set()

    def _settle(self, generation: Generation) -> None:
        async def keep(fence: int | None) -> bool:
            self.fences.append(fence)
            return self.kept and self.keep(answer(), fence)

        generation.settle(answer(), keep)


class Process:
    """The flights of one process; its answers go into a store by `keep` and are found there by `recall`."""

    def __init__(
        self,
        generations: Generations | None = None,
        *,
        recall: Callable[[], Answer | None] = lambda: None,
        keep: Callable[[Answer, int | None], bool] = lambda answer, fence: True,
    ) -> None:
        self.background = Background()
        self.flights = Flights(self.background, Rejoin, generations)
        self.sources: list[Source] = []
        self._recall = recall
        self._keep = keep

    def asker(self, source: Source | None = None, *, stream: bool = True, seconds: float = 60.0, **more: Any) -> Asker:
        """One that has `source` generate if it comes to that, or fails the test."""
        usage = more.setdefault("include_usage", False)

        async def recall() -> Answer | None:
            return self._recall()

        async def generate(generation: Generation) -> Reply:
            assert source, "nobody was to generate"
            self.sources.append(source)
            source.keep = self._keep
            return await source(generation)

        def replay(known: Answer) -> Reply:
            headers = {"x-isochrone-cache": "coalesced"}
            if not stream:
                return Reply(status=200, headers=headers, body=replay_body(known, request_id="r", now=0))
            body = replay_stream(known, request_id="r", now=0, include_usage=usage)
            return Reply(status=200, headers=headers, body=body)

        ends_at = asyncio.get_running_loop().time() + seconds
        return Asker(
            **{"mark": MARK, "priority": 5, "stream": stream, "ends_at": ends_at, **more},
            generate=generate,
            recall=recall,
            replay=replay,
        )

    async def ask(self, source: Source | None = None, **more: Any) -> bytes:
        """All that one asker is told."""
        return await read(await self.flights.share(self.asker(source, **more)))


async def read(reply: Reply) -> bytes:
    """To its end, as a door reads it."""
    if reply.stream is None:
        return reply.body
    try:
        return b"".join([piece async for piece in reply.stream])
    finally:
        await reply.stream.aclose()


async def rest() -> None:
    """Let every task go on as far as it can."""
    for _ in range(30):
        await asyncio.sleep(0)
