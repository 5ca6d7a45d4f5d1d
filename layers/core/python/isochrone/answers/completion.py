"""A complete answer and its forms: what a body says, and what a replayed stream says.

The stream of an answer tells its body again, choice by choice:

    role, [what else the message has], content, [refusal], [calls]   each text in pieces, each call under its index
    the end: finish_reason and what else the choice has
    [usage]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf
from typing import Any

import msgspec
from msgspec import Struct

from isochrone.api.sse import DONE_EVENT

_encode = msgspec.json.encode
_ID_PREFIX = {"chat": "chatcmpl-", "completion": "cmpl-"}
# In characters: with the widest escape of each, an event stays below the 64 KB a line that many clients read at most.
_PIECE = 8192
_ORDER = {"content": 1, "refusal": 2, "tool_calls": 3, "function_call": 3}
_CALLS = ("tool_calls", "function_call")
_SAID_BEFORE = frozenset({"index", "message", "text", "logprobs"})


class Answer(Struct, frozen=True, array_like=True):
    """`body` is the reply of the non-streaming route as plain data; `backend` and `created` (epoch s) say whence.

    `question` is the text that was asked last. It is true until `fresh_until` (epoch s). Generating it took `seconds`
    and `cost` dollars. `request` are its fields, for who asks it again before its time is over.
    """

    operation: str
    backend: str
    created: float
    body: dict[str, Any]
    model: str = ""
    question: str | None = None
    fresh_until: float = inf
    seconds: float = 0.0
    cost: float = 0.0
    request: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Without what people and models say: it ends up in logs."""
        return f"Answer({self.operation}, {self.backend!r}, {self.created})"


def is_complete(body: dict[str, Any], also: Collection[str] = (), *, choices: int = 1) -> bool:
    """All `choices` that were asked for, each ended by itself: only that is worth keeping.

    A choice that calls tools is whole if `also` has "tools", one that ran into its limit if it has "length".
    """
    given = body.get("choices")
    if not isinstance(given, list):
        vectors = body.get("data")
        return isinstance(vectors, list) and len(vectors) == choices
    return len(given) == choices and all(_is_whole(choice, also) for choice in given)


def _is_whole(choice: Any, also: Collection[str]) -> bool:
    if not isinstance(choice, dict) or not isinstance(message := choice.get("message", {}), dict):
        return False
    calls = any(map(message.get, _CALLS))
    reason = choice.get("finish_reason")
    if calls or reason in _CALLS:
        return "tools" in also and reason in ("stop", *_CALLS) and _are_calls(message)
    return reason == "stop" or (reason == "length" and "length" in also)


def _are_calls(message: dict[str, Any]) -> bool:
    """A stream can tell them only if they have the shape that it gives them."""
    calls = message.get("tool_calls") or []
    called = message.get("function_call") or {}
    return isinstance(calls, list) and all(isinstance(call, dict) for call in (*calls, called))


def replay_body(answer: Answer, *, request_id: str, now: float, cached: bool = True) -> bytes:
    """The JSON reply with an id and a time of its own; if it was `cached`, its usage says so of the prompt."""
    return _encode(_renewed(answer, request_id, now, cached))


def replay_stream(answer: Answer, *, request_id: str, now: float, include_usage: bool, cached: bool = True) -> bytes:
    """The same answer as a legal event stream, ended by [DONE]."""
    whole = _renewed(answer, request_id, now, cached)
    base = {key: value for key, value in whole.items() if key not in ("choices", "usage")}
    if answer.operation == "chat":
        base["object"] = "chat.completion.chunk"
    choices = enumerate(whole.get("choices", ()))
    pieces = (piece for place, choice in choices for piece in _pieces(choice, place, answer.operation))
    chunks = [{**base, "choices": [piece]} for piece in pieces]
    if include_usage:
        chunks.append({**base, "choices": [], "usage": whole.get("usage")})
    return b"".join(b"data: %b\n\n" % _encode(chunk) for chunk in chunks) + DONE_EVENT


def _renewed(answer: Answer, request_id: str, now: float, cached: bool) -> dict[str, Any]:
    prefix = _ID_PREFIX.get(answer.operation)
    if prefix is None:
        return answer.body
    renewed = {**answer.body, "id": prefix + request_id, "created": int(now)}
    usage = renewed.get("usage")
    if cached and isinstance(usage, dict) and "prompt_tokens" in usage:
        renewed["usage"] = _cached(usage)
    return renewed


def _cached(usage: dict[str, Any]) -> dict[str, Any]:
    """In the words of OpenAI's API: every token of the prompt came from a cache."""
    details = usage.get("prompt_tokens_details") or {}
    return {**usage, "prompt_tokens_details": {**details, "cached_tokens": usage["prompt_tokens"]}}


def _pieces(choice: dict[str, Any], place: int, operation: str) -> Iterator[dict[str, Any]]:
    """The choice, told by one chunk after the other. Its log probabilities go with the last of its words."""
    head = {"index": choice.get("index", place), "logprobs": None, "finish_reason": None}
    if operation == "chat":
        message = choice.get("message") or {}
        yield {**head, "delta": _beginning(message)}
        told = [{**head, "delta": delta} for delta in _deltas(message)]
        told.append({**head, "delta": {}})
    else:
        told = [{**head, "text": text} for text in _cut(choice.get("text") or "")]
        told.append({**head, "text": ""})
    told[-1] |= {name: value for name, value in choice.items() if name not in _SAID_BEFORE}
    last_words = told[-2] if len(told) > 1 else told[-1]
    last_words["logprobs"] = choice.get("logprobs")
    yield from told


def _beginning(message: dict[str, Any]) -> dict[str, Any]:
    begin = {"content": None if message["content"] is None else ""} if "content" in message else {}
    return {"role": message.get("role", "assistant"), **begin}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = sorted((name for name in message if name != "role"), key=lambda name: _ORDER.get(name, 0))
    return ({name: piece} for name in names for piece in _told(name, message[name]))


def _told(name: str, value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield from _cut(value)
    elif name == "tool_calls":
        for index, call in enumerate(value or ()):
            yield from ([{**piece, "index": index}] for piece in _call(call))
    elif value is not None:
        yield value


def _call(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Its head, and then the arguments of a function as they would have come: in pieces."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
        yield call
        return
    yield {**call, "function": {**function, "arguments": ""}}
    for piece in _cut(arguments):
        yield {"function": {"arguments": piece}}


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
