"""Hourly counts of what is asked again, bounded in memory and in writes."""

from __future__ import annotations

import pytest

from isochrone.ledger import demand
from isochrone.ledger.demand import Demand, asked_since
from isochrone.stores.memory_rollups import MemoryRollupStore

NOW = 1_795_392_000.0 + 9 * 3600  # 09:00 UTC
HOUR = int(NOW // 3600)
DAY = 86_400


@pytest.fixture
def store() -> MemoryRollupStore:
    return MemoryRollupStore()


async def test_asks_are_counted_by_answer_and_hour(store: MemoryRollupStore) -> None:
    asked = Demand(store, wanted=True)
    for at in (0, 10, 3600, DAY):
        asked.asked("a", "m1", NOW + at)
    asked.asked("b", "m1", NOW)
    await asked.flush()
    assert await asked_since(store, NOW, now=NOW + DAY) == {
        ("a", "m1"): {HOUR: 2.0, HOUR + 1: 1.0, HOUR + 24: 1.0},
        ("b", "m1"): {HOUR: 1.0},
    }


async def test_counts_of_several_processes_and_flushes_add_up(store: MemoryRollupStore) -> None:
    for _ in range(3):
        asked = Demand(store, wanted=True)
        asked.asked("a", "m", NOW)
        await asked.flush()
        asked.asked("a", "m", NOW)
        await asked.flush()
        await asked.flush()
    assert await asked_since(store, NOW, now=NOW) == {("a", "m"): {HOUR: 6.0}}


async def test_one_answer_is_one_write_a_flush_however_many_hours_it_was_asked_in(store: MemoryRollupStore) -> None:
    asked = Demand(store, wanted=True)
    for hour in range(10):
        asked.asked("a", "m", NOW + hour * 3600)
    await asked.flush()
    assert len(await store.sums("asked#2026-11-23", now=NOW)) == 1


async def test_nothing_is_counted_where_nothing_is_warmed(store: MemoryRollupStore) -> None:
    asked = Demand(store, wanted=False)
    asked.asked("a", "m", NOW)
    await asked.flush()
    assert await asked_since(store, NOW, now=NOW) == {}


async def test_the_most_asked_are_told_first_and_the_others_wait(
    store: MemoryRollupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "AT_ONCE", 2)
    asked = Demand(store, wanted=True)
    for mark, times in (("rare", 1), ("often", 5), ("some", 3)):
        for _ in range(times):
            asked.asked("a", mark, NOW)
    await asked.flush()
    assert {mark for _, mark in await asked_since(store, NOW, now=NOW)} == {"often", "some"}
    await asked.flush()
    assert (await asked_since(store, NOW, now=NOW))["a", "rare"] == {HOUR: 1.0}


async def test_no_more_than_a_bound_is_held_and_what_is_held_goes_on_counting(
    store: MemoryRollupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "MAX_COUNTED", 2)
    asked = Demand(store, wanted=True)
    for mark in ("one", "two", "three", "one"):
        asked.asked("a", mark, NOW)
    await asked.flush()
    assert await asked_since(store, NOW, now=NOW) == {("a", "one"): {HOUR: 2.0}, ("a", "two"): {HOUR: 1.0}}
    asked.asked("a", "three", NOW)
    await asked.flush()
    assert ("a", "three") in await asked_since(store, NOW, now=NOW), "there is room again"


async def test_asks_during_a_flush_are_told_by_the_next_one() -> None:
    class Busy(MemoryRollupStore):
        async def add(self, *args: object, **more: object) -> None:
            await super().add(*args, **more)  # type: ignore[arg-type]
            asked.asked("a", "m", NOW)

    store = Busy()
    asked = Demand(store, wanted=True)
    asked.asked("a", "m", NOW)
    await asked.flush()
    await asked.flush()
    assert await asked_since(store, NOW, now=NOW) == {("a", "m"): {HOUR: 2.0}}


async def test_what_a_store_that_is_gone_does_not_take_waits(store: MemoryRollupStore) -> None:
    asked = Demand(store, wanted=True)
    asked.asked("a", "m", NOW)
    store.failing = True
    await asked.flush()
    store.failing = False
    await asked.flush()
    assert await asked_since(store, NOW, now=NOW) == {("a", "m"): {HOUR: 1.0}}
