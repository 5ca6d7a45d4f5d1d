"""Backends that each tell one script, without a network: the first is open, the others are asked next."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from isochrone.api.errors import NothingAlive
from isochrone.api.requests import CHAT, Ask
from isochrone.api.sse import SseDecoder
from isochrone.ledger.book import Book
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.pursuit import Won
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.visit import Visit
from tests.plans import plan
from tests.upstream import chunk, event

USER = {"role": "user", "content": "How far?"}
FIELDS: dict[str, Any] = {"model": "m", "messages": [USER], "stream": True}
ASK = Ask(CHAT, "m", stream=True, include_usage=False, fields=FIELDS)
STOP = chunk(finish="stop")

Pieces = Sequence[bytes]
Script = Pieces | BodyAnswer | Callable[[Ask], Pieces]
Engine = Literal["vllm", "llama.cpp", "openai"]


def usage(prompt: int, completion: int) -> bytes:
    """What an engine says of usage behind its last word."""
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


class Tellers:
    """One backend for each script. `asked` is what each of them was asked; `prefill` those that go on from a text.
    `failures` is what was known of those before the last one."""

    def __init__(
        self,
        *scripts: Script,
        prefill: Sequence[int] = (),
        engine: Engine = "vllm",
        assemble: bool = True,
        ask: Ask = ASK,
        capture: bool = True,
    ) -> None:
        self.scripts = list(scripts)
        self.ask = ask
        self.capture = capture
        self.book = Book(MemoryLedgerStore())
        self.asked: list[Ask] = []
        self.failures: list[AttemptFailed] = []
        self.closed = 0
        self.pause = 0.0
        facts = [
            Backend(
                name=f"pool-{i}",
                base_url="http://x",
                models={"m": "m"},
                prefill=i in prefill,
                engine=engine,
                assemble=assemble,
            )
            for i in range(len(scripts))
        ]
        self.steps = plan("m", (), Fleet(facts, edge_region="x"), client=None, near="edge", now=0.0)

    async def open(self, number: int, ask: Ask | None = None) -> Won:
        """Ask the next backend."""
        ask, script = ask or self.ask, self.scripts[number]
        self.asked.append(ask)
        visit = Visit(self.steps[number], number + 1, request_id="r", tenant="t", book=self.book)
        if isinstance(script, BodyAnswer):
            visit.answered(streaming=False)
            return Won(script, visit, ask, made=visit.number)
        pieces = list(script(ask) if callable(script) else script)

        async def read(until: float) -> bytes:
            await asyncio.sleep(0)
            return pieces.pop(0) if pieces else b""

        transcript = Transcript(capture=self.capture, gives_reasons=self.steps[number].offer.gives_reasons)
        answer = StreamAnswer(read, transcript, stall=60, ends_at=time.monotonic() + 60, close=self._close)
        try:
            await answer.open(time.monotonic() + 60)
        except AttemptFailed as failure:
            visit.failed(failure)
            await answer.release()
            raise
        visit.answered(streaming=True)
        return Won(answer, visit, ask, made=visit.number)

    def _close(self) -> None:
        self.closed += 1

    async def again(self, made: int, failures: Sequence[AttemptFailed], ask_for: Callable[[Step], Ask]) -> Won:
        """The next attempt, as the pipeline would give it."""
        self.failures = list(failures)
        await asyncio.sleep(self.pause)
        for number in range(made, len(self.scripts)):
            try:
                won = await self.open(number, ask_for(self.steps[number]))
            except AttemptFailed as failure:
                self.failures.append(failure)
            else:
                return won._replace(failures=tuple(self.failures))
        raise NothingAlive("none is left")

    @property
    def in_flight(self) -> list[int]:
        """Requests that each backend is thought to have."""
        return [step.backend.in_flight for step in self.steps]

    async def entries(self) -> list[dict[str, Any]]:
        """The ledger, by attempt."""
        return sorted(await self.book.recent("t", limit=9), key=lambda entry: int(entry["attempt"]))

    async def outcomes(self) -> list[str]:
        """Of each attempt."""
        return [entry["outcome"] for entry in await self.entries()]


def events_of(told: bytes) -> list[Any]:
    """The data of all events; "[DONE]" stays text."""
    events = [found.data for found in SseDecoder().feed(told) if found.data is not None]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in events]


def text_of(told: bytes, name: str = "content") -> str:
    """What a stream says in one field."""
    choices = [choice for one in events_of(told) if isinstance(one, dict) for choice in one.get("choices", ())]
    return "".join(choice["delta"].get(name) or "" for choice in choices)


def usages_of(told: bytes) -> list[Any]:
    """Every usage object of a stream."""
    return [one["usage"] for one in events_of(told) if isinstance(one, dict) and one.get("usage")]
