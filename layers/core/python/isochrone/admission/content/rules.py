"""The operator's own rules: patterns that no text of a request may hold.

A text is read as it was sent, and once more without what hides a word in it: forms of letters that look alike to a
reader (NFKC) and signs that have no width. The parts of one message are read together, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unicodedata import is_normalized, normalize

from isochrone.api.requests import Ask
from isochrone.api.texts import texts_of
from isochrone.patterns import Pattern, compile_pattern
from isochrone.settings import ContentRule

_WITHOUT_WIDTH = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")


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


def _readings_of(ask: Ask) -> Iterator[str]:
    for text in (*texts_of(ask), *_joined_parts(ask.fields.get("messages") or ())):
        yield text
        if not text.isascii() and (plain := _plain(text)) != text:
            yield plain


def _plain(text: str) -> str:
    text = _WITHOUT_WIDTH.sub("", text)
    return text if is_normalized("NFKC", text) else normalize("NFKC", text)


def _joined_parts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and len(content) > 1:
            yield "".join(part["text"] for part in content if isinstance(part.get("text"), str))
