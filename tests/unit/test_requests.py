from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.api.errors import BadRequest, WrongContentType
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask, Operation, parse
from isochrone.api.shape import Guard
from isochrone.settings import Limits

GUARD = Guard(Limits(messages=3))
USER = {"role": "user", "content": "How far?"}
CHAT_BODY: dict[str, Any] = {"model": "m", "messages": [USER]}


def asked(body: Any, operation: Operation = CHAT, content_type: str | None = "application/json") -> Ask:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(operation, raw, content_type, GUARD)


def refused(body: Any, operation: Operation = CHAT) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        asked(body, operation)
    return caught.value


def test_everything_that_was_sent_is_kept_as_it_was() -> None:
    body = {
        **CHAT_BODY,
        "guided_json": {"type": "object"},
        "chat_template_kwargs": {"enable_thinking": False},
        "seed": 2**63,
        "logit_bias": {"50256": -100},
        "x": [None, 1.5, "é🌍\u2028"],
    }
    ask = asked(body)
    assert ask.fields == body
    assert (ask.operation, ask.model, ask.stream, ask.include_usage) == (CHAT, "m", False, False)


@pytest.mark.parametrize(
    ("fields", "stream", "include_usage"),
    [
        ({}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"include_usage": False, "more": 1}}, True, False),
    ],
)
def test_stream_and_usage_are_as_asked(fields: dict[str, Any], stream: bool, include_usage: bool) -> None:
    ask = asked({**CHAT_BODY, **fields})
    assert (ask.stream, ask.include_usage) == (stream, include_usage)


@pytest.mark.parametrize(
    "content",
    ["text", "", None, [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]],
)
def test_content_may_be_text_parts_or_nothing(content: Any) -> None:
    message = {"role": "user", "content": content}
    assert asked({**CHAT_BODY, "messages": [message]}).fields["messages"] == [message]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "model", "missing_required_parameter"),
        ({"model": "m"}, "messages", "missing_required_parameter"),
        ({**CHAT_BODY, "model": ""}, "model", "invalid_value"),
        ({**CHAT_BODY, "model": 5}, "model", "invalid_type"),
        ({**CHAT_BODY, "model": None}, "model", "invalid_type"),
        ({**CHAT_BODY, "model": "m" * 257}, "model", "invalid_value"),
        ({**CHAT_BODY, "messages": []}, "messages", "invalid_value"),
        ({**CHAT_BODY, "messages": None}, "messages", "invalid_type"),
        ({**CHAT_BODY, "messages": "hello"}, "messages", "invalid_type"),
        ({**CHAT_BODY, "messages": {"0": USER}}, "messages", "invalid_type"),
        ({**CHAT_BODY, "messages": ["hello"]}, "messages[0]", "invalid_type"),
        ({**CHAT_BODY, "messages": [USER, {}]}, "messages[1].role", "missing_required_parameter"),
        ({**CHAT_BODY, "messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        ({**CHAT_BODY, "messages": [{"role": ""}]}, "messages[0].role", "invalid_value"),
        ({**CHAT_BODY, "messages": [{**USER, "content": 5}]}, "messages[0].content", "invalid_type"),
        ({**CHAT_BODY, "messages": [{**USER, "content": [5]}]}, "messages[0].content[0]", "invalid_type"),
        ({**CHAT_BODY, "messages": [USER] * 4}, "messages", "invalid_value"),
        ({**CHAT_BODY, "stream": "true"}, "stream", "invalid_type"),
        ({**CHAT_BODY, "stream": 1}, "stream", "invalid_type"),
        ({**CHAT_BODY, "stream_options": []}, "stream_options", "invalid_type"),
        ({**CHAT_BODY, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({**CHAT_BODY, "temperature": 2.1}, "temperature", "invalid_value"),
        ({**CHAT_BODY, "temperature": -1}, "temperature", "invalid_value"),
        ({**CHAT_BODY, "temperature": "hot"}, "temperature", "invalid_type"),
        ({**CHAT_BODY, "top_p": 1.1}, "top_p", "invalid_value"),
        ({**CHAT_BODY, "n": 0}, "n", "invalid_value"),
        ({**CHAT_BODY, "n": 1_000_000}, "n", "invalid_value"),
        ({**CHAT_BODY, "n": True}, "n", "invalid_type"),
        ({**CHAT_BODY, "max_tokens": 0}, "max_tokens", "invalid_value"),
        ({**CHAT_BODY, "max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({**CHAT_BODY, "max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({**CHAT_BODY, "stop": 5}, "stop", "invalid_type"),
        ({**CHAT_BODY, "stop": [5]}, "stop[0]", "invalid_type"),
        ({**CHAT_BODY, "tools": {}}, "tools", "invalid_type"),
        ({**CHAT_BODY, "tools": ["rtt"]}, "tools[0]", "invalid_type"),
        ({**CHAT_BODY, "response_format": "json"}, "response_format", "invalid_type"),
        ({**CHAT_BODY, "user": 7}, "user", "invalid_type"),
    ],
)
def test_wrong_field_is_named(body: Any, param: str, code: str) -> None:
    error = refused(body)
    assert (error.param, error.code) == (param, code)
    assert f"'{param}'" in error.message
    assert "`" not in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"{",
        b"{'model': 'm'}",
        b'{"model": "m",}',
        b'{"model": NaN}',
        b'{"model": Infinity}',
        b'{"model": 1e999}',
        b'{"model": ' + b"9" * 5000 + b"}",
        b'{"model": "\\ud800"}',
        b'{"model": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b'{"a": ' * 100_000,
        b"[" * 100_000,
        b"[]",
        b"null",
        b'"text"',
        b"5",
        b"{} {}",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    assert refused(raw).code == "invalid_json"


@pytest.mark.parametrize("raw", [b'{"model": "\\ud800"}', b'{"model": "m'])
def test_half_a_surrogate_pair_is_not_called_a_body_that_was_cut(raw: bytes) -> None:
    assert "ends too early, or one half of a surrogate pair stands alone" in refused(raw).message


@pytest.mark.parametrize("unit", [b"[]", b"{}"])
def test_body_of_countless_containers_is_refused_unparsed(unit: bytes) -> None:
    raw = b'{"model": "m", "x": [' + b",".join([unit] * 200_000) + b"]"
    error = refused(raw)
    assert "200000" in error.message
    assert (error.code, error.param) == ("body_too_complex", None)


def test_long_text_may_hold_many_brackets() -> None:
    body = {**CHAT_BODY, "messages": [{**USER, "content": "[x] " * 150_000}]}
    assert asked(body).fields == body


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": "a", "n": None}, 1),
        ({"prompt": "a", "n": 3}, 3),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": []}, 1),
    ],
)
def test_every_prompt_has_n_answers(fields: dict[str, Any], choices: int) -> None:
    assert asked({"model": "m", **fields}, COMPLETION).choices == choices


@pytest.mark.parametrize(("said", "texts"), [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)])
def test_every_input_has_one_embedding(said: Any, texts: int) -> None:
    assert asked({"model": "m", "input": said, "n": 7}, EMBEDDING).choices == texts


@pytest.mark.parametrize("again", ["model", "mod\\u0065l", "messages", "stream"])
def test_field_that_stands_twice_is_refused_however_it_is_written(again: str) -> None:
    name = again.replace("\\u0065", "e")
    error = refused(b'{"model": "cheap", "messages": [{"role": "user"}], "stream": true, "%b": 1}' % again.encode())
    assert (error.code, error.param) == ("duplicate_field", name)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "application/json;"],
)
def test_json_is_taken_by_any_of_its_names(content_type: str | None) -> None:
    assert asked(CHAT_BODY, content_type=content_type).model == "m"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "json", "multipart/x"])
def test_another_content_type_is_refused_by_name(content_type: str) -> None:
    with pytest.raises(WrongContentType, match=content_type):
        asked(CHAT_BODY, content_type=content_type)


def test_other_routes_have_shapes_of_their_own() -> None:
    assert asked({"model": "m", "prompt": "Once"}, COMPLETION).operation is COMPLETION
    assert asked({"model": "m", "prompt": [1, 2]}, COMPLETION).model == "m"
    assert asked({"model": "m", "input": ["a", "b"]}, EMBEDDING).model == "m"
    assert refused({"model": "m"}, COMPLETION).param == "prompt"
    assert refused({"model": "m", "input": 5}, EMBEDDING).param == "input"


def test_embeddings_are_never_a_stream() -> None:
    assert not asked({"model": "m", "input": "a", "stream": True}, EMBEDDING).stream
