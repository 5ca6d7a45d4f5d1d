"""What an edge does between its start and its end, without a network."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import pytest
from msgspec.structs import replace

from isochrone.life import Life, Stores
from isochrone.routing.fleet import UNKNOWN_RTT_MS
from isochrone.routing.health import Standing
from isochrone.routing.leases import Leases
from isochrone.routing.prober import DUTY
from isochrone.settings import Backend, Model, Region, Settings, State
from isochrone.stores.memory import MemoryAnswerStore, MemoryFleetStore, MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore

SETTINGS = Settings(
    region=(Region(name="eu-west-1"),),
    backend=(Backend(name="pool", base_url="http://127.0.0.1:1/v1", models={"m": "m"}),),
)


def function_over(fleet: MemoryFleetStore | None, settings: Settings = SETTINGS) -> Life:
    """An edge that is not resident, as a Lambda function is not."""
    return Life(
        settings,
        "eu-west-1",
        {},
        Stores(MemoryAnswerStore(), MemoryLedgerStore(), MemoryRollupStore(), fleet),
        resident=False,
    )


@pytest.fixture
async def fleet() -> MemoryFleetStore:
    return MemoryFleetStore()


@pytest.fixture
async def function(fleet: MemoryFleetStore) -> AsyncIterator[Life]:
    life = function_over(fleet)
    yield life
    await life.close()


def fail(life: Life) -> None:
    """Open the circuit of the one model."""
    (offer,) = life.fleet.offers("m")
    for _ in range(3):
        offer.circuit.on_failure(time.monotonic(), "broken", begun=time.monotonic())


async def test_copies_of_a_snapshot_do_not_share_a_name(function: Life) -> None:
    names = set()
    for _ in range(3):  # each restored copy starts once
        await function.start()
        names.add(function.places.holder)
        assert function.leases.holder == function.places.holder
    assert len(names) == 3


def open_files() -> set[str]:
    """What this process has open, sockets too."""
    return {os.path.realpath(file) for file in Path("/dev/fd").iterdir()}


async def test_snapshot_has_no_file_and_no_socket_in_it(tmp_path: Path) -> None:
    """A function is built before its snapshot: what it opened then, all copies would share, or not find."""
    spool = tmp_path / "spool"
    before = open_files()
    life = function_over(None, replace(SETTINGS, state=State(kind="dynamodb", spool=str(spool))))
    assert open_files() == before
    with pytest.raises(FileNotFoundError):
        spool.lstat()
    await life.close()


async def test_function_tells_what_it_saw_before_it_may_be_frozen(function: Life, fleet: MemoryFleetStore) -> None:
    await function.catch_up()
    fail(function)
    await function.catch_up()
    other = function_over(fleet)
    assert other.exchange is not None
    await other.exchange.refresh()
    assert other.fleet.offers("m")[0].standing(time.monotonic()) is Standing.EJECTED
    await other.close()


async def test_function_hears_before_it_tells_and_writes_no_speed_that_is_known(
    fleet: MemoryFleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of a long answer it knows of nothing that others have told meanwhile."""
    one, other = function_over(fleet), function_over(fleet)
    assert one.exchange
    await one.exchange.refresh()
    for life in (other, one):
        life.fleet.offers("m")[0].speed.on_first_token(50.0, now=time.monotonic())
    await other.catch_up()
    written = []
    monkeypatch.setattr(fleet, "write", lambda name, *_, **__: written.append(name))
    monkeypatch.setattr(one.exchange, "_read_at", -inf)
    await one.catch_up()
    assert written == []
    monkeypatch.undo()
    await one.close()
    await other.close()


@pytest.mark.parametrize(("hedge_after", "counters"), [(None, {"budget"}), (1.0, {"budget", "hedges"})])
async def test_hedges_are_counted_in_the_table_only_where_there_are_some(
    fleet: MemoryFleetStore, hedge_after: float | None, counters: set[str]
) -> None:
    life = function_over(fleet, replace(SETTINGS, model=(Model(name="m", hedge_after=hedge_after),)))
    for budget in (life.budget, life.hedges):
        budget.deposit(time.time())
    await life.catch_up()
    assert {name.partition("/")[0] for name in fleet._counters} == counters
    await life.close()


async def test_function_with_a_table_leaves_probes_to_the_prober(function: Life, fleet: MemoryFleetStore) -> None:
    await function.catch_up()
    assert function.fleet.states[0].last_probe() is None
    assert await Leases(fleet, "prober", time.time).take(DUTY, 10) is not None


async def test_function_without_a_table_probes_after_a_reply() -> None:
    life = function_over(None)
    await life.catch_up()
    seen = life.fleet.states[0].last_probe()
    assert seen is not None
    assert not seen.reached
    await life.close()


async def test_slots_are_counted_in_the_home_region_of_their_backend(fleet: MemoryFleetStore) -> None:
    near, far = (replace(SETTINGS.backend[0], name=name, max_concurrency=1) for name in ("near", "far"))
    settings = replace(
        SETTINGS,
        region=(Region(name="eu-west-1"), Region(name="ap-southeast-1")),
        backend=(replace(near, region="eu-west-1"), replace(far, region="ap-southeast-1")),
    )
    opened = {"ap-southeast-1": MemoryFleetStore()}
    stores = Stores(MemoryAnswerStore(), MemoryLedgerStore(), MemoryRollupStore(), fleet, opened.__getitem__)
    life = Life(settings, "eu-west-1", {}, stores, resident=False)
    for offer in life.fleet.offers("m"):
        assert await life.places.take(offer, priority=10)
    for name, table in (("near", fleet), ("far", opened["ap-southeast-1"])):
        assert (await table.read(f"slots/{name}", now=time.time()))[0]
    await life.close()


@pytest.mark.parametrize(("region", "ms"), [("eu-west-1", 0), ("ap-southeast-1", 180), ("a-basement", UNKNOWN_RTT_MS)])
async def test_home_is_as_far_as_its_region(fleet: MemoryFleetStore, region: str, ms: float) -> None:
    settings = replace(SETTINGS, region=(Region(name="eu-west-1"), Region(name=region)) if ms else SETTINGS.region)
    stores = Stores(MemoryAnswerStore(), MemoryLedgerStore(), MemoryRollupStore(), fleet, lambda _: fleet)
    life = Life(settings, "eu-west-1", {}, stores, resident=False)
    home = life._home_of(replace(SETTINGS.backend[0], region=region))
    assert home.rtt_ms == pytest.approx(ms, rel=0.1)
    await life.close()


async def test_edge_that_ends_tells_what_it_saw_and_leaves_its_duty_to_the_next(fleet: MemoryFleetStore) -> None:
    life = function_over(fleet)
    assert await life.leases.hold(DUTY, 15)
    fail(life)
    await life.close()
    assert (await fleet.read("health", now=time.time()))[0] is not None
    assert await Leases(fleet, "other", time.time).take(DUTY, 15) is not None
