"""DynamoDB's JSON: every value wrapped in its type, numbers as text, bytes as base64 (which msgspec does by itself)."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

Item = dict[str, dict[str, Any]]

# What one item may have in all.
ITEM_BYTES = 400 * 1024


class Done(Struct):
    """A reply in which nothing is of interest."""


class Text(Struct):
    S: str


class Number(Struct):
    N: str


class Binary(Struct):
    B: bytes


def to_item(entry: dict[str, Any]) -> Item:
    """A flat dict as an item. Raises ValueError that names the field which cannot be stored."""
    return {name: _wrap(name, value) for name, value in entry.items()}


def from_item(item: Item) -> dict[str, Any]:
    """The flat dict of an item. DynamoDB keeps no difference between 1 and 1.0: whole numbers come back as int."""
    return {name: _unwrap(*next(iter(value.items()))) for name, value in item.items()}


def _wrap(name: str, value: object) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case int() | float() if math.isfinite(value):
            return {"N": repr(value)}
    raise ValueError(f"{name}: {value!r} cannot be stored")


def _unwrap(kind: str, value: Any) -> Any:
    if kind == "NULL":
        return None
    if kind == "N":
        return float(value) if any(mark in value for mark in ".eE") else int(value)
    return value


def item_bytes(item: Item) -> int:
    """The size of an item by DynamoDB's documented rules: UTF-8 names and texts, raw bytes, a byte for two digits.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(typed: dict[str, Any]) -> int:
    ((kind, value),) = typed.items()
    if kind == "L":
        return 3 + sum(1 + _value_bytes(one) for one in value)
    if kind == "N":
        return _number_bytes(value)
    if kind == "S":
        return len(value.encode())
    return len(value) if kind == "B" else 1


def _number_bytes(number: str) -> int:
    digits = number.lower().partition("e")[0].replace(".", "").lstrip("-").strip("0")
    return 1 + (len(digits) + 1) // 2 + number.startswith("-")
