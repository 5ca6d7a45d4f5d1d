from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isochrone.durable import outbox
from isochrone.ledger.book import Book
from isochrone.ledger.counters import Counters
from isochrone.ledger.entry import Entry
from isochrone.stores.memory import MemoryLedgerStore


def entry(number: int) -> Entry:
    return Entry(
        request_id=f"r{number}",
        tenant="t",
        model="m",
        backend="b",
        attempt=1,
        outcome="ok",
        input_tokens=1,
        output_tokens=2,
        cost=0.0,
        started_at=float(number),
        first_token_ms=None,
        total_ms=1.0,
    )


class SlowStore(MemoryLedgerStore):
    """A store that takes entries only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.calls = 0

    async def append(self, entries: list[dict[str, Any]]) -> None:
        self.calls += 1
        await self.go_on.wait()
        if self.error:
            raise self.error
        await super().append(entries)


async def kept(store: MemoryLedgerStore) -> list[str]:
    return [entry["request_id"] for entry in await store.all()]


async def test_flush_hands_everything_over_once() -> None:
    store = MemoryLedgerStore()
    book = Book(store)
    for number in range(3):
        book.write(entry(number))
    await book.flush()
    await book.flush()
    assert (await kept(store), len(book)) == (["r0", "r1", "r2"], 0)


async def test_entries_wait_while_the_store_is_gone_and_arrive_when_it_is_back() -> None:
    store = MemoryLedgerStore()
    book = Book(store)
    store.failing = True
    for number in range(3):
        book.write(entry(number))
        await book.flush()
    assert (len(book), book.lost) == (3, 0)
    store.failing = False
    await book.flush()
    assert (await kept(store), len(book)) == (["r0", "r1", "r2"], 0)


async def test_concurrent_flushes_neither_lose_nor_double() -> None:
    store = SlowStore()
    book = Book(store)
    flushes = []
    for number in range(5):
        book.write(entry(number))
        flushes.append(asyncio.create_task(book.flush()))
        await asyncio.sleep(0)
    store.go_on.set()
    await asyncio.gather(*flushes)
    await book.flush()
    assert (sorted(await kept(store)), len(book), book.lost) == ([f"r{number}" for number in range(5)], 0, 0)


async def test_requests_get_their_turn_while_many_entries_are_flushed() -> None:
    book = Book(MemoryLedgerStore())
    for number in range(10 * outbox.AT_ONCE):
        book.write(entry(number))
    flush = asyncio.create_task(book.flush())
    turns = 0
    while not flush.done():
        turns += 1
        await asyncio.sleep(0)
    assert (turns >= 10, len(book)) == (True, 0)


async def test_entry_written_during_a_flush_goes_with_the_next() -> None:
    store = SlowStore()
    book = Book(store)
    book.write(entry(1))
    flush = asyncio.create_task(book.flush())
    await asyncio.sleep(0)
    book.write(entry(2))
    store.go_on.set()
    await flush
    assert await kept(store) == ["r1"]
    await book.flush()
    assert await kept(store) == ["r1", "r2"]


async def test_flush_that_is_stopped_midway_loses_nothing() -> None:
    store = SlowStore()
    book = Book(store)
    book.write(entry(1))
    flush = asyncio.create_task(book.flush())
    await asyncio.sleep(0)
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flush
    assert len(book) == 1
    store.go_on.set()
    await book.flush()
    assert await kept(store) == ["r1"]


class PickyStore(MemoryLedgerStore):
    """A store that takes no batch with one of these requests in it; it is gone after so many calls, if that is said."""

    def __init__(self, *bad: str, calls: int = 1000) -> None:
        super().__init__()
        self.bad = bad
        self.calls = calls

    async def append(self, entries: list[dict[str, Any]]) -> None:
        self.calls -= 1
        self.failing = self.calls < 0
        if any(entry["request_id"] in self.bad for entry in entries):
            raise ValueError("input_tokens: too large")
        await super().append(entries)


async def test_entry_that_no_store_can_take_is_dropped_and_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = PickyStore("r1", "r9")
    book = Book(store)
    for number in range(20):
        book.write(entry(number))
    await book.flush()
    assert await kept(store) == [f"r{number}" for number in range(20) if number not in (1, 9)]
    assert (len(book), book.lost) == (0, 2)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "ledger entry of request r1, attempt 1, cannot be stored and is lost",
        "ledger entry of request r9, attempt 1, cannot be stored and is lost",
    ]


async def test_store_that_goes_while_a_bad_entry_is_looked_for_loses_no_good_one() -> None:
    store = PickyStore("r1", calls=3)
    book = Book(store)
    for number in range(4):
        book.write(entry(number))
    await book.flush()
    assert (len(book), book.lost) == (2, 1)
    store.calls, store.failing = 1000, False
    assert await kept(store) == ["r0"]
    await book.flush()
    assert await kept(store) == ["r0", "r2", "r3"]


async def test_full_buffer_takes_no_more_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 3)
    store = MemoryLedgerStore()
    book = Book(store)
    for number in range(5):
        book.write(entry(number))
    assert (len(book), book.lost) == (3, 2)
    await book.flush()
    assert await kept(store) == ["r0", "r1", "r2"]


async def test_buffer_stays_bounded_through_a_long_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    store = SlowStore()
    book = Book(store)
    store.failing = True
    for cycle in range(5):
        store.go_on.clear()
        book.write(entry(cycle * 100))
        flush = asyncio.create_task(book.flush())
        await asyncio.sleep(0)
        for number in range(8):
            book.write(entry(cycle * 100 + number + 1))
        store.go_on.set()
        await flush
        assert len(book) <= 10 + outbox.AT_ONCE
    assert (len(book) + book.lost, book.lost > 0) == (5 * 9, True)


async def test_recent_includes_what_was_just_written() -> None:
    book = Book(MemoryLedgerStore())
    book.write(entry(1))
    book.write(entry(2))
    assert [known["request_id"] for known in await book.recent("t", limit=1)] == ["r2"]
    assert await book.recent("somebody-else", limit=10) == []


def test_counters_speak_the_exposition_format() -> None:
    counters = Counters()
    for name in ("status_200", "status_200", "cache_hit", "streams_broken"):
        counters.add(name)
    assert counters.as_dict() == {"cache_hit": 1, "status_200": 2, "streams_broken": 1}
    assert counters.exposition() == (
        'isochrone_cache_total{result="hit"} 1\n'
        'isochrone_status_total{code="200"} 2\n'
        "isochrone_streams_broken_total 1\n"
    )
