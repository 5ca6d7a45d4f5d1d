"""Where everybody is, and how long the ways between them really are.

Edges and backends are those of a configuration. Clients live in cities, as many as people do. A true round trip is
the measured one between two AWS regions, else the estimate of `routing.rtt` times an error of the size that it showed
out of sample (docs/geography.md): a plan that goes by estimates must be wrong as often as it is in the world.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from isochrone.routing.geo import Location
from isochrone.routing.rtt import region_location, rtt_between_points, rtt_between_regions
from isochrone.routing.ways import Point
from isochrone.settings import Backend, Region, Settings

DATA = Path(__file__).with_name("data")
# What a T4 does at once with prompts of usual length: one is being read and two are being written.
REQUESTS_PER_NODE = 3
_USUAL_NODES = 4
_ESTIMATE_ERROR = 0.15  # standard deviation of ln(true / estimated)
_PEAK_HOUR = 15
_SWING = 0.6
_HOUR = 3600


class Client(NamedTuple):
    """One of the world's clients: at which edge DNS puts it, and the round trip to there in seconds."""

    location: Location
    edge: int
    way: float


class Edge(NamedTuple):
    """One edge: `ways` are the true round trips to each backend in seconds."""

    region: str
    place: Point
    ways: tuple[float, ...]


class World(NamedTuple):
    """Edges, backends and clients. Backends are numbers, their places in `settings.backend`: `pools` serve `model`, and
    `apis` serve it or one of its fallbacks; `nodes` are those of each backend."""

    settings: Settings
    model: str
    edges: tuple[Edge, ...]
    nodes: tuple[int, ...]
    pools: tuple[int, ...]
    apis: tuple[int, ...]
    clients: tuple[Client, ...]


def dice(seed: int, purpose: str) -> random.Random:
    """Chance for one purpose: the same for the same seed, whatever else was drawn before."""
    return random.Random(f"{seed}/{purpose}")  # noqa: S311  # nothing here is a secret


def read_rows(name: str) -> Iterator[list[str]]:
    """The rows of a data file, without its header."""
    with gzip.open(DATA / name, "rt", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        yield from rows


def build_world(settings: Settings, model: str, *, clients: int, seed: int) -> World:
    """The world of a configuration whose clients ask for `model`. Raises ValueError when it cannot be one."""
    errors = dice(seed, "errors of estimates")
    places = [_place_of(region) for region in settings.region]
    edges = tuple(
        Edge(region.name, place, tuple(_way(region, place, backend, errors) for backend in settings.backend))
        for region, place in zip(settings.region, places, strict=True)
    )
    cities = [(float(row[0]), float(row[1]), int(row[2])) for row in read_rows("cities.csv.gz")]
    pools, apis = _serving(settings, model)
    drawn = dice(seed, "cities").choices(cities, weights=[people for _, _, people in cities], k=clients)
    settle = _settler(edges, errors)
    return World(
        settings=settings,
        model=model,
        edges=edges,
        nodes=tuple(_nodes(backend) for backend in settings.backend),
        pools=pools,
        apis=apis,
        clients=tuple(settle((latitude, longitude)) for latitude, longitude, _ in drawn),
    )


def _serving(settings: Settings, model: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(pools, APIs) by number."""
    fallback = next((known.fallback for known in settings.model if known.name == model), ())
    backends = list(enumerate(settings.backend))
    pools = tuple(i for i, facts in backends if facts.kind == "pool" and model in facts.models)
    names = {model, *fallback}
    apis = tuple(i for i, facts in backends if facts.kind == "api" and names.intersection(facts.models))
    if not pools:
        raise ValueError(f"no pool serves {model!r}: there is nothing to choose from")
    return pools, apis


def _nodes(backend: Backend) -> int:
    return max(1, backend.max_concurrency // REQUESTS_PER_NODE) if backend.max_concurrency else _USUAL_NODES


def _place_of(region: Region) -> Point:
    place = region.location or region_location(region.name)
    if place is None:
        raise ValueError(f"region {region.name!r} is no AWS region that is known: give it a location")
    return place


def _way(region: Region, place: Point, backend: Backend, errors: random.Random) -> float:
    known = rtt_between_regions(region.name, backend.region) if backend.region else None
    if known and known.source == "measured" and backend.location is None:
        return known.ms / 1000
    there = backend.location or region_location(backend.region or "") or place
    return _erroneous(rtt_between_points(place, there), errors)


def _erroneous(estimate_ms: float, errors: random.Random) -> float:
    return estimate_ms / 1000 * math.exp(errors.gauss(0.0, _ESTIMATE_ERROR))


def _settler(edges: tuple[Edge, ...], errors: random.Random) -> Callable[[Point], Client]:
    """Puts clients at the edge that answers them soonest, as latency-based DNS does; once for each city."""
    known: dict[Point, Client] = {}

    def settle(city: Point) -> Client:
        if city not in known:
            ways = [_erroneous(rtt_between_points(city, edge.place), errors) for edge in edges]
            nearest = min(range(len(edges)), key=ways.__getitem__)
            known[city] = Client(Location(*city), nearest, ways[nearest])
        return known[city]

    return settle


class Population:
    """Who asks next: everybody as often as others, but more by day than by night."""

    def __init__(self, world: World, chance: Callable[[], float]) -> None:
        self._clients = world.clients
        self._chance = chance
        self._hour = -1
        self._cumulated: list[float] = []
        self._of_edge: dict[int, list[int]] = {}
        for i, client in enumerate(world.clients):
            self._of_edge.setdefault(client.edge, []).append(i)

    def pick(self, now: float) -> int:
        """Somebody in the world, by number."""
        if (hour := int(now // _HOUR)) != self._hour:
            self._hour = hour
            self._cumulated = list(accumulate(activity(hour, client.location) for client in self._clients))
        return bisect(self._cumulated, self._chance() * self._cumulated[-1])

    def pick_at(self, edge: int) -> int:
        """Somebody at one edge, or anywhere when nobody lives there."""
        those = self._of_edge.get(edge) or range(len(self._clients))
        return those[int(self._chance() * len(those))]


def activity(hour: int, location: Location) -> float:
    """How busy a place is at an hour UTC: 1 on average, most at 15:00 local, least at 3:00."""
    local = hour + location.longitude / 15
    return 1 + _SWING * math.cos(2 * math.pi * (local - _PEAK_HOUR) / 24)
