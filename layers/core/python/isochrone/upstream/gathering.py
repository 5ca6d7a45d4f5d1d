"""From the chunks of a stream to the body that the route without streaming would have given. Pure.

What chunks say of the answer as a whole is last told by the last of them. What a delta says grows: texts are put end
to end, lists go by `index` where their entries have one, and fields that nobody knows are kept the same way.
"""

from __future__ import annotations

from typing import Any

from isochrone.api.requests import CHAT, COMPLETION, Ask, Operation

# What only a body has, or a stream has in another form.
_BODY_ONLY = {
    CHAT: ("audio", "modalities", "prompt_logprobs"),
    COMPLETION: ("best_of", "logprobs", "prompt_logprobs"),
}
# Told in full each time they are told at all.
_WHOLE_EACH_TIME = frozenset({"channel", "format", "id", "name", "role", "type"})
# Random letters against guessing words by the length of an event.
_PADDING = ("obfuscation", "p")


def can_be_gathered(ask: Ask) -> bool:
    """Can a stream tell all that the body would?"""
    wishes = _BODY_ONLY.get(ask.operation)
    return wishes is not None and not any(map(ask.fields.get, wishes))


class Gathering:
    """Fed every chunk of an answer; a part of one that was passed on before may be told by another backend."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Take in one chunk; its values become the body's."""
        for choice in chunk.pop("choices", None) or ():
            self._add_choice(choice)
        self._facts |= {name: value for name, value in chunk.items() if value is not None}

    def _add_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index") or 0
        known = self._choices.setdefault(index, {"index": index, "message": {}})
        if not isinstance(choice.get("message"), dict):
            choice.pop("message", None)
        _grow(known["message"], choice.pop("delta", None) or {})
        growing = {name: choice.pop(name) for name in ("text", "logprobs") if choice.get(name) is not None}
        _grow(known, growing)
        known |= {name: value for name, value in choice.items() if value is not None or name not in known}

    def body(self, operation: Operation, *, model: str, usage: dict[str, Any] | None, now: int) -> dict[str, Any]:
        """The whole body; `model` and `now` (epoch seconds) where no chunk said them."""
        kind = "text_completion" if operation is COMPLETION else "chat.completion"
        facts = {name: value for name, value in self._facts.items() if name not in _PADDING}
        return {
            **{"id": "", "created": now, "model": model},
            **facts,
            "object": kind,
            "choices": [_choice(self._choices[index], operation) for index in sorted(self._choices)],
            "usage": usage,
        }


def _choice(known: dict[str, Any], operation: Operation) -> dict[str, Any]:
    said = {"logprobs": None, "finish_reason": None, **_plain(known)}
    message = said.pop("message")
    if operation is COMPLETION:
        return {**said, "text": said.get("text") or ""}
    return {**said, "message": _message(message)}


def _message(known: dict[str, Any]) -> dict[str, Any]:
    calls = known.get("tool_calls")
    message = {"role": "assistant", "content": None if calls or known.get("function_call") else "", **known}
    if isinstance(calls, list):
        message["tool_calls"] = [_without_index(call) for call in calls]
    return message


def _without_index(call: Any) -> Any:
    return {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call


class _Text:
    """A text that grows: put together once, at the end."""

    __slots__ = ("pieces",)

    def __init__(self, piece: str) -> None:
        self.pieces = [piece]


def _plain(value: Any) -> Any:
    """The same, with every text put together."""
    if isinstance(value, _Text):
        return "".join(value.pieces)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _grow(known: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        before = known.get(name)
        if isinstance(value, str) and name not in _WHOLE_EACH_TIME:
            if isinstance(before, _Text):
                before.pieces.append(value)
            else:
                known[name] = _Text(value)
        elif isinstance(value, list):
            known[name] = _longer(before if isinstance(before, list) else [], value)
        elif isinstance(value, dict):
            known[name] = before if isinstance(before, dict) else {}
            _grow(known[name], value)
        elif value not in (None, "") or before is None:
            known[name] = value


def _longer(known: list[Any], pieces: list[Any]) -> list[Any]:
    for piece in pieces:
        place = piece.get("index") if isinstance(piece, dict) else None
        if place is None:
            known.append(piece)
            continue
        entry = next((one for one in known if isinstance(one, dict) and one.get("index") == place), None)
        if entry is None:
            known.append(entry := {})
        _grow(entry, piece)
    return known
