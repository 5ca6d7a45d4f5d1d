"""A trace played against the rooms of an edge: desk, library, flights, demand; its backend is a sleep.

Exact repeats, and those of what is in flight, are found by the edge's own code, over a store in memory. Similar
questions are not: no trace has texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, NoReturn

from isochrone.answers.codec import from_bytes
from isochrone.answers.completion import Answer
from isochrone.answers.desk import Desk
from isochrone.answers.flights import Asker, Flights, Generation
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.answers.terms import TermsBook
from isochrone.api.controls import CacheMode
from isochrone.api.exchange import Reply
from isochrone.api.requests import CHAT, Ask
from isochrone.background import Background
from isochrone.ledger.demand import Demand
from isochrone.ledger.savings import Savings
from isochrone.settings import Answers, Backend, OwnAnswers, Price, Region, Settings
from isochrone.stores.memory import MemoryAnswerStore, MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore
from replays.traces import Asked

TENANT, MODEL = "replayed", "m"
# A Monday, midnight (UTC).
EPOCH = 1_795_392_000.0
_HIT_SECONDS = 0.005
_PATIENCE = 3600.0
_ENDLESS = 1 << 40


class Engine(NamedTuple):
    """How long a generation takes, and what it costs."""

    before: float = 0.2
    input_per_second: float = 3000.0
    output_per_second: float = 40.0
    price: Price = Price(input=0.28, output=0.42)

    def seconds(self, row: Asked) -> float:
        return self.before + row.input_tokens / self.input_per_second + row.output_tokens / self.output_per_second

    def dollars(self, row: Asked) -> float:
        return (row.input_tokens * self.price.input + row.output_tokens * self.price.output) / 1_000_000


class Tables(NamedTuple):
    """What one edge keeps."""

    answers: MemoryAnswerStore
    ledger: MemoryLedgerStore
    rollups: MemoryRollupStore


class Replay:
    """One edge under a trace. What happens before `measure_from` (seconds from the start) is learnt and not counted."""

    def __init__(self, engine: Engine, *, ttl: int, measure_from: float = 0.0) -> None:
        self.engine = engine
        self.ttl = ttl
        self.rows: dict[str, Asked] = {}
        self.waited = self.dollars = 0.0
        self.on_hit: Callable[[str, Answer], None] = lambda mark, answer: None
        self.tables = Tables(
            MemoryAnswerStore(capacity=_ENDLESS),
            MemoryLedgerStore(capacity=_ENDLESS),
            MemoryRollupStore(capacity=_ENDLESS),
        )
        self.demand = Demand(self.tables.rollups, wanted=True)
        self.savings = Savings(self.tables.rollups, lambda: 0.0)
        self._measure_from = measure_from
        answers = Answers(ttl=ttl)
        backend = Backend(name="b", base_url="http://127.0.0.1/v1", models={MODEL: MODEL}, price=engine.price)
        settings = Settings(region=(Region(name="us-east-1"),), backend=(backend,), answers=answers)
        memory = MemoryTier(max_bytes=answers.memory_bytes, ttl=answers.memory_ttl)
        self._library = Library(self.tables.answers, memory, chance=lambda: 0.5)
        self._desk = Desk(self._library, TermsBook(settings), revisions={}, sampled=False)
        self._flights = Flights(Background(), _never)
        self._numbers = count()

    @property
    def counts(self) -> bool:
        """Is this measured?"""
        return now() >= EPOCH + self._measure_from

    async def play(self, rows: Sequence[Asked]) -> None:
        """Ask all of it, each request at its time."""
        asking = []
        for row in rows:
            await asyncio.sleep(EPOCH + row.at - now())
            asking.append(asyncio.create_task(self._ask(row)))
        await asyncio.gather(*asking)

    async def known(self, mark: str) -> Answer | None:
        """What the store has, past every memory."""
        value = await self.tables.answers.get(mark, now=now())
        return from_bytes(value) if value else None

    async def generate(self, row: Asked, *, attempt: str = "") -> Answer:
        """What the backend says after its time; the ledger notes it as an edge does."""
        begun, inquiry = now(), self._inquire(row)
        await asyncio.sleep(self.engine.seconds(row))
        entry = {"request_id": f"{attempt}{next(self._numbers)}", "attempt": 1, "outcome": "ok"}
        await self.tables.ledger.append([{"tenant": TENANT, "started_at": begun, "answer": inquiry.mark, **entry}])
        return self._answer(row)

    async def keep(self, row: Asked, answer: Answer) -> bool:
        """Into both tiers."""
        return await self._library.keep(self._inquire(row), answer)

    async def _ask(self, row: Asked) -> None:
        inquiry, begun = self._inquire(row), now()
        mark = inquiry.mark
        assert mark
        self.rows[mark] = row
        found = await self._desk.look_up(inquiry, now=begun)
        if found.known:
            self.demand.asked(TENANT, mark, begun)
            self.on_hit(mark, found.known.answer)
            self._count(found.known.tier, found.known.answer, _HIT_SECONDS)
            return
        reply = await self._flights.share(self._asker(row, mark, begun))
        if self.counts:
            self.waited += now() - begun
        if self.counts and reply.headers["x-isochrone-cache"] != "coalesced":
            self.savings.miss(TENANT, now=now())
            self.dollars += self.engine.dollars(row)

    def _count(self, tier: str, answer: Answer, took: float) -> None:
        if self.counts:
            self.savings.hit(TENANT, tier, answer, took=took, now=now())

    def _inquire(self, row: Asked) -> Inquiry:
        fields = {"model": MODEL, "temperature": 0, "messages": [{"role": "user", "content": row.prompt}]}
        ask = Ask(CHAT, MODEL, False, False, fields)
        return self._desk.inquire(ask, tenant=TENANT, own=OwnAnswers(), private=False, mode=CacheMode.USE, regions=None)

    def _asker(self, row: Asked, mark: str, begun: float) -> Asker:
        async def generate(generation: Generation) -> Reply:
            answer = await self.generate(row)

            async def keep(_: int | None) -> bool:
                return await self.keep(row, answer)

            generation.settle(answer, keep)
            return _reply("miss")

        async def recall() -> Answer | None:
            return await self.known(mark)

        def landed(answer: Answer) -> None:
            self.demand.asked(TENANT, mark, begun)
            self._count("coalesced", answer, now() - begun)

        return Asker(
            mark=mark,
            stream=False,
            include_usage=False,
            ends_at=asyncio.get_running_loop().time() + _PATIENCE,
            priority=5,
            generate=generate,
            recall=recall,
            replay=lambda answer: _reply("coalesced"),
            landed=landed,
        )

    def _answer(self, row: Asked) -> Answer:
        choice = {"index": 0, "message": {"role": "assistant", "content": "."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": row.input_tokens, "completion_tokens": row.output_tokens}
        return Answer(
            operation="chat",
            backend="b",
            created=now(),
            body={"choices": [choice], "usage": usage},
            model=MODEL,
            seconds=self.engine.seconds(row),
            cost=self.engine.dollars(row),
        )


def now() -> float:
    """Epoch seconds of the played clock."""
    return EPOCH + asyncio.get_running_loop().time()


def _never(told: bytes) -> NoReturn:
    raise AssertionError("nothing is streamed here")


def _reply(cache: str) -> Reply:
    return Reply(status=200, headers={"x-isochrone-cache": cache}, body=b"{}")


def figures_of(replay: Replay) -> dict[str, Any]:
    """What came of it, for JSON."""
    return {
        **replay.savings.status(None),
        "waited_seconds": round(replay.waited, 1),
        "generation_dollars": round(replay.dollars, 4),
    }
