"""A stream that dies is gone on with by another attempt, or ends in one error event: never in a lie."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from isochrone.api.controls import Recovery
from isochrone.api.errors import NothingAlive
from isochrone.api.requests import CHAT, Ask
from isochrone.api.sse import DONE_EVENT, SseDecoder
from isochrone.ledger.book import Book
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import plan
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream.delivery import RESTARTED, Delivery
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.pursuit import Won
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.visit import Visit
from tests.upstream import REASONING, TEXT, TOOL_CALL, WORDS, chunk, event, words

STOP = chunk(finish="stop")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
WHOLE = [*words(), STOP, DONE_EVENT]
CUT = words()[:4]
FIELDS: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How far?"}], "stream": True}
ASK = Ask(CHAT, "m", stream=True, include_usage=False, fields=FIELDS)
Script = Sequence[bytes]


class Scene:
    """Backends that each say one script; the first is already open, the others are asked when it dies."""

    def __init__(self, *scripts: Script, recovery: Recovery = Recovery.SPLICE, capture: bool = True) -> None:
        self.scripts = list(scripts)
        self.recovery = recovery
        self.capture = capture
        self.book = Book(MemoryLedgerStore())
        self.completed: list[tuple[str, dict[str, str]]] = []
        self.broken = 0
        self.closed = 0
        facts = [Backend(name=f"pool-{i}", base_url="http://x", models={"m": "m"}) for i in range(len(scripts))]
        self.steps = plan("m", (), Fleet(facts, edge_region="x"), client=None, near="edge", now=0.0)

    async def open(self, number: int) -> Won:
        pieces = list(self.scripts[number])

        async def read(until: float) -> bytes:
            await asyncio.sleep(0)
            return pieces.pop(0) if pieces else b""

        transcript = Transcript(capture=self.capture)
        answer = StreamAnswer(read, transcript, stall=60, ends_at=time.monotonic() + 60, close=self.close)
        visit = Visit(self.steps[number], number + 1, request_id="r", tenant="t", book=self.book)
        await answer.open(time.monotonic() + 60)
        visit.answered(streaming=True)
        return Won(answer, visit, ASK)

    def close(self) -> None:
        self.closed += 1

    async def again(self, made: int, failures: Sequence[AttemptFailed]) -> Won:
        assert len(failures) == made
        if made >= len(self.scripts):
            raise NothingAlive("none is left")
        return await self.open(made)

    async def delivery(self, *, include_usage: bool = False) -> Delivery:
        return Delivery(
            await self.open(0),
            self.again,
            recovery=self.recovery,
            include_usage=include_usage,
            on_complete=self.complete,
            on_broken=self.count_broken,
        )

    def complete(self, won: Won, transcript: Transcript) -> None:
        won.visit.succeeded(transcript.usage)
        self.completed.append((won.visit.step.backend.facts.name, transcript.texts()))

    def count_broken(self) -> None:
        self.broken += 1

    async def told(self, *, include_usage: bool = False) -> bytes:
        delivery = await self.delivery(include_usage=include_usage)
        told = b"".join([data async for data in delivery])
        await delivery.aclose()
        return told

    async def outcomes(self) -> list[str]:
        entries = await self.book.recent("t", limit=9)
        return [entry["outcome"] for entry in sorted(entries, key=lambda entry: int(entry["attempt"]))]


def events_of(told: bytes) -> list[Any]:
    """The data of all events; "[DONE]" stays text."""
    events = [found.data for found in SseDecoder().feed(told) if found.data is not None]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in events]


def text_of(told: bytes, name: str = "content") -> str:
    choices = [choice for one in events_of(told) if isinstance(one, dict) for choice in one.get("choices", ())]
    return "".join(choice["delta"].get(name) or "" for choice in choices)


async def test_sound_stream_passes_through_byte_by_byte() -> None:
    scene = Scene(WHOLE)
    assert await scene.told() == b"".join(WHOLE)
    assert scene.completed == [("pool-0", {"content": TEXT})]
    assert await scene.outcomes() == ["ok"]


async def test_dead_stream_is_gone_on_with_so_that_the_client_sees_one_answer() -> None:
    scene = Scene(CUT, WHOLE)
    told = await scene.told()
    assert text_of(told) == TEXT
    assert events_of(told)[-1] == "[DONE]"
    assert told.count(DONE_EVENT) == 1
    assert (scene.completed, scene.broken) == ([("pool-1", {"content": TEXT})], 0)
    assert await scene.outcomes() == ["cut", "ok"]


@pytest.mark.parametrize("length", range(1, 12))
async def test_join_is_seamless_however_the_second_backend_cuts_its_tokens(length: int) -> None:
    pieces = [TEXT[at : at + length] for at in range(0, len(TEXT), length)]
    told = await Scene(CUT, [*words(pieces), STOP, DONE_EVENT]).told()
    assert text_of(told) == TEXT


async def test_thoughts_are_joined_as_well_as_words() -> None:
    thoughts = words(REASONING, "reasoning_content")
    whole = [*thoughts, *words()[1:], STOP, DONE_EVENT]
    for at in (2, 3, 4, 5):
        told = await Scene(whole[:at], whole).told()
        assert (text_of(told, "reasoning_content"), text_of(told)) == ("".join(REASONING), TEXT)


async def test_third_backend_goes_on_where_the_second_died_too() -> None:
    scene = Scene(CUT, words()[:6], WHOLE)
    told = await scene.told()
    assert text_of(told) == TEXT
    assert await scene.outcomes() == ["cut", "cut", "ok"]


async def test_second_backend_that_dies_earlier_than_the_first_changes_nothing() -> None:
    assert text_of(await Scene(CUT, words()[:2], WHOLE).told()) == TEXT


async def test_usage_is_that_of_the_attempt_that_answered() -> None:
    scene = Scene(CUT, [*words(), STOP, USAGE, DONE_EVENT])
    told = await scene.told(include_usage=True)
    assert [one["usage"] for one in events_of(told) if isinstance(one, dict) and one.get("usage")] == [
        {"prompt_tokens": 1, "completion_tokens": 2}
    ]


@pytest.mark.parametrize(
    "second",
    [
        [*words(["An ", "isochrone ", "is a ", "line."]), STOP, DONE_EVENT],
        [*words(WORDS[:2]), STOP, DONE_EVENT],
        [*words(REASONING, "reasoning_content"), *words()[1:], STOP, DONE_EVENT],
    ],
    ids=["another answer", "shorter answer", "thoughts after words"],
)
async def test_answer_that_says_something_else_is_never_sewn_on(second: Script) -> None:
    scene = Scene(CUT, second)
    told = await scene.told()
    assert text_of(told) == "".join(WORDS[:3])
    assert events_of(told)[-1]["error"]["code"] == "stream_incomplete"
    assert DONE_EVENT not in told
    assert await scene.outcomes() == ["cut", "diverged"]
    assert (scene.completed, scene.broken) == ([], 1)


async def test_stream_that_nobody_can_go_on_with_ends_in_one_error_event() -> None:
    scene = Scene(CUT)
    told = await scene.told()
    errors = [one for one in events_of(told) if isinstance(one, dict) and "error" in one]
    assert len(errors) == 1
    assert errors == events_of(told)[-1:]
    assert "pool-0 ended its stream without a finish_reason" in errors[0]["error"]["message"]
    assert DONE_EVENT not in told
    assert scene.broken == 1


async def test_caller_may_ask_for_the_error_at_once() -> None:
    scene = Scene(CUT, WHOLE, recovery=Recovery.ERROR)
    assert "error" in events_of(await scene.told())[-1]
    assert await scene.outcomes() == ["cut"]


async def test_caller_may_ask_to_begin_anew_behind_a_mark() -> None:
    told = await Scene(CUT, WHOLE, recovery=Recovery.RESTART).told()
    before, after = told.split(RESTARTED)
    assert text_of(before) == "".join(WORDS[:3])
    assert after == b"".join(WHOLE)


async def test_tool_calls_are_not_joined() -> None:
    call = chunk({"tool_calls": [{**TOOL_CALL, "index": 0}]})
    scene = Scene([call], [call, chunk(finish="tool_calls"), DONE_EVENT])
    assert "error" in events_of(await scene.told())[-1]
    assert await scene.outcomes() == ["cut"]


async def test_answer_with_tool_calls_may_still_begin_anew_behind_a_mark() -> None:
    call = chunk({"tool_calls": [{**TOOL_CALL, "index": 0}]})
    whole = [call, chunk(finish="tool_calls"), DONE_EVENT]
    assert await Scene([call], whole, recovery=Recovery.RESTART).told() == call + RESTARTED + b"".join(whole)


async def test_client_that_leaves_lets_go_of_the_backend_at_once() -> None:
    scene = Scene(WHOLE)
    delivery = await scene.delivery()
    async for _ in delivery:
        break
    await delivery.aclose()
    assert (scene.closed, scene.steps[0].backend.in_flight) == (1, 0)
    assert await scene.outcomes() == ["cancelled"]


async def test_backend_is_let_go_of_though_nothing_was_read() -> None:
    scene = Scene(WHOLE)
    await (await scene.delivery()).aclose()
    assert (scene.closed, scene.steps[0].backend.in_flight) == (1, 0)


async def test_every_attempt_gives_its_place_and_its_connection_back() -> None:
    scene = Scene(CUT, words()[:6], WHOLE)
    await scene.told()
    assert scene.closed == 3
    assert [step.backend.in_flight for step in scene.steps] == [0, 0, 0]


async def test_whole_answer_counts_though_the_client_left_before_its_last_byte() -> None:
    scene = Scene([b"".join(words()) + chunk(finish="stop"), DONE_EVENT])
    delivery = await scene.delivery()
    async for _ in delivery:
        break
    await delivery.aclose()
    assert await scene.outcomes() == ["ok"]
    assert len(scene.completed) == 1


async def test_answer_that_is_whole_is_settled_once() -> None:
    scene = Scene(WHOLE)
    await scene.told()
    assert len(scene.completed) == 1
