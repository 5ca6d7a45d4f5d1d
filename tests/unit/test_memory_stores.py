from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from isochrone.stores.memory import MemoryAnswerStore, MemoryFleetStore, MemoryLedgerStore
from isochrone.stores.protocols import StoreUnavailable

ENTRY = {"tenant": "t", "request_id": "r", "attempt": 1}


async def put(store: MemoryAnswerStore, name: str, size: int = 600) -> None:
    await store.put(name, b"x" * size, tenant="t", expires=100)


async def test_answers_beyond_the_capacity_push_out_the_least_recently_used() -> None:
    store = MemoryAnswerStore(capacity=3000)
    for name in ("a", "b", "c"):
        await put(store, name)
    await store.get("a", now=0)
    await put(store, "d")
    assert [await store.get(name, now=0) is not None for name in "abcd"] == [True, False, True, True]


async def test_many_empty_answers_are_bounded_too() -> None:
    store = MemoryAnswerStore(capacity=10_000)
    for i in range(1000):
        await put(store, str(i), size=0)
    assert len(store) == 25


async def test_replaced_and_expired_answers_give_their_room_back() -> None:
    store = MemoryAnswerStore(capacity=3000)
    for _ in range(10):
        await put(store, "same")
    await put(store, "expired")
    assert await store.get("expired", now=100) is None
    await put(store, "b")
    await put(store, "c")
    assert [await store.get(name, now=0) is not None for name in ("same", "b", "c")] == [True, True, True]


async def test_answer_larger_than_the_whole_capacity_is_not_kept_and_pushes_nothing_out() -> None:
    store = MemoryAnswerStore(capacity=1500)
    await put(store, "small")
    await put(store, "large", size=2000)
    assert [await store.get(name, now=0) is not None for name in ("small", "large")] == [True, False]


async def test_full_fleet_store_makes_room_by_what_expired_and_never_by_what_is_alive() -> None:
    now = [0.0]
    store = MemoryFleetStore(capacity=2, clock=lambda: now[0])
    await store.write("short", {}, version=0, expires=10)
    await store.write("long", {}, version=0, expires=100)
    with pytest.raises(StoreUnavailable, match="no room"):
        await store.write("third", {}, version=0, expires=100)
    assert await store.write("long", {}, version=1, expires=100) == 2
    now[0] = 11.0
    assert await store.write("third", {}, version=0, expires=100) == 1
    assert await store.read("long", now=11) == ({}, 2)


async def test_counters_that_are_alive_are_kept_and_those_past_their_time_make_room() -> None:
    now = [0.0]
    store = MemoryFleetStore(capacity=2, clock=lambda: now[0])
    await store.add("window/1", {"n": 1}, expires=10)
    await store.add("window/2", {"n": 1}, expires=20)
    with pytest.raises(StoreUnavailable, match="no room"):
        await store.add("window/3", {"n": 1}, expires=30)
    now[0] = 10.0
    await store.add("window/3", {"n": 1}, expires=30)
    assert await store.add("window/2", {"n": 1}, expires=20) == {"n": 2.0}


async def test_ledger_beyond_its_capacity_drops_the_oldest() -> None:
    store = MemoryLedgerStore(capacity=3)
    await store.append([ENTRY | {"started_at": at} for at in (5.0, 1.0, 4.0, 2.0, 3.0)])
    assert [entry["started_at"] for entry in await store.all()] == [3.0, 4.0, 5.0]
    assert [entry["started_at"] for entry in await store.recent("t", limit=9)] == [5.0, 4.0, 3.0]


Store = MemoryAnswerStore | MemoryFleetStore | MemoryLedgerStore
CALLS: dict[str, tuple[Store, Callable[..., Awaitable[object]]]] = {
    "answers.get": (MemoryAnswerStore(), lambda store: store.get("f", now=0)),
    "answers.put": (MemoryAnswerStore(), lambda store: store.put("f", b"", tenant="t", expires=1)),
    "answers.delete": (MemoryAnswerStore(), lambda store: store.delete("f")),
    "fleet.read": (MemoryFleetStore(), lambda store: store.read("n", now=0)),
    "fleet.write": (MemoryFleetStore(), lambda store: store.write("n", {}, version=0, expires=1)),
    "ledger.append": (MemoryLedgerStore(), lambda store: store.append([])),
    "ledger.recent": (MemoryLedgerStore(), lambda store: store.recent("t")),
    "ledger.all": (MemoryLedgerStore(), lambda store: store.all()),
}


@pytest.mark.parametrize(("store", "call"), CALLS.values(), ids=CALLS)
async def test_switched_off_store_is_unavailable_and_comes_back(
    store: Store, call: Callable[..., Awaitable[object]]
) -> None:
    store.failing = True
    with pytest.raises(StoreUnavailable):
        await call(store)
    store.failing = False
    store.fail_next = 2
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await call(store)
    await call(store)
