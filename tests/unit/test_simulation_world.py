"""The simulated world lies where the real one does."""

from __future__ import annotations

from collections import Counter

import pytest

from isochrone.routing.geo import Location
from isochrone.settings import Settings, load, parse
from isochrone.simulation.world import DATA, Population, World, activity, build_world, dice

CONFIG = """
[[region]]
name = "us-east-1"
[[region]]
name = "ap-northeast-1"

[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "http://127.0.0.1:1/v1"
max_concurrency = 12
models = { m = "m" }

[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:2/v1"
models = { m = "m" }

[[backend]]
name = "api"
kind = "api"
base_url = "http://127.0.0.1:3/v1"
models = { big = "big" }

[[model]]
name = "m"
fallback = ["big"]
"""
SETTINGS = parse(CONFIG)


def _world(settings: Settings = SETTINGS, seed: int = 1) -> World:
    return build_world(settings, "m", clients=500, seed=seed)


def test_pools_serve_the_model_and_apis_stand_in_for_it() -> None:
    world = _world()
    assert (world.pools, world.apis) == ((0, 1), (2,))
    assert world.nodes[:2] == (4, 4)


def test_ways_between_aws_regions_are_the_measured_ones() -> None:
    us, tokyo = _world().edges
    assert us.ways[0] < 0.005
    assert 0.06 < us.ways[1] < 0.09
    assert tokyo.ways[1] > 0.18


def test_clients_come_in_where_they_are_answered_soonest() -> None:
    """Half of mankind lives nearer to Tokyo than to Virginia by cable."""
    world = _world()
    edges = Counter(world.edges[client.edge].region for client in world.clients)
    assert edges["ap-northeast-1"] > edges["us-east-1"] > 50
    assert {client.edge for client in world.clients if client.location.longitude < -60} == {0}
    assert {client.edge for client in world.clients if client.location.longitude > 110} == {1}


def test_the_same_seed_makes_the_same_world() -> None:
    assert _world() == _world()
    assert _world(seed=2) != _world()


def test_estimates_of_ways_are_wrong_as_in_the_world() -> None:
    """Two worlds differ in the ways that nobody measured, and by tenths, not by factors."""
    ways = [_world(seed=seed).edges[0].ways[2] for seed in range(1, 30)]
    assert len(set(ways)) == len(ways)
    assert 1.2 < max(ways) / min(ways) < 3


@pytest.mark.parametrize(
    "change", [("us-east-1", "atlantis"), ('models = { m = "m" }', 'models = { n = "n" }\nkind = "api"')]
)
def test_a_world_that_cannot_be_is_refused_in_one_line(change: tuple[str, str]) -> None:
    text = CONFIG.replace(*change).replace('name = "m"\nfallback', 'name = "big"\nfallback').replace('["big"]', "[]")
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        _world(parse(text))


def test_people_ask_by_day() -> None:
    hours = [activity(hour, Location(0.0, 0.0)) for hour in range(24)]
    assert hours.index(max(hours)) == 15
    assert sum(hours) / 24 == pytest.approx(1.0)
    assert activity(0, Location(0.0, -135.0)) == pytest.approx(activity(15, Location(0.0, 0.0)))


def test_whoever_asks_is_mostly_awake() -> None:
    world = _world()
    population = Population(world, dice(1, "people").random)
    at_noon_in_tokyo = Counter(world.clients[population.pick(6 * 3600.0)].edge for _ in range(3000))
    at_midnight_there = Counter(world.clients[population.pick(18 * 3600.0)].edge for _ in range(3000))
    assert at_noon_in_tokyo[1] > 1.2 * at_midnight_there[1]


def test_a_crowd_comes_from_one_place() -> None:
    world = _world()
    population = Population(world, dice(1, "people").random)
    assert {world.clients[population.pick_at(0)].edge for _ in range(100)} == {0}


@pytest.mark.parametrize("name", ["world.toml", "official.toml"])
def test_worlds_of_the_scenarios_are_valid_configurations(name: str) -> None:
    settings = load(DATA / name)
    assert build_world(settings, settings.model[0].name, clients=10, seed=1).pools
