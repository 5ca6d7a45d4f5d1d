"""The texts of a request: all of them, in one order, and the same request with other texts.

Every string is one, wherever it stands, for engines show their models more than messages: tools, schemas, names, stop
strings, `user`. Only the model's name is none, and neither are the words of the API itself, or the pictures, sounds and
files in a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isochrone.api.requests import Ask

Change = Callable[[str], str]

_DATA = frozenset({"image_url", "input_audio", "file", "audio"})
_WORDS_OF_THE_API = (
    frozenset({"system", "developer", "user", "assistant", "tool", "function", "text", "image_url", "input_audio"})
    | {"file", "auto", "none", "required", "json_object", "json_schema", "stop", "length", "tool_calls"}
    | {"object", "array", "string", "number", "integer", "boolean", "null"}
)
_NUMBERS = frozenset({int, float, bool, type(None)})  # a prompt may be a long list of tokens


def texts_of(ask: Ask) -> list[str]:
    """All of them, ordered by the names of their fields, and in lists as they stand there."""
    texts: list[str] = []
    with_texts(ask, _into(texts))
    return texts


def texts_in(value: Any) -> list[str]:
    """Every string in plain data, in the same order."""
    texts: list[str] = []
    _changed(value, _into(texts))
    return texts


def with_texts(ask: Ask, change: Change) -> Ask:
    """The same request, each of its texts changed; in the order of `texts_of`."""
    changed = {name: _field(name, ask.fields[name], change) for name in sorted(ask.fields) if name != "model"}
    return ask._replace(fields={name: changed.get(name, value) for name, value in ask.fields.items()})


def _into(texts: list[str]) -> Change:
    def keep(text: str) -> str:
        texts.append(text)
        return text

    return keep


def _field(name: str, value: Any, change: Change) -> Any:
    if name != "messages" or not isinstance(value, list):
        return _changed(value, change)
    return [_message(one, change) for one in value]


def _message(message: Any, change: Change) -> Any:
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return _changed(message, change)
    changed = {
        name: [_part(part, change) for part in message[name]] if name == "content" else _changed(message[name], change)
        for name in sorted(message)
    }
    return {name: changed[name] for name in message}


def _part(part: Any, change: Change) -> Any:
    return _changed(part, change, but=_DATA if isinstance(part, dict) else frozenset())


def _changed(value: Any, change: Change, *, but: frozenset[str] = frozenset()) -> Any:
    if isinstance(value, str):
        return value if value in _WORDS_OF_THE_API else change(value)
    if isinstance(value, dict):
        changed = {name: _changed(value[name], change) for name in sorted(value) if name not in but}
        return {name: changed.get(name, one) for name, one in value.items()}
    if isinstance(value, list):
        return [one if type(one) in _NUMBERS else _changed(one, change) for one in value]
    return value
