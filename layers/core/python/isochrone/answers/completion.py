"""A complete answer and its three forms: what a stream said, what a body says, what a replayed stream says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from isochrone.api.sse import DONE_EVENT

_encode = msgspec.json.encode
_ID_PREFIX = {"chat": "chatcmpl-", "completion": "cmpl-"}
_pack = msgspec.msgpack.Encoder().encode


class Answer(Struct, frozen=True, array_like=True):
    """`body` is the reply of the non-streaming route as plain data; `backend` and `created` (epoch s) say whence."""

    operation: str
    backend: str
    created: float
    body: dict[str, Any]


_unpack = msgspec.msgpack.Decoder(Answer).decode


def to_bytes(answer: Answer) -> bytes:
    """How an answer is kept in a store."""
    return _pack(answer)


def from_bytes(value: bytes) -> Answer | None:
    """The answer, or None when the bytes are of another version or damaged: then it is a miss."""
    try:
        return _unpack(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_complete(body: dict[str, Any]) -> bool:
    """One choice that ended by itself and calls no tools: only that is worth keeping."""
    choices = body.get("choices")
    if not isinstance(choices, list):
        return isinstance(body.get("data"), list)
    only = choices[0] if len(choices) == 1 else None
    if not isinstance(only, dict) or only.get("finish_reason") != "stop":
        return False
    message = only.get("message", {})
    return isinstance(message, dict) and not (message.get("tool_calls") or message.get("function_call"))


def replay_body(answer: Answer, *, request_id: str, now: float) -> bytes:
    """The JSON reply with an id and a time of its own."""
    return _encode(_renewed(answer, request_id, now))


def replay_stream(answer: Answer, *, request_id: str, now: float, include_usage: bool) -> bytes:
    """The same answer as a legal event stream, ended by [DONE]."""
    whole = _renewed(answer, request_id, now)
    choice = whole.get("choices", [{}])[0]
    base = {key: value for key, value in whole.items() if key not in ("choices", "usage")}
    pieces: Callable[[dict[str, Any]], list[dict[str, Any]]] = _text_pieces
    if answer.operation == "chat":
        base["object"] = "chat.completion.chunk"
        pieces = _delta_pieces
    chunks = [{**base, "choices": [piece]} for piece in pieces(choice)]
    if include_usage:
        chunks.append({**base, "choices": [], "usage": whole.get("usage")})
    return b"".join(b"data: %b\n\n" % _encode(chunk) for chunk in chunks) + DONE_EVENT


def _renewed(answer: Answer, request_id: str, now: float) -> dict[str, Any]:
    prefix = _ID_PREFIX.get(answer.operation)
    if prefix is None:
        return answer.body
    return {**answer.body, "id": prefix + request_id, "created": int(now)}


def _delta_pieces(choice: dict[str, Any]) -> list[dict[str, Any]]:
    message = choice.get("message") or {}
    deltas: list[dict[str, Any]] = [{"role": message.get("role", "assistant"), "content": ""}]
    # Thoughts come before the words they led to.
    spoken = sorted((name for name in message if name != "role"), key=lambda name: name == "content")
    deltas += [{name: message[name]} for name in spoken if message[name] not in (None, "")]
    reason = choice.get("finish_reason")
    return [_piece(delta, None) for delta in deltas] + [_piece({}, reason)]


def _piece(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _text_pieces(choice: dict[str, Any]) -> list[dict[str, Any]]:
    end = {"index": 0, "text": "", "logprobs": None, "finish_reason": choice.get("finish_reason")}
    return [{**end, "text": choice.get("text", ""), "finish_reason": None}, end]
