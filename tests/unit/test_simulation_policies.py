"""The plain policies choose as their names say, from what an edge can know."""

from __future__ import annotations

import pytest

from isochrone.routing.engines import EngineLoad
from isochrone.routing.probe import Probe
from isochrone.settings import parse
from isochrone.simulation.policies import (
    ApiAlone,
    ApiThreeTimes,
    Asked,
    LeastLoad,
    LowestRtt,
    NearestByDistance,
    Policy,
    RoundRobin,
)
from isochrone.simulation.run import MakePolicy
from isochrone.simulation.world import World, build_world
from isochrone.upstream.failure import Cause

CONFIG = """
[[region]]
name = "us-east-1"

[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "http://127.0.0.1:1/v1"
max_concurrency = 3
models = { m = "m" }

[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:2/v1"
max_concurrency = 6
models = { m = "m" }

[[backend]]
name = "pool-ap"
region = "ap-northeast-1"
base_url = "http://127.0.0.1:3/v1"
max_concurrency = 3
models = { m = "m" }

[[backend]]
name = "api"
kind = "api"
base_url = "http://127.0.0.1:4/v1"
models = { big = "big" }

[[model]]
name = "m"
fallback = ["big"]
"""
US, EU, AP, API = range(4)


def _world() -> World:
    return build_world(parse(CONFIG), "m", clients=300, seed=1)


def _policy(make: MakePolicy, world: World) -> Policy:
    return make(world, 0, lambda: 0.5)


def _asked(world: World, longitude: tuple[float, float] = (-180.0, 180.0)) -> Asked:
    client = next(one for one in world.clients if longitude[0] < one.location.longitude < longitude[1])
    return Asked(client, 1)


def _way(policy: Policy, asked: Asked) -> list[int]:
    """Whom a request asks while everybody fails."""
    trip, way = policy.plan(asked, 0.0), []
    while stop := trip.next_stop(0.0):
        way.append(stop.backend)
        if visit := trip.begin(stop.backend, 0.0):
            visit.failed(Cause.BROKEN, 0.0)
    return way


def _lose(policy: Policy, backend: int) -> None:
    policy.probed(backend, Probe(1.0, reached=False))


def test_the_nearest_by_distance_is_the_clients_own() -> None:
    world = _world()
    policy = _policy(NearestByDistance, world)
    assert _way(policy, _asked(world, (130.0, 145.0))) == [AP, EU, API]
    assert _way(policy, _asked(world, (5.0, 15.0))) == [EU, US, API]


def test_the_lowest_round_trip_is_the_edges_own() -> None:
    world = _world()
    assert _way(_policy(LowestRtt, world), _asked(world, (130.0, 145.0))) == [US, EU, API]


def test_round_robin_gives_each_node_its_turn() -> None:
    world = _world()
    policy = _policy(RoundRobin, world)
    first = [_way(policy, _asked(world))[0] for _ in range(40)]
    assert [first.count(pool) for pool in (US, EU, AP)] == [10, 20, 10]


def test_the_least_loaded_has_the_fewest_requests_for_its_nodes() -> None:
    world = _world()
    policy = _policy(LeastLoad, world)
    chosen = []
    for _ in range(4):
        trip = policy.plan(_asked(world), 0.0)
        stop = trip.next_stop(0.0)
        assert stop
        trip.begin(stop.backend, 0.0)
        chosen.append(stop.backend)
    assert sorted(chosen) == [US, EU, EU, AP]


def test_the_least_loaded_counts_what_waits_at_the_engine() -> None:
    world = _world()
    policy = _policy(LeastLoad, world)
    policy.probed(US, Probe(1.0, reached=True, load=EngineLoad(waiting=3)))
    assert _way(policy, _asked(world))[0] == EU


@pytest.mark.parametrize("make", [NearestByDistance, LowestRtt, RoundRobin, LeastLoad])
def test_plain_policies_leave_out_what_probes_do_not_reach(make: MakePolicy) -> None:
    world = _world()
    policy = _policy(make, world)
    _lose(policy, US)
    assert {pool for _ in range(10) for pool in _way(policy, _asked(world))} == {EU, AP, API}
    _lose(policy, EU)
    _lose(policy, AP)
    assert _way(policy, _asked(world)) == [API]


def test_whoever_has_no_router_asks_the_official_api_only() -> None:
    world = _world()
    assert _way(_policy(ApiAlone, world), _asked(world)) == [API]
    assert _way(_policy(ApiThreeTimes, world), _asked(world)) == [API] * 3
