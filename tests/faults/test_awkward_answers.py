"""Answers that are large, long, empty or odd: each is served whole, and known again over the table or not at all."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from tests.faults.harness import RunningEdge, backend
from tests.faults.test_two_edges import region
from tests.upstream import Exchange, Script, Upstream, chunk, completion, ending

PATIENT = {"connect": 1.0, "first_token": 10.0, "stall": 10.0, "total": 60.0}


def han(count: int) -> str:
    """Text that compresses badly: three bytes a character, about half of them after compression."""
    letters = Random(count)
    return "".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(count))


def saying(text: str, piece: int) -> Script:
    """A stream of pieces so long each, or a body."""

    async def script(exchange: Exchange) -> None:
        if not exchange.wants_stream:
            await exchange.json(completion({"content": text}))
            return
        pieces = (chunk({"content": text[start : start + piece]}) for start in range(0, len(text), piece))
        await exchange.stream([chunk({"role": "assistant", "content": ""}), *pieces, *ending(exchange)])

    return script


AWKWARD = {
    "140,000 Chinese characters": (han(140_000), 5000),
    "more than an item": (han(400_000), 20_000),
    "10,000 tiny events": ("word " * 2000, 1),
    "nothing": ("", 1),
    "NUL and line separators": ("\x00\u2028\u2029\u0085\r\n\n data: [DONE]\n\n\ufeff", 2),
}


async def asked(edge: RunningEdge, **options: Any) -> tuple[str, str]:
    """(how it was known, what it said) of one question."""
    answer = await edge.chat(**options)
    assert answer.status == 200
    await edge.settled()
    return answer.headers["x-isochrone-cache"], answer.text()


@pytest.mark.cloud
@pytest.mark.parametrize(("text", "piece"), AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("stream", [False, True], ids=["body first", "stream first"])
async def test_awkward_answer_is_served_whole_and_known_to_the_next_edge_in_either_form(
    ministack: str, near: Upstream, text: str, piece: int, stream: bool
) -> None:
    near.scripts["awkward"] = saying(text, piece)
    async with region(ministack, backend(near, "awkward"), deadlines=PATIENT) as start:
        async with start() as one:
            assert await asked(one, stream=stream) == ("miss", text)
        async with start() as other:
            assert await asked(other, stream=stream) == ("hit", text)
            assert await asked(other, stream=not stream) == ("hit", text)
    assert len(near.requests) == 1


@pytest.mark.cloud
async def test_answer_too_large_for_the_table_is_served_whole_counted_and_known_to_this_edge_alone(
    ministack: str, near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DynamoAnswerStore, "max_bytes", 10_000)
    text = han(10_000)
    near.scripts["awkward"] = saying(text, 500)
    async with region(ministack, backend(near, "awkward"), deadlines=PATIENT) as start:
        async with start() as one:
            assert await asked(one, stream=True) == ("miss", text)
            assert await asked(one) == ("hit", text)
            assert (await one.status())["counters"]["answers_too_large"] == 1
        async with start() as other:
            assert await asked(other) == ("miss", text)
