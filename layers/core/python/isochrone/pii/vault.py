"""What was taken out of one request, and how it is put back into the answer to that request, and to no other.

    "mail jane@example.com"  ──▶  "mail [EMAIL_1]"  ──▶ backend, store ──▶  "to [EMAIL_1]"  ──▶  "to jane@example.com"

Placeholders count by the order in which the request names things, so two requests that differ in these alone become the
same one, and share an answer; each gets back its own. A model may write a placeholder in another case, with other
brackets, spaces or a backslash before them: that is still the same one.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

# What a model makes of "[EMAIL_1]": "[email 1]", "【EMAIL_1】", "\[EMAIL\_1\]"...
_PLACEHOLDER = re.compile(r"\\?[\[【［] ?([A-Za-z]{2,6}) ?\\?[ _-]? ?(\d{1,6}) ?\\?[\]】］]")
# There a backslash is half of an escape.
_PLACEHOLDER_IN_JSON = re.compile(r"[\[【［] ?([A-Za-z]{2,6}) ?[ _-]? ?(\d{1,6}) ?[\]】］]")
# The beginning of one at the end of a text: any of its parts may be missing from there on.
_BEGINNING = re.compile(r"(?:\\|\\?[\[【［] ?(?:[A-Za-z]{0,6}|[A-Za-z]{2,6} ?\\?[ _-]? ?(?:\d{1,6} ?\\?)?))\Z")
LONGEST = 24
_BRACKETS = ("[", "【", "［")


class Vault:
    """The things by their placeholders. `in_json`: the answer's text is itself JSON, so what is put in is escaped."""

    __slots__ = ("_counts", "_labels", "_placeholders", "_taken", "_things", "in_json")

    def __init__(self, *, in_json: bool = False) -> None:
        self.in_json = in_json
        self._things: dict[tuple[str, int], str] = {}
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._taken: set[tuple[str, int]] = set()
        self._labels: set[str] = set()

    def __repr__(self) -> str:
        return f"Vault({len(self._things)} things)"

    def __len__(self) -> int:
        return len(self._things)

    def leave_alone(self, text: str) -> None:
        """What looks like a placeholder in what the caller wrote is his own text, and stays it."""
        self._taken |= {_name_of(match) for match in _PLACEHOLDER.finditer(text)}

    def take(self, thing: str, label: str) -> str:
        """Its placeholder; the same thing has the same one."""
        known = self._placeholders.get((thing, label))
        if known:
            return known
        self._counts[label] += 1
        while (label, self._counts[label]) in self._taken:
            self._counts[label] += 1
        name = (label, self._counts[label])
        self._labels.add(label)
        self._things[name] = thing
        placeholder = self._placeholders[thing, label] = f"[{label}_{name[1]}]"
        return placeholder

    def restore(self, text: str, *, escaped: bool = False) -> str:
        """The text with the things put back; `escaped` as they stand inside a string of JSON."""
        if not any(bracket in text for bracket in _BRACKETS):
            return text

        def thing(match: re.Match[str]) -> str:
            found = self._things.get(_name_of(match))
            return match.group() if found is None else _escaped(found) if escaped else found

        return (_PLACEHOLDER_IN_JSON if escaped else _PLACEHOLDER).sub(thing, text)

    def held_back(self, text: str) -> int:
        """How many of the last characters may be the beginning of a placeholder; at most LONGEST."""
        beginning = _BEGINNING.search(text, max(0, len(text) - LONGEST))
        if beginning is None:
            return 0
        said = "".join(filter(str.isalpha, beginning.group())).upper()
        return len(beginning.group()) if any(label.startswith(said) for label in self._labels) else 0

    def restore_body(self, body: bytes) -> bytes:
        """A JSON reply with the things put back."""
        if b'"choices"' not in body:
            return body
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return body
        choices = fields.get("choices")
        restored = self._in_all(choices, self.in_json)
        return body if restored == choices else msgspec.json.encode({**fields, "choices": restored})

    def _in_all(self, value: Any, escaped: bool) -> Any:
        if isinstance(value, str):
            return self.restore(value, escaped=escaped)
        if isinstance(value, list):
            return [self._in_all(one, escaped) for one in value]
        if isinstance(value, dict):
            return {name: self._in_all(one, self.is_json(name)) for name, one in value.items()}
        return value

    def is_json(self, field: str) -> bool:
        """Is the text of this field of an answer JSON?"""
        return field == "arguments" or (self.in_json and field in ("content", "text"))


def _name_of(match: re.Match[str]) -> tuple[str, int]:
    label, number = match.groups()
    return label.upper(), int(number)


def _escaped(thing: str) -> str:
    return msgspec.json.encode(thing)[1:-1].decode()
