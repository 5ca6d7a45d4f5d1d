"""Ways to choose a backend: what every policy knows and is told, and the plain ones that ours is compared with.

One policy object stands at each edge. All are told the same: what probes see, and what becomes of their own attempts.
All have the same number of attempts, the same deadlines, and the official API as the last resort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple, Protocol

from isochrone.routing.probe import Probe
from isochrone.routing.rtt import great_circle_km, region_location
from isochrone.simulation.world import Client, World
from isochrone.upstream.failure import Cause


class Asked(NamedTuple):
    """What a policy may know of a request; `conversation` stands for the digest of its first blocks."""

    client: Client
    conversation: int


class Stop(NamedTuple):
    """A backend to ask after a pause in seconds. Backends are numbers: their places in the configuration."""

    backend: int
    pause: float = 0.0


class Visit(Protocol):
    """One attempt at a backend; `patience` is how many seconds it waits for a first token."""

    patience: float

    def first_token(self, now: float) -> None:
        """The first token came."""

    def succeeded(self, now: float) -> None:
        """The answer is whole."""

    def failed(self, cause: Cause, now: float) -> None:
        """It ended without."""


class Trip(Protocol):
    """One request's way along its plan."""

    is_full: bool
    """Was there somebody who would do, but has no room?"""

    def next_stop(self, now: float) -> Stop | None:
        """Who is asked next; None when nobody is left, or nobody has room."""

    def begin(self, backend: int, now: float) -> Visit | None:
        """An attempt there; None when its last place has gone meanwhile."""


class Policy(Protocol):
    """One edge's way to choose."""

    max_wait: float
    """Seconds that a request waits here for a place when every backend is full."""

    def plan(self, asked: Asked, now: float) -> Trip:
        """The way of one request."""

    def probed(self, backend: int, seen: Probe) -> None:
        """A probe came back, or did not."""


class _PlainVisit:
    """A visit that is only counted."""

    __slots__ = ("_backend", "_in_flight", "patience")

    def __init__(self, backend: int, in_flight: list[int], patience: float) -> None:
        self._backend = backend
        self._in_flight = in_flight
        self.patience = patience
        in_flight[backend] += 1

    def first_token(self, now: float) -> None:
        """See Visit."""

    def succeeded(self, now: float) -> None:
        """See Visit."""
        self._in_flight[self._backend] -= 1

    def failed(self, cause: Cause, now: float) -> None:
        """See Visit."""
        self._in_flight[self._backend] -= 1


class _PlainTrip:
    """The backends of an order one after the other, each as often as it stands there."""

    __slots__ = ("_in_flight", "_made", "_order", "_patience")

    is_full = False

    def __init__(self, order: Sequence[int], in_flight: list[int], patience: float) -> None:
        self._order = order
        self._in_flight = in_flight
        self._patience = patience
        self._made = 0

    def next_stop(self, now: float) -> Stop | None:
        """See Trip."""
        return Stop(self._order[self._made]) if self._made < len(self._order) else None

    def begin(self, backend: int, now: float) -> Visit | None:
        """See Trip."""
        self._made += 1
        return _PlainVisit(backend, self._in_flight, self._patience)


class _Plain:
    """What the plain policies share: they leave out the backends that the last probe did not reach."""

    max_wait = 0.0

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        settings = world.settings
        self._attempts = settings.retry.attempts
        self._world = world
        self._edge = world.edges[edge]
        self._patience = settings.deadlines.first_token
        self._pools = world.pools
        self._apis = world.apis
        self._in_flight = [0] * len(settings.backend)
        self._waiting = [0] * len(settings.backend)
        self._reached = [True] * len(settings.backend)

    def plan(self, asked: Asked, now: float) -> Trip:
        """See Policy."""
        return _PlainTrip(self._with_last_resort(self._order(asked)), self._in_flight, self._patience)

    def probed(self, backend: int, seen: Probe) -> None:
        """See Policy."""
        self._reached[backend] = seen.reached
        self._waiting[backend] = seen.load.waiting or 0

    def _order(self, asked: Asked) -> Sequence[int]:
        """The pools, best first."""
        raise NotImplementedError

    def _with_last_resort(self, order: Sequence[int]) -> Sequence[int]:
        alive = [pool for pool in order if self._reached[pool]]
        return [*alive[: self._attempts - len(self._apis[:1])], *self._apis[:1]]


class NearestByDistance(_Plain):
    """The pool with the shortest way over the ground from the client."""

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        super().__init__(world, edge, chance)
        self._orders: dict[Client, list[int]] = {}

    def _order(self, asked: Asked) -> Sequence[int]:
        client = asked.client
        if client not in self._orders:
            self._orders[client] = sorted(self._pools, key=lambda pool: self._km(client, pool))
        return self._orders[client]

    def _km(self, client: Client, pool: int) -> float:
        facts = self._world.settings.backend[pool]
        place = facts.location or region_location(facts.region or "")
        here = (client.location.latitude, client.location.longitude)
        return great_circle_km(here, place) if place else inf


class LowestRtt(_Plain):
    """The pool with the shortest measured round trip from the edge."""

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        super().__init__(world, edge, chance)
        self._by_way = sorted(self._pools, key=self._edge.ways.__getitem__)

    def _order(self, asked: Asked) -> Sequence[int]:
        return self._by_way


class RoundRobin(_Plain):
    """One pool after the other, as often as each has nodes."""

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        super().__init__(world, edge, chance)
        turns = sorted((turn / world.nodes[pool], pool) for pool in self._pools for turn in range(world.nodes[pool]))
        self._orders = [_from(i, [pool for _, pool in turns]) for i in range(len(turns))]
        self._next = edge

    def _order(self, asked: Asked) -> Sequence[int]:
        self._next = (self._next + 1) % len(self._orders)
        return self._orders[self._next]


def _from(start: int, ring: list[int]) -> list[int]:
    return list(dict.fromkeys(ring[start:] + ring[:start]))


class LeastLoad(_Plain):
    """The pool with the fewest requests for its nodes: this edge's own, and the engine's queue as last probed."""

    def _order(self, asked: Asked) -> Sequence[int]:
        return sorted(self._pools, key=self._load)

    def _load(self, pool: int) -> tuple[float, float]:
        requests = self._in_flight[pool] + self._waiting[pool]
        return requests / self._world.nodes[pool], self._edge.ways[pool]


class ApiAlone(_Plain):
    """No router: the official API, once, for as long as it takes."""

    tries = 1

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        super().__init__(world, edge, chance)
        self._patience = world.settings.deadlines.total

    def plan(self, asked: Asked, now: float) -> Trip:
        """See Policy."""
        return _PlainTrip(self._apis[:1] * self.tries, self._in_flight, self._patience)


class ApiThreeTimes(ApiAlone):
    """No router, but an app that tries three times."""

    tries = 3
