"""The codes of countries (ISO 3166-1), which are easily misspelt: it is GB, not UK."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

NAMED_AS = "codes are those of ISO 3166, such as GB"
_POSITIONS = Path(__file__).with_name("routing") / "data" / "countries.json"
_WITHOUT_PEOPLE = frozenset(("AQ", "BV", "HM", "UM"))  # so that they have no position, but a network can be there


@cache
def countries() -> frozenset[str]:
    """All of them, and XK, which is how databases of addresses call Kosovo. Reads a file, so only for who needs it."""
    return _WITHOUT_PEOPLE.union(msgspec.json.decode(_POSITIONS.read_bytes()))


def unknown_country(code: str) -> str:
    """What is wrong with a code that is not among them; "" for one that is."""
    return "" if code in countries() else f"{code!r} is no country; {NAMED_AS}"
