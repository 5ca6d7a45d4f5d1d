from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from isochrone.background import Background
from isochrone.routing.circuit import OPEN_BASE_SECONDS, State
from isochrone.routing.fleet import Fleet, Offer
from isochrone.routing.leases import Leases
from isochrone.routing.places import TRIAL_SECONDS, Home, Place, Places
from isochrone.routing.slots import LEASE_SECONDS
from isochrone.settings import Backend
from isochrone.stores.memory import MemoryFleetStore

HIGH, USUAL, LOW = 10, 5, 1
SOON = 1000.0


class Region:
    """A fleet table and the edges that share it, each with a fleet of its own; a backend called `far` has its home
    `elsewhere`. All clocks are `now`."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.table = MemoryFleetStore(clock=lambda: self.now)
        self.elsewhere = MemoryFleetStore(clock=lambda: self.now)
        self.edges: list[Edge] = []

    def edge(self, **slots: int | None) -> Edge:
        edge = Edge(self, f"edge-{len(self.edges)}", slots)
        self.edges.append(edge)
        return edge


class Edge:
    """`slots` gives max_concurrency by backend; each serves the models m and n."""

    def __init__(self, region: Region, name: str, slots: dict[str, int | None]) -> None:
        def clock() -> float:
            return region.now

        backends = [
            Backend(name=backend, base_url="http://127.0.0.1:9/v1", models={"m": "m", "n": "n"}, max_concurrency=most)
            for backend, most in slots.items()
        ]
        self.region = region
        self.background = Background()
        self.fleet = Fleet(backends, edge_region="us-east-1")
        leases = Leases(region.table, name, clock)
        self.places = Places(self._home_of, leases, self.background, holder=name, clock=clock, wall=clock)

    def _home_of(self, facts: Backend) -> Home:
        return Home(self.region.elsewhere, 10.0) if facts.name == "far" else Home(self.region.table)

    def offer(self, number: int = 0, model: str = "m") -> Offer:
        return self.fleet.offers(model)[number]

    async def take(self, priority: int = USUAL, *, number: int = 0, model: str = "m", tenant: str = "") -> Place | None:
        return await self.places.take(self.offer(number, model), priority=priority, tenant=tenant)

    async def fill(self, times: int, **at: Any) -> list[Place]:
        taken = [await self.take(HIGH, **at) for _ in range(times)]
        assert all(taken)
        return [place for place in taken if place]

    def wait(
        self, *numbers: int, priority: int = USUAL, seconds: float = SOON, tenant: str = ""
    ) -> asyncio.Task[Place | None]:
        offers = [self.offer(number) for number in numbers or (0,)]
        until = self.region.now + seconds
        return asyncio.create_task(self.places.wait(offers, priority=priority, until=until, tenant=tenant))

    def fall_sick(self, number: int = 0) -> Offer:
        """Its circuit opens, and is half-open again."""
        offer = self.offer(number)
        for _ in range(3):
            offer.circuit.on_failure(self.region.now, "answered 500", begun=self.region.now)
        self.region.now += 1.2 * OPEN_BASE_SECONDS
        assert offer.circuit.state(self.region.now) is State.HALF_OPEN
        return offer


@pytest.fixture
async def region() -> AsyncIterator[Region]:
    region = Region()
    yield region
    for edge in region.edges:
        await edge.places.close()
        await edge.background.finish()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# -- slots -------------------------------------------------------------------------------------------------------------


async def test_backend_without_a_limit_always_has_a_place(region: Region) -> None:
    edge = region.edge(pool=None)
    await edge.fill(100)
    assert await region.table.read("slots/pool", now=region.now) == (None, 0)


async def test_full_backend_has_no_place_until_one_is_given_back(region: Region) -> None:
    edge = region.edge(pool=2)
    first, _ = await edge.fill(2)
    assert await edge.take(HIGH) is None
    first.give_back()
    assert await edge.take(HIGH)


async def test_models_of_a_backend_share_its_slots(region: Region) -> None:
    edge = region.edge(pool=2)
    await edge.fill(2, model="n")
    assert await edge.take(HIGH, model="m") is None


async def test_place_given_back_twice_counts_once(region: Region) -> None:
    edge = region.edge(pool=2)
    first, _ = await edge.fill(2)
    first.give_back()
    first.give_back()
    await edge.fill(1)
    assert await edge.take(HIGH) is None


async def test_less_urgent_requests_leave_room_for_urgent_ones(region: Region) -> None:
    edge = region.edge(pool=20)
    await edge.fill(16)
    assert await edge.take(3) is None
    for _ in range(3):
        assert await edge.take(4)
    assert await edge.take(8) is None
    assert await edge.take(9)


async def test_edges_share_the_slots_of_a_backend(region: Region) -> None:
    one, two = region.edge(pool=4), region.edge(pool=4)
    held = await one.fill(4)
    assert await two.take() is None
    held[0].give_back()
    await one.places.settle()
    region.now += 1
    assert await two.take(HIGH)
    assert await two.take(HIGH) is None


async def test_slots_are_leased_where_the_backend_has_its_home(region: Region) -> None:
    edge = region.edge(far=2, pool=2)
    await edge.fill(1)
    await edge.fill(1, number=1)

    async def held(table: MemoryFleetStore) -> set[str]:
        return {name for name in ("slots/far", "slots/pool") if (await table.read(name, now=region.now))[0]}

    assert await held(region.elsewhere) == {"slots/far"}
    assert await held(region.table) == {"slots/pool"}


async def test_edge_goes_on_when_the_home_of_a_backend_is_gone(region: Region) -> None:
    region.elsewhere.failing = True
    edge = region.edge(far=2, pool=2)
    await edge.fill(2)
    assert await edge.take(HIGH) is None
    await edge.fill(2, number=1)
    assert (await region.table.read("slots/pool", now=region.now))[0]


async def test_edge_that_was_idle_hears_that_the_table_is_back(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.routing.places.ROUND_SECONDS", 0.0)
    edge = region.edge(pool=2)
    region.table.failing = True
    (first,) = await edge.fill(1)
    first.give_back()
    await settled()
    assert "keeping slots" not in {task.get_name() for task in asyncio.all_tasks()}
    region.table.failing = False
    region.now += 60
    await edge.fill(1)
    await settled()
    document, _ = await region.table.read("slots/pool", now=region.now)
    assert document is not None
    assert list(document) == ["edge-0"]


async def test_trial_of_a_far_backend_is_that_of_its_own_region(region: Region) -> None:
    edge = region.edge(far=2)
    edge.fall_sick()
    assert await edge.take()
    assert (await region.table.read("trial/far/m", now=region.now))[0]
    assert not (await region.elsewhere.read("trial/far/m", now=region.now))[0]


async def test_settled_edge_that_serves_nobody_holds_nothing(region: Region) -> None:
    edge = region.edge(pool=4)
    for place in await edge.fill(3):
        place.give_back()
    await edge.places.settle()
    document, _ = await region.table.read("slots/pool", now=region.now)
    assert document == {}


async def test_leases_are_looked_after_while_a_request_lasts(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.routing.places.ROUND_SECONDS", 0.0)
    one, two = region.edge(pool=2), region.edge(pool=2)
    held = await one.fill(2)
    for _ in range(10):
        region.now += LEASE_SECONDS / 2
        await settled()
        assert await two.take(HIGH) is None
    for place in held:
        place.give_back()
    await settled()
    assert "edge-0" not in ((await region.table.read("slots/pool", now=region.now))[0] or {})
    region.now += LEASE_SECONDS
    await settled()
    assert "keeping slots" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_closing_gives_everything_back(region: Region) -> None:
    edge = region.edge(pool=2)
    await edge.fill(2)
    waiting = edge.wait()
    await settled()
    for place in [await edge.take(LOW)]:
        assert place is None
    await edge.places.close()
    assert await waiting is None
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("keeping slots", "waiting room")]


# -- trials ------------------------------------------------------------------------------------------------------------


async def test_half_open_circuit_gives_one_place_at_a_time(region: Region) -> None:
    edge = region.edge(pool=None)
    edge.fall_sick()
    trial = await edge.take()
    assert trial
    assert trial.is_trial
    assert await edge.take() is None
    trial.give_back()
    await edge.background.finish()
    assert await edge.take()


async def test_place_at_a_sound_backend_is_no_trial(region: Region) -> None:
    place = await region.edge(pool=4).take()
    assert place
    assert not place.is_trial


async def test_edges_try_a_sick_model_one_after_the_other(region: Region) -> None:
    one, two = region.edge(pool=None), region.edge(pool=None)
    one.fall_sick()
    two.fall_sick()
    trial = await one.take()
    assert trial
    assert await two.take() is None
    assert two.offer().circuit.lets_through(region.now)
    trial.give_back()
    await one.background.finish()
    assert await two.take()


async def test_trial_of_an_edge_that_died_does_not_keep_others_away_for_long(region: Region) -> None:
    one, two = region.edge(pool=None), region.edge(pool=None)
    one.fall_sick()
    two.fall_sick()
    assert await one.take()
    assert await two.take() is None
    region.now += TRIAL_SECONDS
    assert await two.take()


async def test_trial_of_one_model_is_none_of_the_others(region: Region) -> None:
    edge = region.edge(pool=None)
    edge.fall_sick()
    assert await edge.take(model="m")
    other = await edge.take(model="n")
    assert other
    assert not other.is_trial


async def test_trial_without_a_slot_stays_free(region: Region) -> None:
    edge = region.edge(pool=1)
    (held,) = await edge.fill(1, model="n")
    edge.fall_sick()
    assert await edge.take() is None
    held.give_back()
    trial = await edge.take()
    assert trial
    assert trial.is_trial


async def test_slot_without_a_trial_stays_free(region: Region) -> None:
    one, two = region.edge(pool=2), region.edge(pool=2)
    one.fall_sick()
    two.fall_sick()
    assert await one.take()
    assert await two.take() is None
    assert await two.take(HIGH, model="n")


async def test_table_that_does_not_answer_keeps_nobody_from_a_trial(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    edge = region.edge(pool=None)
    edge.fall_sick()
    monkeypatch.setattr(region.table, "read", hang)
    assert await edge.take()


async def test_request_cut_off_while_it_takes_a_trial_leaves_it_free(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    edge = region.edge(pool=2)
    (held,) = await edge.fill(1, model="n")
    offer = edge.fall_sick()
    with monkeypatch.context() as broken:
        broken.setattr(edge.places._leases, "take", cut)
        with pytest.raises(asyncio.CancelledError):
            await edge.take()
    held.give_back()
    assert offer.circuit.lets_through(region.now)
    assert edge.places._slots["pool"].used == 0


# -- waiting -----------------------------------------------------------------------------------------------------------


async def test_whoever_waits_gets_the_place_that_is_given_back(region: Region) -> None:
    edge = region.edge(pool=1)
    (held,) = await edge.fill(1)
    waiting = edge.wait()
    await settled()
    assert not waiting.done()
    held.give_back()
    place = await waiting
    assert place
    assert place.offer is edge.offer()


async def test_whoever_waits_takes_the_first_choice_that_has_a_place(region: Region) -> None:
    edge = region.edge(near=1, far=2)
    await edge.fill(1, number=0)
    (held, _) = await edge.fill(2, number=1)
    waiting = edge.wait(0, 1)
    await settled()
    held.give_back()
    place = await waiting
    assert place
    assert place.offer is edge.offer(1)


async def test_nobody_overtakes_those_who_wait(region: Region) -> None:
    edge = region.edge(pool=10)
    held = await edge.fill(9)
    low = edge.wait(priority=LOW)
    await settled()
    assert not low.done()  # the last slots are for others
    assert await edge.take(HIGH) is None
    assert await edge.wait(priority=HIGH)
    for place in held[:3]:
        place.give_back()
    assert await low
    assert await edge.take(HIGH)


async def test_place_given_back_is_offered_at_once(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.routing.waiting.POLL_SECONDS", 1000.0)
    edge = region.edge(pool=1)
    (held,) = await edge.fill(1)
    waiting = edge.wait()
    await settled()
    held.give_back()
    await settled()
    assert waiting.done()


async def test_wait_ends_at_its_deadline(region: Region) -> None:
    edge = region.edge(pool=1)
    await edge.fill(1)
    assert await edge.wait(seconds=0.01) is None
    assert await edge.take(HIGH) is None
    assert edge.places._sought == {}


async def test_retry_after_follows_from_how_long_places_are_held(region: Region) -> None:
    edge = region.edge(pool=4, other=4)

    def hint(number: int = 0, priority: int = USUAL) -> int:
        return edge.places.retry_after([edge.offer(number)], priority=priority)

    held = await edge.fill(4)
    assert hint() == 5
    for place in held[:3]:
        region.now += 2
        place.give_back()
        (held_again,) = await edge.fill(1)
        held.append(held_again)
    region.now += 2
    assert hint() == 1  # four of them, for 4 seconds each
    assert hint(1) == 5
    waiting = [edge.wait(), edge.wait()]
    await settled()
    assert hint() == 3
    assert hint(priority=HIGH) == 1
    for task in waiting:
        task.cancel()
    region.now += 60
    assert hint() == 5


async def test_retry_after_in_a_rush_does_not_go_by_the_quiet_time_before_it(region: Region) -> None:
    edge = region.edge(pool=4)
    (only,) = await edge.fill(1)
    region.now += 2
    only.give_back()
    region.now += 50
    await edge.fill(4)
    assert edge.places.retry_after([edge.offer()], priority=USUAL) == 1


# -- tenants -----------------------------------------------------------------------------------------------------------


async def served(place: Place, waiting: dict[str, list[asyncio.Task[Place | None]]], times: int) -> str:
    """The first letters of the tenants who get the one place, one after the other."""
    order, open_ones = "", [(tenant, task) for tenant, tasks in waiting.items() for task in tasks]
    for _ in range(times):
        place.give_back()
        await settled()
        (got,) = [(tenant, task) for tenant, task in open_ones if task.done()]
        open_ones.remove(got)
        place = cast(Place, got[1].result())
        order += got[0][0]
    place.give_back()
    return order


async def test_tenants_take_turns_before_a_full_backend(region: Region) -> None:
    edge = region.edge(pool=1)
    (held,) = await edge.fill(1)
    waiting = {
        tenant: [edge.wait(tenant=tenant) for _ in range(number)] for tenant, number in (("noisy", 9), ("quiet", 2))
    }
    await settled()
    assert await served(held, waiting, 5) == "nqnqn"


async def test_tenant_whose_answers_take_long_has_fewer_turns(region: Region) -> None:
    edge = region.edge(pool=1)
    for tenant, seconds in (("long", 9.0), ("short", 1.0)) * 300:
        place = await edge.take(tenant=tenant)
        assert place
        region.now += seconds
        place.give_back()
    (held,) = await edge.fill(1)
    waiting = {tenant: [edge.wait(tenant=tenant) for _ in range(30)] for tenant in ("long", "short")}
    await settled()
    order = await served(held, waiting, 20)
    assert 1 <= order.count("l") <= 3
