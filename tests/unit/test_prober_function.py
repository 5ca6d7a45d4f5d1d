"""One round of the prober function, told to the edges of its region; resident edges go first."""

from __future__ import annotations

import random
import time

import pytest

from isochrone.prober_function import RegionProber, build_prober
from isochrone.routing.exchange import Exchange
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.leases import Leases
from isochrone.routing.prober import DUTY
from isochrone.settings import Backend, Region, Settings, SettingsError, State
from isochrone.stores.memory import MemoryFleetStore

BACKENDS = (Backend(name="pool", base_url="http://127.0.0.1:1/v1", models={"m": "m"}),)


class Process:
    """What a process that shares `store` has of its own."""

    def __init__(self, store: MemoryFleetStore, name: str) -> None:
        self.fleet = Fleet(BACKENDS, edge_region="eu-west-1")
        self.leases = Leases(store, name, time.time)
        self.exchange = Exchange(
            self.fleet, store, clock=time.time, monotonic=time.monotonic, chance=random.Random(1).random
        )


@pytest.fixture
def store() -> MemoryFleetStore:
    return MemoryFleetStore()


def prober_on(store: MemoryFleetStore) -> RegionProber:
    process = Process(store, "prober")
    return RegionProber(process.fleet, process.leases, process.exchange)


async def test_edges_know_what_the_prober_saw(store: MemoryFleetStore) -> None:
    edge = Process(store, "edge")
    assert await prober_on(store).look() == {"pool": "cannot be reached: Connection refused"}
    await edge.exchange.refresh()
    assert edge.fleet.offers("m")[0].standing(time.monotonic()) is Standing.UNREACHABLE


async def test_each_round_is_a_new_one(store: MemoryFleetStore) -> None:
    prober = prober_on(store)
    assert await prober.look() == await prober.look() != {}
    assert await prober_on(store).look() != {}


async def test_prober_leaves_the_duty_to_a_resident_edge(store: MemoryFleetStore) -> None:
    edge = Process(store, "edge")
    assert await edge.leases.hold(DUTY, 15)
    assert await prober_on(store).look() == {}
    await edge.leases.let_go()
    assert await prober_on(store).look() != {}


async def test_round_without_the_table_looks_and_tells_nobody(store: MemoryFleetStore) -> None:
    store.failing = True
    assert await prober_on(store).look() == {"pool": "cannot be reached: Connection refused"}


@pytest.mark.parametrize(
    ("kind", "region", "message"),
    [
        ("dynamodb", "us-east-1", "region 'us-east-1' is not in the configuration; it has eu-west-1"),
        ("memory", "eu-west-1", 'state.kind = "memory": a prober needs a table to tell edges what it sees'),
    ],
)
async def test_prober_that_makes_no_sense_is_one_line(kind: str, region: str, message: str) -> None:
    state = State(kind="memory" if kind == "memory" else "dynamodb")
    settings = Settings(region=(Region(name="eu-west-1"),), backend=BACKENDS, state=state)
    with pytest.raises(SettingsError) as caught:
        build_prober(settings, region=region, environ={})
    assert str(caught.value) == message
