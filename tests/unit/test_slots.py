from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from isochrone.routing.priority import Priority
from isochrone.routing.slots import FULL_SECONDS, LEASE_SECONDS, ROUND_SECONDS, Slots
from isochrone.stores.memory import MemoryFleetStore

HIGH, STANDARD, LOW = Priority.HIGH, Priority.STANDARD, Priority.LOW


class Table(MemoryFleetStore):
    """Counts the calls; `slow` of them hang, the others take `seconds`."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(clock=lambda: fleet.now)
        self.reads = self.writes = self.slow = 0
        self.seconds = 0.0

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        self.reads += 1
        await asyncio.sleep(self.seconds)
        if self.slow:
            self.slow -= 1
            await asyncio.Event().wait()
        return await super().read(name, now=now)

    async def write(self, name: str, document: Mapping[str, Any], *, version: int, expires: float) -> int:
        self.writes += 1
        return await super().write(name, dict(document), version=version, expires=expires)


class Fleet:
    """Edges that share the slots of one backend."""

    def __init__(self, capacity: int = 8) -> None:
        self.now = 1000.0
        self.capacity = capacity
        self.table = Table(self)

    def edge(self, name: str, **given: Any) -> Slots:
        told = {"store": self.table, "clock": lambda: self.now, "wall": lambda: self.now, **given}
        return Slots("pool", self.capacity, holder=name, **told)

    async def document(self) -> dict[str, Any]:
        return (await self.table.read("slots/pool", now=self.now))[0] or {}

    async def slots(self) -> dict[str, int]:
        return {holder: entry[0] for holder, entry in (await self.document()).items() if entry[0]}


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    yield Fleet()


async def take(slots: Slots, times: int, priority: Priority = HIGH) -> int:
    return sum([await slots.take(priority) for _ in range(times)])


# -- leasing ----------------------------------------------------------------------------------------------------------


async def test_first_request_leases_one_slot_and_more_requests_double_that(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    leased = []
    for _ in range(8):
        assert await edge.take(HIGH)
        leased.append(edge.leased)
    assert leased == [1, 2, 4, 4, 8, 8, 8, 8]
    assert await fleet.slots() == {"a": 8}


async def test_slot_at_hand_costs_no_call(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    await take(edge, 3)
    calls = fleet.table.reads, fleet.table.writes
    edge.give_back()
    assert await edge.take(HIGH)
    assert edge.take_at_hand(HIGH)
    assert (fleet.table.reads, fleet.table.writes) == calls


async def test_edges_together_never_have_more_than_there_is(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    assert await take(one, 6) == 6
    assert await take(two, 6) == 8 - one.leased == 0
    fleet.now += 2 * ROUND_SECONDS + 0.1
    for _ in range(3):
        await one.keep()
    assert one.leased == 6
    assert await take(two, 6) == 2


async def test_growth_beyond_the_fair_part_takes_one_at_a_time(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(two, 1)
    await take(one, 4)
    assert one.leased == 4
    assert await take(one, 1) == 1
    assert one.leased == 5


async def test_requests_that_come_at_once_lease_together(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    assert await asyncio.gather(*(edge.take(HIGH) for _ in range(10))) == [True] * 8 + [False] * 2
    assert fleet.table.writes == 1


async def test_full_backend_is_asked_about_a_few_times_a_second_only(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 8)
    assert not await two.take(HIGH)
    reads = fleet.table.reads
    assert await take(two, 20) == 0
    assert fleet.table.reads == reads
    fleet.now += FULL_SECONDS
    assert not await two.take(HIGH)
    assert fleet.table.reads == reads + 1


async def test_standstill_at_a_full_backend_is_not_written_again_and_again(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 8)
    assert not await two.take(HIGH)
    writes = fleet.table.writes
    fleet.now += FULL_SECONDS
    assert not await two.take(HIGH)
    assert fleet.table.writes == writes


# -- holding on, letting go -------------------------------------------------------------------------------------------


async def test_lease_that_nobody_renews_is_over_for_its_holder_and_then_for_the_others(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 8)
    assert not await two.take(HIGH)
    one.give_back()
    fleet.now += LEASE_SECONDS - 0.1
    assert one.take_at_hand(HIGH)
    one.give_back()
    assert not await two.take(HIGH)
    fleet.now += FULL_SECONDS
    assert not one.take_at_hand(HIGH)
    assert await two.take(HIGH)


async def test_lease_is_renewed_while_it_is_used(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 8)
    for _ in range(12):
        fleet.now += ROUND_SECONDS
        await one.keep()
        assert not await two.take(HIGH)
    assert one.used == 8


async def test_lease_is_renewed_no_more_often_than_needed(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    await take(edge, 8)
    writes = fleet.table.writes
    for _ in range(12):  # 30 s
        fleet.now += ROUND_SECONDS
        await edge.keep()
    assert fleet.table.writes - writes == 6


async def test_renewal_is_seen_as_such_although_a_reply_got_lost(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 1)
    beats = {(await fleet.document())["a"][1]}
    with monkeypatch.context() as broken:
        write = fleet.table.write

        async def lost(*args: Any, **given: Any) -> int:
            await write(*args, **given)
            raise asyncio.CancelledError

        broken.setattr(fleet.table, "write", lost)
        fleet.now += LEASE_SECONDS / 2
        with pytest.raises(asyncio.CancelledError):
            await one.keep()
    beats.add((await fleet.document())["a"][1])
    await one.keep()
    beats.add((await fleet.document())["a"][1])
    assert len(beats) == 3
    assert await take(two, 8) == 7


async def test_what_was_not_needed_for_a_while_is_given_back(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    await take(edge, 8)
    for _ in range(7):
        edge.give_back()
    await edge.keep()
    await edge.keep()
    assert await fleet.slots() == {"a": 8}
    await edge.keep()
    assert await fleet.slots() == {"a": 1}
    edge.give_back()
    for _ in range(4):
        await edge.keep()
    assert await fleet.slots() == {}
    assert not edge.is_held


async def test_settling_keeps_only_what_is_in_use(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    await take(edge, 5)
    edge.give_back()
    edge.give_back()
    await edge.settle()
    assert await fleet.slots() == {"a": 3}
    for _ in range(3):
        edge.give_back()
    await edge.settle()
    assert await fleet.slots() == {}
    writes = fleet.table.writes
    await edge.settle()
    assert fleet.table.writes == writes


async def test_what_is_being_given_back_cannot_be_taken_meanwhile(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = fleet.edge("a")
    await take(edge, 8)
    for _ in range(8):
        edge.give_back()
    write = fleet.table.write
    taken = []

    async def eager(*args: Any, **given: Any) -> int:
        taken.append(edge.take_at_hand(HIGH))
        return await write(*args, **given)

    monkeypatch.setattr(fleet.table, "write", eager)
    await edge.settle()
    assert taken == [False]


async def test_slot_that_is_taken_while_others_are_being_given_back_is_kept(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = fleet.edge("a")
    await take(edge, 8)
    for _ in range(8):
        edge.give_back()
    read = fleet.table.read

    async def slow(*args: Any, **given: Any) -> Any:
        assert edge.take_at_hand(HIGH)
        return await read(*args, **given)

    monkeypatch.setattr(fleet.table, "read", slow)
    await edge.settle()
    assert (edge.used, edge.leased) == (1, 1)


async def test_requests_that_come_while_the_table_is_read_need_not_ask_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A far table is read for as long as many requests may take to come."""
    edge = fleet.edge("a")
    read = fleet.table.read
    late: list[asyncio.Task[bool]] = []

    async def slow(*args: Any, **given: Any) -> Any:
        late.extend(asyncio.create_task(edge.take(HIGH)) for _ in range(5))
        await asyncio.sleep(0)
        return await read(*args, **given)

    monkeypatch.setattr(fleet.table, "read", slow)
    assert await edge.take(HIGH)
    assert await asyncio.gather(*late) == [True] * 5
    assert fleet.table.writes == 1


async def test_edge_that_lacks_its_fair_part_gets_it_although_the_other_is_never_idle(fleet: Fleet) -> None:
    busy, late = fleet.edge("a"), fleet.edge("b")
    await take(busy, 8)
    assert await take(late, 4) == 0
    for _ in range(3):
        fleet.now += ROUND_SECONDS
        await busy.keep()
    for _ in range(8):  # each answer that ends makes room for the next at once
        busy.give_back()
        await busy.take(HIGH)
    assert busy.used == 4
    await busy.keep()
    fleet.now += FULL_SECONDS
    assert await take(late, 1) == 1
    for _ in range(3):
        await take(late, 1)
    assert late.used == 4


async def test_edge_that_has_its_fair_part_lacks_nothing(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 4)
    await take(two, 5)
    assert not await one.take(HIGH)
    assert [entry[2] for entry in (await fleet.document()).values()] == [0, 0]


async def test_requests_that_can_wait_take_nothing_from_other_edges(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 8)
    assert not await two.take(LOW)
    assert list(await fleet.document()) == ["a"]
    assert not await two.take(STANDARD)
    assert (await fleet.document())["b"][::2] == [0, 1]


async def test_who_waits_while_nobody_has_more_than_its_part_writes_nothing(fleet: Fleet) -> None:
    """Lambda functions have one request each: hundreds that wait would keep the others from writing what matters."""
    for i in range(8):
        assert await fleet.edge(f"function-{i}").take(HIGH)
    written = fleet.table.writes
    waiting = fleet.edge("waits")
    assert not await waiting.take(HIGH)
    assert fleet.table.writes == written
    assert not waiting.is_held


async def test_dead_edge_that_lacked_slots_keeps_nobody_small_for_long(fleet: Fleet) -> None:
    busy, dead = fleet.edge("a"), fleet.edge("b")
    await take(busy, 8)
    await take(dead, 1)
    for _ in range(6):
        fleet.now += ROUND_SECONDS
        await busy.keep()
    busy.give_back()
    assert await busy.take(HIGH)


# -- priorities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "most"), [(LOW, 16), (STANDARD, 19), (HIGH, 20)])
async def test_each_class_leaves_room_for_those_above_it(priority: Priority, most: int) -> None:
    edge = Fleet(capacity=20).edge("a")
    assert await take(edge, 30, priority) == most
    assert await edge.take(HIGH) is (most < 20)


@pytest.mark.parametrize("priority", Priority)
async def test_each_class_may_use_a_backend_that_takes_one_at_a_time(priority: Priority) -> None:
    assert await take(Fleet(capacity=1).edge("a"), 2, priority) == 1


async def test_what_others_have_leased_counts_for_the_limit_of_a_class(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 4)
    assert await take(two, 8, LOW) == 2
    assert two.leased == 2  # what it may not use it does not keep from others


# -- without the table ------------------------------------------------------------------------------------------------


async def test_without_a_table_each_edge_has_all_slots() -> None:
    edge = Fleet().edge("a", store=None)
    assert await take(edge, 10) == 8
    assert not edge.is_held


async def test_table_that_is_gone_leaves_all_slots_to_each_edge_and_is_said_once(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    await take(one, 4)
    fleet.table.failing = True
    with caplog.at_level(logging.WARNING):
        assert await take(two, 10) == 8
        for _ in range(3):
            fleet.now += 2 * ROUND_SECONDS
            await two.keep()
    assert [record.message.split(":")[0] for record in caplog.records] == ["backend pool"]


async def test_table_that_does_not_answer_holds_a_request_up_once(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    fleet.table.slow = 1
    assert await take(edge, 10) == 8
    assert fleet.table.reads == 1


async def test_table_that_goes_on_hanging_holds_no_other_request_up(fleet: Fleet) -> None:
    edge = fleet.edge("a")
    fleet.table.slow = 2
    assert await edge.take(HIGH)
    for _ in range(2):  # the second round asks the table, and hears nothing
        fleet.now += ROUND_SECONDS
        await edge.keep()
    assert fleet.table.reads == 2
    fleet.now += 60
    assert await take(edge, 10) == 7
    assert fleet.table.reads == 2
    await edge.keep()
    assert await fleet.slots() == {"a": 8}


async def test_function_asks_after_its_reply_whether_the_table_is_back(fleet: Fleet) -> None:
    """It has no keeper in between, and no slot then."""
    function, other = fleet.edge("f"), fleet.edge("a")
    fleet.table.failing = True
    assert await function.take(HIGH)
    function.give_back()
    await function.settle()
    fleet.table.failing = False
    assert await take(other, 8) == 8
    reads = fleet.table.reads
    await function.settle()
    assert fleet.table.reads == reads  # not yet
    fleet.now += 60
    await function.settle()
    assert not await function.take(HIGH)


async def test_table_that_is_far_is_given_some_round_trips_more(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isochrone.routing.slots._PATIENCE_SECONDS", 0.02)
    fleet.table.seconds = 0.1
    far, near = fleet.edge("far", rtt_ms=300.0), fleet.edge("near")
    assert await far.take(HIGH)
    assert far.leased == 1
    assert not caplog.records
    assert await near.take(HIGH)
    assert near.leased == 0
    assert "it did not answer in time" in caplog.text


async def test_table_that_is_back_counts_for_all_again(fleet: Fleet) -> None:
    one, two = fleet.edge("a"), fleet.edge("b")
    fleet.table.failing = True
    assert await take(one, 6) == 6
    fleet.table.failing = False
    assert await take(two, 8) == 8
    fleet.now += 2 * ROUND_SECONDS
    await one.keep()
    assert await fleet.slots() == {"b": 8}
    one.give_back()
    assert not await one.take(HIGH)


@pytest.mark.parametrize("entry", [[1, 2, 3, 4], ["much", 2, 3], {"slots": 1}])
async def test_document_of_another_form_is_a_table_that_is_gone(fleet: Fleet, entry: Any) -> None:
    """While versions change, two of them run side by side."""
    await fleet.table.write("slots/pool", {"newer": entry}, version=0, expires=fleet.now + 60)
    edge = fleet.edge("a")
    assert await take(edge, 10) == 8
    assert await fleet.document() == {"newer": entry}


async def test_loss_against_many_writers_is_a_full_backend_not_a_missing_table(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_: Any, **__: Any) -> int:
        return 0

    edge = fleet.edge("a")
    with monkeypatch.context() as busy:
        busy.setattr(fleet.table, "write", lose)
        assert not await edge.take(HIGH)
    fleet.now += FULL_SECONDS
    assert await edge.take(HIGH)


async def test_a_process_that_is_alone_has_only_the_part_that_it_was_given() -> None:
    slots = Slots("limit/x", 10, holder="me", store=None, clock=float, wall=float, alone=3, what="places of")
    assert [slots.take_at_hand(Priority.HIGH) for _ in range(4)] == [True, True, True, False]
