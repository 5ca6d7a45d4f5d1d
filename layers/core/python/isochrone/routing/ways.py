"""Through which gateways traffic leaves a place where nobody measured.

Packets follow cables and contracts, not the map: what Lima and Caracas say to each other goes over Miami, what Lagos
and Accra say over Europe. data/ways.json is an own table of such places, from general knowledge of cables and
exchanges: nothing in it is a measurement. A place that is not in it, and is nearer to a measured site than to any that
is, has no gateways: it is as that site is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec

Point = tuple[float, float]
"""Degrees north, degrees east."""

_FILE = Path(__file__).with_name("data") / "ways.json"


class Way(NamedTuple):
    """Traffic of the surroundings of `at` leaves `through` one of these."""

    at: Point
    through: tuple[Point, ...]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    place: str
    at: Point
    through: tuple[str, ...]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gateways: dict[str, Point]
    ways: tuple[_Row, ...]


@cache
def known_ways() -> tuple[Way, ...]:
    """The table that is shipped."""
    table = msgspec.json.decode(_FILE.read_bytes(), type=_Table)
    return tuple(Way(row.at, tuple(table.gateways[name] for name in row.through)) for row in table.ways)
