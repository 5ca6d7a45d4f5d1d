"""A small example of a JSON schema: every property that it names, one item in each list. Pure.

It goes by the parts of a schema that structured answers use; whoever calls checks what comes out, since the rest of a
schema may forbid it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any
from urllib.parse import unquote

_DEEPEST = 24
_MOST_VALUES = 2_000
_TEXT = "text"
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "name@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class NoExample(Exception):
    """There is none to be found; the message says why."""


def example_of(schema: Any) -> Any:
    """Some value that most likely fits. Raises NoExample."""
    return _Maker(schema).value(schema, _DEEPEST)


class _Maker:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MOST_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._spend(depth)
        if not isinstance(schema, dict):
            if schema is False:
                raise NoExample("nothing fits `false`")
            return None
        schema = self._whole(schema, depth)
        for word in ("const", "default"):
            if word in schema:
                return schema[word]
        for word in ("enum", "examples"):
            if schema.get(word):
                return schema[word][0]
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._first_of(schema, word, depth)
        return self._typed(schema, depth)

    def _spend(self, depth: int) -> None:
        self._left -= 1
        if depth <= 0 or self._left < 0:
            raise NoExample("it never ends")

    def _whole(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """With what it refers to, and all of `allOf`, in one."""
        self._spend(depth)
        whole = dict(schema)
        parts = list(whole.pop("allOf", ()))
        if isinstance(pointer := whole.pop("$ref", None), str):
            parts.append(self._at(pointer))
        for part in (self._whole(part, depth - 1) for part in parts if isinstance(part, dict)):
            properties = {**part.get("properties", {}), **whole.get("properties", {})}
            required = [*part.get("required", ()), *whole.get("required", ())]
            whole = {**part, **whole, "properties": properties, "required": required}
        return whole

    def _at(self, pointer: str) -> Any:
        place = self._root
        for step in unquote(pointer.removeprefix("#")).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(place, dict) or name not in place:
                raise NoExample(f"{pointer!r:.100} is not in it")
            place = place[name]
        return place

    def _first_of(self, schema: dict[str, Any], word: str, depth: int) -> Any:
        rest = {name: value for name, value in schema.items() if name != word}
        for choice in schema[word]:
            try:
                return self.value({**rest, "allOf": [choice]}, depth - 1)
            except NoExample:
                continue
        raise NoExample(f"no choice of {word} has one")

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return _text(schema)
            case "integer" | "number" as kind:
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return False
        return None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        made = {}
        required = schema.get("required", ())
        for name, part in schema.get("properties", {}).items():
            try:
                made[name] = self.value(part, depth - 1)
            except NoExample:
                if name in required:
                    raise
        return {**made, **{name: None for name in required if name not in made}}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        made = [self.value(part, depth - 1) for part in schema.get("prefixItems", ())]
        while len(made) < min(max(least, 1), schema.get("maxItems", _MOST_VALUES)) and "items" in schema:
            try:
                made.append(self.value(schema["items"], depth - 1))
            except NoExample:
                if len(made) < least:
                    raise
                break
        return made


def _type_of(schema: Mapping[str, Any]) -> str | None:
    named = schema.get("type")
    if isinstance(named, list):
        return next((one for one in named if one != "null"), "null")
    if named:
        return str(named)
    if schema.get("properties") or "required" in schema:
        return "object"
    return "array" if "items" in schema else None


def _text(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), _TEXT)
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return text.ljust(min(least, _MOST_VALUES), "x")[:most]


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    step = schema.get("multipleOf") or 1
    lowest = max(schema.get("minimum", float("-inf")), schema.get("exclusiveMinimum", float("-inf")))
    highest = min(schema.get("maximum", float("inf")), schema.get("exclusiveMaximum", float("inf")))
    number: float = 0
    if lowest > 0 or (lowest == 0 and "exclusiveMinimum" in schema):
        number = step * ceil(lowest / step)
        number += step if number == schema.get("exclusiveMinimum") else 0
    elif highest < 0 or (highest == 0 and "exclusiveMaximum" in schema):
        number = -step * ceil(-highest / step)
        number -= step if number == schema.get("exclusiveMaximum") else 0
    return int(number) if whole or number == int(number) else number
