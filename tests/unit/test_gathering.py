"""The body of a gathered stream is what the route without streaming would have given."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.api.requests import CHAT, COMPLETION, Operation
from isochrone.upstream.gathering import Gathering

USAGE = {"prompt_tokens": 1, "completion_tokens": 2}
HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "there"}


def gathered(*choices: dict[str, Any], operation: Operation = CHAT, **facts: Any) -> dict[str, Any]:
    gathering = Gathering()
    for choice in choices:
        gathering.add({**HEAD, **facts, "choices": [{"index": 0, "logprobs": None, "finish_reason": None, **choice}]})
    return gathering.body(operation, model="m", usage=USAGE, now=9)


def message_of(*deltas: dict[str, Any]) -> Any:
    return gathered(*({"delta": delta} for delta in deltas))["choices"][0]["message"]


def test_words_and_thoughts_are_put_end_to_end() -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": None, "reasoning_content": "so "},
        {"reasoning_content": "far", "content": None},
        {"content": "not "},
        {"role": "assistant", "content": "far"},
    ]
    body = gathered(*({"delta": delta} for delta in deltas), {"delta": {}, "finish_reason": "stop"})
    assert body == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 7,
        "model": "there",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "not far", "reasoning_content": "so far"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_older_route_has_its_text() -> None:
    body = gathered({"text": "not "}, {"text": "far"}, {"text": "", "finish_reason": "stop"}, operation=COMPLETION)
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "logprobs": None, "finish_reason": "stop", "text": "not far"}]


def test_calls_are_gathered_by_their_index_and_lose_it() -> None:
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
    message = message_of(
        {"role": "assistant", "content": None, "tool_calls": [first]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}, second]},
        {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": ": 1}"}}]},
    )
    assert message == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_older_call_is_gathered() -> None:
    message = message_of({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})
    assert message == {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}


def test_empty_answer_is_an_empty_text() -> None:
    assert gathered({"delta": {}, "finish_reason": "stop"})["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
    }


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["a", "b"], "ab"),
        ([1, 2], 2),
        ([1, 0], 0),
        ([True, False], False),
        ([True, None], True),
        ([1, "a", "b"], "ab"),
        (["a", [1]], [1]),
        ([None, None], None),
        ([[1], [2]], [1, 2]),
        ([{"a": "x"}, {"a": "y", "b": 1}], {"a": "xy", "b": 1}),
        (
            [[{"index": 0, "type": "t", "text": "a"}], [{"index": 0, "type": "t", "text": "b"}, {"index": 1, "n": 1}]],
            [{"index": 0, "type": "t", "text": "ab"}, {"index": 1, "n": 1}],
        ),
        ([[{"url": "u"}], [{"url": "v"}]], [{"url": "u"}, {"url": "v"}]),
    ],
    ids=str,
)
def test_fields_that_nobody_knows_are_kept(pieces: list[Any], whole: Any) -> None:
    assert message_of(*({"unheard_of": piece} for piece in pieces))["unheard_of"] == whole


def test_facts_of_the_whole_are_those_that_were_told_last() -> None:
    gathering = Gathering()
    gathering.add({"id": "c-1", "citations": ["a"], "choices": [{"delta": {"content": "x"}, "stop_reason": None}]})
    gathering.add({"id": "c-1", "citations": ["a", "b"], "obfuscation": "xyz", "choices": [{"stop_reason": 12}]})
    gathering.add({"id": None, "timings": {"n": 1}, "choices": []})
    body = gathering.body(CHAT, model="m", usage=USAGE, now=9)
    assert body["citations"] == ["a", "b"]
    assert body["choices"][0]["stop_reason"] == 12
    assert (body["id"], body["created"], body["model"], body["timings"]) == ("c-1", 9, "m", {"n": 1})
    assert "obfuscation" not in body


def test_log_probabilities_are_put_end_to_end() -> None:
    body = gathered({"logprobs": {"content": [{"token": "a"}]}}, {"logprobs": {"content": [{"token": "b"}]}})
    assert body["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


def test_chunks_without_anything_add_nothing() -> None:
    gathering = Gathering()
    gathering.add({})
    gathering.add({"choices": None})
    assert gathering.body(CHAT, model="m", usage=USAGE, now=9)["choices"] == []


@pytest.mark.parametrize("message", [None, [], "not far", False])
def test_message_beside_a_delta_that_is_none_does_no_harm(message: Any) -> None:
    body = gathered({"delta": {"content": "not "}, "message": message}, {"delta": {"content": "far"}})
    assert body["choices"][0]["message"]["content"] == "not far"


def test_message_beside_each_delta_that_says_all_so_far_is_not_told_twice() -> None:
    texts = [("not ", "not "), ("far", "not far")]
    body = gathered(*({"delta": {"content": new}, "message": {"content": whole}} for new, whole in texts))
    assert body["choices"][0]["message"]["content"] == "not far"
