"""A caller who wants no stream gets a whole body or an error, whatever befalls the stream that tells it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from isochrone.api.errors import NothingAlive
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask
from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.upstream.assembly import asked_of, assemble
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.pursuit import Won
from tests.tellings import FIELDS, STOP, USER, Script, Tellers, usage
from tests.upstream import FUNCTION, REASONING, TEXT, TOOL_CALL, WORDS, chunk, event, words

BODY_FIELDS = {name: value for name, value in FIELDS.items() if name != "stream"}
ASK = Ask(CHAT, "m", stream=False, include_usage=False, fields=BODY_FIELDS)
WHOLE = [*words(), STOP, usage(1, 9), DONE_EVENT]
CUT = words()[:4]


class Scene(Tellers):
    """Backends that are asked for streams on behalf of a caller who wants a body."""

    def __init__(self, *scripts: Script, **more: Any) -> None:
        super().__init__(*scripts, **{"ask": ASK, **more})

    async def won(self) -> Won:
        return await assemble(await self.open(0, asked_of(self.ask, self.steps[0])), self.again, self.ask)

    async def body(self) -> dict[str, Any]:
        answer = (await self.won()).answer
        assert isinstance(answer, BodyAnswer)
        assert msgspec.json.decode(answer.raw) == answer.body
        return answer.body

    async def text(self) -> str:
        said: str = (await self.body())["choices"][0]["message"]["content"]
        return said


async def test_body_is_that_of_the_route_without_streaming() -> None:
    scene = Scene([KEEP_ALIVE, *WHOLE])
    assert await scene.body() == {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 9},
    }
    assert scene.asked[0].fields["stream"] is True
    assert await scene.outcomes() == ["ok"]


async def test_thoughts_and_calls_are_in_the_body() -> None:
    call = chunk({"tool_calls": [{**TOOL_CALL, "index": 0}]})
    scene = Scene([*words(REASONING, "reasoning_content"), call, chunk(finish="tool_calls"), DONE_EVENT])
    message = (await scene.body())["choices"][0]["message"]
    assert message["reasoning_content"] == "".join(REASONING)
    assert message["tool_calls"] == [TOOL_CALL]
    assert message["tool_calls"][0]["function"] == FUNCTION


async def test_events_without_a_chunk_are_passed_over() -> None:
    noise = [b": busy\n\n", b"data:  \n\n", event(None), event({})]
    assert await Scene([*noise, *words()[:5], *noise, *words(WORDS[4:]), *noise, STOP, *noise]).text() == TEXT


@pytest.mark.parametrize("again", ["anew", "from there"])
async def test_body_whose_stream_dies_is_told_by_another(again: str) -> None:
    goes_on = again == "from there"
    scene = Scene(CUT, [*words(WORDS[3:]), STOP, DONE_EVENT] if goes_on else WHOLE, prefill=[1] if goes_on else [])
    assert await scene.text() == TEXT
    assert scene.asked[1].continues is goes_on
    assert scene.asked[1].stream
    assert await scene.outcomes() == ["cut", "ok"]
    assert (scene.in_flight, scene.closed) == ([0, 0], 2)


async def test_answer_that_says_something_else_is_welcome_since_nobody_has_seen_the_first() -> None:
    other = [*words(["A ", "line."]), STOP, DONE_EVENT]
    assert await Scene(CUT, other).text() == "A line."


async def test_usage_of_a_body_told_by_two_counts_its_prompt_once_and_all_words() -> None:
    scene = Scene(CUT, [*words(WORDS[3:]), STOP, usage(13, 6), DONE_EVENT], prefill=[1])
    assert (await scene.body())["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 9,
        "total_tokens": 19,
        "estimated": True,
    }
    assert [(entry["output_tokens"], entry["usage_estimated"]) for entry in await scene.entries()] == [
        (3, True), (6, False)
    ]  # fmt: skip


async def test_usage_that_no_engine_said_is_an_estimate_that_says_so() -> None:
    scene = Scene([*words(), STOP, DONE_EVENT])
    assert (await scene.body())["usage"]["estimated"] is True
    assert (await scene.entries())[0]["usage_estimated"]


async def test_second_telling_that_died_is_forgotten_for_the_third() -> None:
    """What was told last goes on, not what was told longest: nothing of it was shown."""
    rest = [*words(["of ", "equal time."]), STOP, usage(12, 2), DONE_EVENT]
    scene = Scene(words()[:6], [*words(["A ", "line "])], rest, prefill=[2])
    body = await scene.body()
    assert body["choices"][0]["message"]["content"] == "A line of equal time."
    assert body["usage"].items() >= {"prompt_tokens": 10, "completion_tokens": 4}.items()
    assert scene.asked[2].fields["messages"][-1]["content"] == "A line "


async def test_text_can_be_gone_on_with_although_the_telling_before_it_could_not() -> None:
    call = chunk({"audio": {"data": "AAAA"}})
    scene = Scene([call], CUT, [*words(WORDS[3:]), STOP, DONE_EVENT], prefill=[1, 2])
    assert await scene.text() == TEXT
    assert [ask.continues for ask in scene.asked] == [False, False, True]


async def test_rest_that_begins_with_thoughts_leaves_the_beginning_for_the_next() -> None:
    thinking = [*words(REASONING, "reasoning_content"), STOP, DONE_EVENT]
    scene = Scene(CUT, thinking, [*words(WORDS[3:]), STOP, DONE_EVENT], prefill=[1, 2])
    assert await scene.text() == TEXT
    assert await scene.outcomes() == ["cut", "diverged", "ok"]


async def test_calls_are_told_anew_also_by_a_backend_that_takes_a_prefill() -> None:
    call = chunk({"tool_calls": [{**TOOL_CALL, "index": 0}]})
    scene = Scene([call], [call, chunk(finish="tool_calls"), DONE_EVENT], prefill=[1])
    assert (await scene.body())["choices"][0]["message"]["tool_calls"] == [TOOL_CALL]
    assert not scene.asked[1].continues


async def test_text_that_was_not_kept_is_told_anew() -> None:
    scene = Scene(CUT, WHOLE, prefill=[1], capture=False)
    assert await scene.text() == TEXT


async def test_backend_that_answers_with_a_body_is_passed_as_it_is() -> None:
    body = {"choices": [1], "usage": {"prompt_tokens": 1}}
    whole = BodyAnswer(b'{"choices": [ 1 ], "usage": {"prompt_tokens": 1}}', body)
    first, after = Scene(whole), Scene(CUT, whole)
    assert (await first.won()).answer is whole
    assert (await after.won()).answer is whole
    assert (first.in_flight, after.in_flight) == ([1], [0, 1])


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "An isochrone."}}], "usage": None}, 3),
        ({"choices": [{"message": {"content": None, "reasoning_content": "So far", "refusal": "no"}}]}, 3),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f"}}]}}]}, 7),
        ({"choices": [{"text": "An isochrone."}, {"text": "An isochrone."}]}, 6),
        ({"choices": ["An isochrone.", {"message": "?"}]}, 0),
        ({"data": [{"embedding": [0.5]}]}, 0),
    ],
)
async def test_body_whose_engine_counts_no_tokens_gets_an_estimate(body: dict[str, Any], tokens: int) -> None:
    scene = Scene(BodyAnswer(b"{}", body))
    told = await scene.body()
    assert {**told, "usage": None} == {**body, "usage": None}
    assert told["usage"]["estimated"] is True
    assert told["usage"]["completion_tokens"] == pytest.approx(tokens, abs=1)
    assert told["usage"]["prompt_tokens"] > 0


async def test_body_that_nobody_tells_to_its_end_is_an_error() -> None:
    scene = Scene(CUT, CUT)
    with pytest.raises(NothingAlive):
        await scene.body()
    assert await scene.outcomes() == ["cut", "cut"]
    assert (scene.in_flight, scene.closed) == ([0, 0], 2)


async def test_client_that_leaves_lets_go_of_the_backend_and_is_booked_with_what_was_told() -> None:
    async def endless(_: float) -> bytes:
        await asyncio.sleep(0)
        return words()[1]

    scene = Scene(CUT)
    won = await scene.open(0, asked_of(ASK, scene.steps[0]))
    won.answer._read_chunk = endless  # type: ignore[union-attr]
    task = asyncio.create_task(assemble(won, scene.again, ASK))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (scene.in_flight, scene.closed) == ([0], 1)
    (entry,) = await scene.entries()
    assert entry["outcome"] == "cancelled"
    assert entry["output_tokens"] > 3


# -- when a stream is asked for ----------------------------------------------------------------------------------------


def is_asked_for_a_stream(ask: Ask, *, last_ms: float | None = None, assemble: bool = True) -> bool:
    step = Scene(WHOLE, assemble=assemble).steps[0]
    if last_ms is not None:
        step.offer.speed.on_answer(last_ms, now=time.monotonic())
    asked = asked_of(ask, step)
    assert asked.stream is bool(asked.fields.get("stream"))
    return asked.stream


@pytest.mark.parametrize(("last_ms", "stream"), [(None, True), (1999.9, False), (2000.0, True)])
def test_body_is_asked_for_as_one_where_answers_come_soon(last_ms: float | None, stream: bool) -> None:
    assert is_asked_for_a_stream(ASK, last_ms=last_ms) is stream


def test_backend_that_shall_not_be_asked_for_streams_is_not() -> None:
    assert not is_asked_for_a_stream(ASK, assemble=False)


def test_caller_who_wants_a_stream_is_asked_for_nothing_else() -> None:
    ask = ASK._replace(stream=True, fields=FIELDS)
    step = Scene(WHOLE).steps[0]
    assert asked_of(ask, step) is ask


def test_older_route_is_assembled_as_well() -> None:
    assert is_asked_for_a_stream(Ask(COMPLETION, "m", False, False, {"prompt": "a"}))
    assert is_asked_for_a_stream(Ask(COMPLETION, "m", False, False, {"prompt": ["a", "b"]}))


@pytest.mark.parametrize("wish", [{"n": 2}, {"logprobs": True, "top_logprobs": 2}])
def test_several_choices_and_log_probabilities_are_assembled_too(wish: dict[str, Any]) -> None:
    assert is_asked_for_a_stream(ASK._replace(fields={**BODY_FIELDS, **wish}))


@pytest.mark.parametrize(
    "ask",
    [
        Ask(EMBEDDING, "m", False, False, {"input": "a"}),
        Ask(COMPLETION, "m", False, False, {"prompt": "a", "logprobs": 1}),
        Ask(COMPLETION, "m", False, False, {"prompt": "a", "best_of": 2}),
        *(
            ASK._replace(fields={**BODY_FIELDS, **wish})
            for wish in ({"modalities": ["text", "audio"]}, {"prompt_logprobs": 1})
        ),
    ],
    ids=["embedding", "logprobs", "best of", "audio", "prompt logprobs"],
)
def test_what_only_a_body_says_is_asked_for_as_one(ask: Ask) -> None:
    assert asked_of(ask, Scene(WHOLE).steps[0]) is ask


async def test_stream_that_is_gone_on_with_is_asked_in_the_callers_words() -> None:
    scene = Scene(CUT, [*words(WORDS[3:]), STOP, DONE_EVENT], prefill=[1])
    await scene.body()
    beginning = {"role": "assistant", "content": "".join(WORDS[:3])}
    assert scene.asked[1].fields["messages"] == [USER, beginning]
