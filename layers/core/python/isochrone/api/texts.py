"""The texts of a request: all of them, in one order, and the same request with other texts.

Texts are the strings that a person or a program wrote: messages, prompts, inputs, tools and their schemas, stop
strings, `user`, metadata. Names of models, roles and types are none, and neither is data (images, sounds, files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from isochrone.api.requests import Ask

_NO_TEXT = frozenset({"model", "role", "type", "id", "tool_call_id", "image_url", "input_audio", "file", "audio"})


def texts_of(ask: Ask) -> list[str]:
    """All of them, ordered by the names of their fields, and in lists as they stand there."""
    return list(texts_in(ask.fields))


def with_texts(ask: Ask, change: Callable[[str], str]) -> Ask:
    """The same request, each of its texts changed; in the order of `texts_of`."""
    return ask._replace(fields=_changed(ask.fields, change))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name in sorted(value):
            if name not in _NO_TEXT:
                yield from texts_in(value[name])
    elif isinstance(value, list):
        for one in value:
            if not isinstance(one, int | float):  # a prompt of tokens
                yield from texts_in(one)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        changed = {name: _changed(value[name], change) for name in sorted(value) if name not in _NO_TEXT}
        return {name: changed.get(name, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_changed(one, change) for one in value]
    return value
