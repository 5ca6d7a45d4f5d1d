"""DynamoDB's JSON: every value wrapped in its type, numbers as text, bytes as base64 (which msgspec does by itself)."""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

Item = dict[str, dict[str, Any]]


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
