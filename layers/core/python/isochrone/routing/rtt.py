"""How far apart two places are on the network: round-trip milliseconds, measured or estimated.

Between AWS regions a measured matrix answers. Everywhere else the estimate is a line over the great-circle distance,
times the detour that measured pairs of sites nearby show (cables, not geodesics, carry packets). A place far from all
measured sites is reached through its gateways (`ways`). docs/geography.md says how good that is; scripts/fit_rtt.py
makes `data/rtt.json`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from isochrone.routing.ways import Point, Way, known_ways

EARTH_RADIUS_KM = 6371.0
LIGHT_MS_PER_KM = 0.01
"""There and back in glass, where light makes 200 km a millisecond: no network is faster."""

_NEAREST = 4
_REACH_KM = 1000.0
_DOUBT = 0.02  # the weight of "no detour known": far from every measured site the plain line remains
# What lies nearer to each other is one place.
_METRO_KM = 100.0
_DATA = Path(__file__).with_name("data")


class Rtt(NamedTuple):
    """A round trip in milliseconds, and whether somebody measured this pair."""

    ms: float
    source: Literal["measured", "estimated"]


class Fit(msgspec.Struct, frozen=True, eq=False):
    """What was learned from measured pairs.

    `detours[i][j]`, j < i, is ln(measured / line) between sites i and j; None where nobody measured.
    """

    floor_ms: float
    ms_per_km: float
    sites: tuple[Point, ...]
    detours: tuple[tuple[float | None, ...], ...]


class Estimator:
    """Estimates from a fit, and from `ways` for places far from its sites. Symmetric, positive, never faster than light
    in glass."""

    def __init__(self, fit: Fit, ways: Sequence[Way] = ()) -> None:
        self._fit = fit
        known = [*((site, None) for site in fit.sites), *((way.at, way) for way in ways)]
        self._places = [(*_on_sphere(place), way) for place, way in known]
        self._way_of = lru_cache(maxsize=4096)(self._find_way)
        self._near = lru_cache(maxsize=4096)(self._find_near)

    def line_ms(self, km: float) -> float:
        """The round trip over `km` with a usual amount of detour: grows with distance, positive at 0."""
        return self._fit.floor_ms + self._fit.ms_per_km * km

    def ms(self, a: Point, b: Point) -> float:
        """The round trip between two points."""
        if b < a:  # one order of summation, so that both directions agree to the last bit
            a, b = b, a
        here, there = self._way_of(a), self._way_of(b)
        if here is there:
            return self._direct(a, b)
        gateways = ((x, y) for x in (here.through if here else (a,)) for y in (there.through if there else (b,)))
        through = min(self._leg(a, x) + self._between_gateways(x, y) + self._leg(y, b) for x, y in gateways)
        return max(through, great_circle_km(a, b) * LIGHT_MS_PER_KM)

    def _leg(self, a: Point, b: Point) -> float:
        return self.line_ms(great_circle_km(a, b)) if a != b else 0.0

    def _between_gateways(self, a: Point, b: Point) -> float:
        return self._direct(a, b) if great_circle_km(a, b) > _METRO_KM else 0.0

    def _direct(self, a: Point, b: Point) -> float:
        if b < a:
            a, b = b, a
        km = great_circle_km(a, b)
        return max(self.line_ms(km) * math.exp(self._detour(a, b)), km * LIGHT_MS_PER_KM)

    def _find_way(self, point: Point) -> Way | None:
        """The gateways of the nearest place that is known; None where that is a measured site."""
        x, y, z = _on_sphere(point)
        nearest = max(self._places, key=lambda place: place[0] * x + place[1] * y + place[2] * z, default=None)
        return nearest[3] if nearest else None

    def _detour(self, a: Point, b: Point) -> float:
        """The mean detour between the sites around `a` and those around `b`, nearer sites counting more."""
        total, weights = 0.0, _DOUBT
        for i, near_a in self._near(a):
            for j, near_b in self._near(b):
                detour = self._between(i, j)
                if detour is not None:
                    total += near_a * near_b * detour
                    weights += near_a * near_b
        return total / weights

    def _between(self, i: int, j: int) -> float | None:
        if i == j:
            return None
        return self._fit.detours[max(i, j)][min(i, j)]

    def _find_near(self, point: Point) -> list[tuple[int, float]]:
        """(index, weight) of the nearest sites."""
        near = sorted((great_circle_km(point, site), i) for i, site in enumerate(self._fit.sites))[:_NEAREST]
        return [(i, math.exp(-km / _REACH_KM)) for km, i in near]


def _on_sphere(point: Point) -> tuple[float, float, float]:
    """A place as a unit vector: the larger the scalar product of two, the nearer they are."""
    north, east = math.radians(point[0]), math.radians(point[1])
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


class _Data(msgspec.Struct, frozen=True):
    """data/rtt.json: `ms[i][j]`, j <= i, is the measured round trip between `regions` i and j."""

    regions: tuple[str, ...]
    ms: tuple[tuple[float, ...], ...]
    fit: Fit


def great_circle_km(a: Point, b: Point) -> float:
    """The shortest way over the ground, on a sphere (0.5 % off at most)."""
    north_a, north_b = math.radians(a[0]), math.radians(b[0])
    half_north, half_east = (north_b - north_a) / 2, math.radians(b[1] - a[1]) / 2
    chord = math.sin(half_north) ** 2 + math.cos(north_a) * math.cos(north_b) * math.sin(half_east) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord)))


def region_location(name: str) -> Point | None:
    """Where an AWS region's data centres are, to the metro; None for a name that is no known region."""
    return _regions().get(name)


def rtt_between_regions(a: str, b: str) -> Rtt | None:
    """The round trip between two AWS regions; None when one of them is unknown."""
    if (measured := _measured().get((a, b))) is not None:
        return Rtt(measured, "measured")
    here, there = region_location(a), region_location(b)
    return Rtt(rtt_between_points(here, there), "estimated") if here and there else None


def rtt_between_points(a: Point, b: Point) -> float:
    """The estimated round trip in milliseconds between two places given as (latitude, longitude)."""
    return _estimator().ms(a, b)


@cache
def _data() -> _Data:
    return msgspec.json.decode((_DATA / "rtt.json").read_bytes(), type=_Data)


@cache
def _regions() -> dict[str, Point]:
    return msgspec.json.decode((_DATA / "regions.json").read_bytes(), type=dict[str, Point])


@cache
def _measured() -> dict[tuple[str, str], float]:
    data = _data()
    triangle = {(data.regions[i], data.regions[j]): ms for i, row in enumerate(data.ms) for j, ms in enumerate(row)}
    return triangle | {(b, a): ms for (a, b), ms in triangle.items()}


@cache
def _estimator() -> Estimator:
    return Estimator(_data().fit, known_ways())
