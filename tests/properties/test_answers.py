"""A fingerprint tells apart whatever may change an answer, and nothing else; a replayed answer says what was stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Literal
from unicodedata import normalize

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from isochrone.answers.codec import from_bytes, to_bytes
from isochrone.answers.completion import Answer, is_complete, replay_body, replay_stream
from isochrone.answers.fingerprint import fingerprint
from isochrone.api.errors import BadRequest
from isochrone.api.requests import CHAT, COMPLETION, parse
from isochrone.api.shape import Guard
from isochrone.api.sse import SseDecoder
from isochrone.settings import Limits
from isochrone.upstream.gathering import Gathering

NOW = 1_800_000_000.0
EVERYTHING = ("tools", "logprobs", "choices", "length")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": texts},
    optional={"name": texts, "extra": values},
)
bodies = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(turns, min_size=1, max_size=3)},
    optional={
        "temperature": st.none() | st.floats(0, 2) | st.integers(0, 2),
        "seed": st.none() | st.integers(0, 2**40),
        "stop": st.none() | texts | st.lists(texts, max_size=2),
        "response_format": st.none() | st.dictionaries(texts, values, max_size=2),
        "something_new": values,
    },
)


def mark(body: Any, **ways: Any) -> str:
    return fingerprint("t", parse(CHAT, json.dumps(body, **ways).encode(), None, Guard(Limits())))


def rewritten(value: Any, draw: st.DataObject) -> Any:
    """The same value, written otherwise: fields in another order, whole numbers with a point or without."""
    if isinstance(value, dict):
        names = draw.draw(st.permutations(list(value)))
        return {name: rewritten(value[name], draw) for name in names}
    if isinstance(value, list):
        return [rewritten(one, draw) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is int and draw.draw(st.booleans()):
        return float(value)
    return value


@given(bodies, st.data())
@settings(max_examples=300)
def test_same_request_written_otherwise_has_the_same_fingerprint(body: dict[str, Any], draw: st.DataObject) -> None:
    other = rewritten(body, draw)
    for name in ("seed", "max_tokens"):  # options of which a whole number with a point would be refused
        if name in body:
            other[name] = body[name]
    form: Literal["NFC", "NFD"] = draw.draw(st.sampled_from(("NFC", "NFD")))
    for turn in other["messages"]:
        turn["content"] = normalize(form, turn["content"])
    assert mark(other, indent=draw.draw(st.none() | st.integers(0, 3)), ensure_ascii=False) == mark(body)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all that is no object and no list, and to the empty ones."""
    if isinstance(value, dict | list) and value:
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*path, name))
    else:
        yield path


def as_meant(body: dict[str, Any]) -> dict[str, Any]:
    """What two requests must agree in to be the same, said without the code under test."""
    body = {name: value for name, value in body.items() if value is not None or name == "something_new"}
    return body | {"messages": [turn | {"content": composed(turn["content"])} for turn in body["messages"]]}


def composed(content: Any) -> Any:
    return normalize("NFC", content) if isinstance(content, str) else content


def exactly(value: Any) -> Any:
    """Comparable by type too: in Python True is 1."""
    if isinstance(value, dict):
        return {name: exactly(one) for name, one in value.items()}
    if isinstance(value, list):
        return [exactly(one) for one in value]
    return (isinstance(value, bool), value)


@given(bodies, values, st.data())
@settings(max_examples=500)
def test_any_other_value_in_any_place_has_another_fingerprint(
    body: dict[str, Any], value: Any, draw: st.DataObject
) -> None:
    *way, last = draw.draw(st.sampled_from([path for path in leaves(body) if path[0] != "model"]))
    other = deepcopy(body)
    place = other
    for name in way:
        place = place[name]
    place[last] = value
    try:
        changed = mark(other)
    except BadRequest:
        assume(False)  # what is refused has no fingerprint
    assert (changed == mark(body)) == (exactly(as_meant(other)) == exactly(as_meant(body)))


@given(bodies, texts.map(lambda name: "x-" + name), values)
@settings(max_examples=200)
def test_field_that_nobody_knows_makes_another_fingerprint(body: dict[str, Any], name: str, value: Any) -> None:
    assert mark({**body, name: value}) != mark(body)


calls = st.fixed_dictionaries(
    {
        "id": texts.filter(len),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": texts.filter(len), "arguments": texts | st.just("[1]" * 5000)}),
    }
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts | texts.map(lambda text: text * 900)},
    optional={"refusal": texts.filter(len), "reasoning_content": texts.filter(len)},
)
token = st.fixed_dictionaries(
    {"token": texts, "logprob": st.floats(-9, 0), "bytes": st.none(), "top_logprobs": st.just([])}
)
logprobs = st.none() | st.fixed_dictionaries({"content": st.lists(token, min_size=1, max_size=3)})


@st.composite
def chat_bodies(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message: dict[str, Any] = dict(draw(messages))
        if called := draw(st.lists(calls, max_size=3)):
            message["tool_calls"] = called
        reason = "tool_calls" if called else draw(st.sampled_from(["stop", "length"]))
        choices.append({"index": index, "message": message, "logprobs": draw(logprobs), "finish_reason": reason})
    usage = {"prompt_tokens": draw(st.integers(0, 99)), "completion_tokens": 5, "total_tokens": 9}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "there"}
    return {**head, "choices": choices, "usage": usage}


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    decoder = SseDecoder()
    events = [event.data or b"" for event in decoder.feed(stream)]
    assert decoder.close() == ([], False)
    assert events[-1] == b"[DONE]"
    return [json.loads(data) for data in events[:-1]]


def forms_of(body: dict[str, Any], operation: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The replayed body, and the chunks of the replayed stream, of an answer that went through the store."""
    stored = from_bytes(to_bytes(Answer(operation, "pool", NOW, body)))
    assert stored
    return (
        json.loads(replay_body(stored, request_id="r", now=NOW)),
        chunks_of(replay_stream(stored, request_id="r", now=NOW, include_usage=True)),
    )


@given(chat_bodies())
@settings(max_examples=200, deadline=None)
def test_openais_client_makes_of_the_replayed_stream_what_the_body_says(body: dict[str, Any]) -> None:
    assert is_complete(body, EVERYTHING, choices=len(body["choices"]))
    whole, chunks = forms_of(body, "chat")
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        list(state.handle_chunk(ChatCompletionChunk.model_validate(chunk)))
    told = ChatCompletion.model_validate(state.current_completion_snapshot.to_dict())
    expected = ChatCompletion.model_validate(whole)
    assert told.usage == expected.usage
    for one, other in zip(told.choices, expected.choices, strict=True):
        assert one.finish_reason == other.finish_reason
        assert said_by(one.message.to_dict()) == said_by(other.message.to_dict())
        assert said_by(one.logprobs) == said_by(other.logprobs)


def said_by(part: Any) -> Any:
    """Without what is empty, and the indexes that only streams have."""
    if hasattr(part, "to_dict"):
        part = part.to_dict()
    if isinstance(part, dict):
        said = {name: said_by(value) for name, value in part.items() if name not in ("index", "parsed_arguments")}
        return {name: value for name, value in said.items() if value not in (None, "", [])}
    return [said_by(one) for one in part] if isinstance(part, list) else part


@given(chat_bodies())
@settings(max_examples=100, deadline=None)
def test_stream_that_is_put_together_again_is_the_body(body: dict[str, Any]) -> None:
    whole, chunks = forms_of(body, "chat")
    gathering = Gathering()
    for chunk in chunks:
        gathering.add(chunk)
    again = gathering.body(CHAT, model="m", usage=whole["usage"], now=0)
    assert said_by(again) == said_by(whole)


@given(
    st.lists(texts | texts.map(lambda text: text * 900), min_size=1, max_size=3),
    st.sampled_from(["stop", "length"]),
    st.none() | st.fixed_dictionaries({"tokens": st.lists(texts, max_size=3), "text_offset": st.just([])}),
)
@settings(max_examples=100)
def test_stream_of_the_older_route_is_its_body(said: list[str], reason: str, logprobs: Any) -> None:
    ends = {"logprobs": logprobs, "finish_reason": reason, "stop_reason": "x"}
    choices = [{"index": index, "text": text, **ends} for index, text in enumerate(said)]
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices, "usage": None}
    whole, chunks = forms_of(body, "completion")
    gathering = Gathering()
    for chunk in chunks:
        gathering.add(chunk)
    assert said_by(gathering.body(COMPLETION, model="m", usage={}, now=0) | {"usage": None}) == said_by(whole)
