"""What only the sums in memory do: make room."""

from __future__ import annotations

from isochrone.stores.memory_rollups import MemoryRollupStore


async def test_sums_that_end_first_make_room_for_new_ones() -> None:
    store = MemoryRollupStore(capacity=2)
    await store.add("p", "late", {"n": 1}, expires=300)
    await store.add("q", "soon", {"n": 1}, expires=100)
    await store.add("p", "late", {"n": 1}, expires=300)
    await store.add("p", "next", {"n": 1}, expires=200)
    assert await store.sums("p", now=0) == {"late": {"n": 2.0}, "next": {"n": 1.0}}
    assert await store.sums("q", now=0) == {}
