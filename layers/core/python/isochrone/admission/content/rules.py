"""The operator's own rules: patterns that no text of a request may hold.

A text is read as it was sent, and once more without what hides a word in it: forms of letters that look alike to a
reader (NFKC) and signs that have no width. The parts of one message are read together, too, and so are the names that
a schema gives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple
from unicodedata import is_normalized, normalize

from isochrone.api.requests import Ask
from isochrone.api.texts import texts_of
from isochrone.patterns import Pattern, compile_pattern
from isochrone.settings import ContentRule

_WITHOUT_WIDTH = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_CONTENTS = ("messages", "prompt", "input")  # which hold no schemas
# Where the names in an object are the caller's own words.
_NAMED = ("properties", "patternProperties", "$defs", "definitions")


class _Rule(NamedTuple):
    name: str
    models: frozenset[str]
    pattern: Pattern


class DenyRules:
    """Those of a configuration, in their order."""

    def __init__(self, rules: Sequence[ContentRule]) -> None:
        self._rules = [_Rule(rule.name, frozenset(rule.models), compile_pattern(rule.pattern)) for rule in rules]

    def broken_by(self, ask: Ask) -> str | None:
        """The name of the first rule that the request breaks. Takes time linear in the length of its texts."""
        rules = [rule for rule in self._rules if not rule.models or ask.model in rule.models]
        texts = list(_readings_of(ask)) if rules else []
        return next((rule.name for rule in rules if any(map(rule.pattern.search, texts))), None)

    def broken_for(self, ask: Ask, models: Collection[str]) -> set[str]:
        """Those of `models` that may not stand in for its own, by rules that hold for them and not for that."""
        rules = [rule for rule in self._rules if ask.model not in rule.models and not rule.models.isdisjoint(models)]
        texts = list(_readings_of(ask)) if rules else []
        broken = [rule for rule in rules if any(map(rule.pattern.search, texts))]
        return {model for rule in broken for model in rule.models.intersection(models)}


def _readings_of(ask: Ask) -> Iterator[str]:
    names = "\n".join(_names_in({name: value for name, value in ask.fields.items() if name not in _CONTENTS}))
    for text in (*texts_of(ask), *_joined_parts(ask.fields.get("messages") or ()), names):
        yield text
        if not text.isascii() and (plain := _plain(text)) != text:
            yield plain


def _plain(text: str) -> str:
    text = _WITHOUT_WIDTH.sub("", text)
    return text if is_normalized("NFKC", text) else normalize("NFKC", text)


def _names_in(value: Any) -> Iterator[str]:
    """Those that a schema gives: engines show them their models, too."""
    if isinstance(value, dict):
        yield from (name for where in _NAMED if isinstance(given := value.get(where), dict) for name in given)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names_in(inner)


def _joined_parts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and len(content) > 1:
            yield "".join(part["text"] for part in content if isinstance(part.get("text"), str))
