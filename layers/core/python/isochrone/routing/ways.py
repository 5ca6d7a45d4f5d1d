"""Through which gateways traffic leaves a place where nobody measured.

Packets follow cables and contracts, not the map: what Lima and Caracas say to each other goes over Miami, what Lagos
and Accra say over Europe. data/ways.json is an own table of such places, from general knowledge of cables and
exchanges: nothing in it is a measurement. A place that is not in it, and is nearer to a measured site than to any that
is, has no gateways: it is as that site is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

Point = tuple[float, float]
"""Degrees north, degrees east."""

_FILE = Path(__file__).with_name("data") / "ways.json"


class Way(NamedTuple):
    """Traffic of the surroundings of `at` leaves `through` one of these, except that to places `beside` it, which does
    not go farther there."""

    at: Point
    through: tuple[Point, ...]
    beside: tuple[Point, ...] = ()


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    place: str
    at: Point
    through: tuple[str, ...]
    beside: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gateways: dict[str, Point]
    ways: tuple[_Row, ...]


@cache
def known_ways() -> tuple[Way, ...]:
    """The table that is shipped."""
    table = msgspec.json.decode(_FILE.read_bytes(), type=_Table)
    places = {row.place: row.at for row in table.ways} | table.gateways
    return tuple(Way(row.at, _points(row.through, table.gateways), _points(row.beside, places)) for row in table.ways)


def _points(names: Iterable[str], known: Mapping[str, Point]) -> tuple[Point, ...]:
    return tuple(known[name] for name in names)
