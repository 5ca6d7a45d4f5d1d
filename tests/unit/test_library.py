from __future__ import annotations

from typing import Any

import pytest

from isochrone.answers.completion import Answer, to_bytes
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.stores.memory import MemoryAnswerStore

NOW = 1000.0
BODY: dict[str, Any] = {"choices": [{"message": {"content": "Not far."}, "finish_reason": "stop"}]}


def answer(body: dict[str, Any] | None = None, created: float = NOW) -> Answer:
    return Answer(operation="chat", backend="pool-eu", created=created, body=body or BODY)


class Shelves:
    """Two tiers that a test can look into; `other()` is another process with the same store."""

    def __init__(self) -> None:
        self.store = MemoryAnswerStore()
        self.memory = MemoryTier(max_bytes=100_000, ttl=300)
        self.library = Library(self.store, self.memory, ttl=3600)

    def other(self) -> Library:
        return Library(self.store, MemoryTier(max_bytes=100_000, ttl=300), ttl=3600)


@pytest.fixture
def shelves() -> Shelves:
    return Shelves()


async def test_kept_answer_is_found_here_and_in_another_process(shelves: Shelves) -> None:
    assert await shelves.library.keep("f", answer(), tenant="t")
    assert await shelves.library.look_up("f", now=NOW) == answer()
    assert await shelves.other().look_up("f", now=NOW) == answer()
    assert await shelves.library.look_up("g", now=NOW) is None


async def test_answer_from_the_store_stays_in_memory(shelves: Shelves) -> None:
    await shelves.library.keep("f", answer(), tenant="t")
    other = shelves.other()
    await other.look_up("f", now=NOW)
    shelves.store.failing = True
    assert await other.look_up("f", now=NOW) == answer()


@pytest.mark.parametrize("seconds", [3600, 3601, 1e6])
async def test_answer_past_its_expiry_is_a_miss_in_both_tiers(shelves: Shelves, seconds: float) -> None:
    await shelves.library.keep("f", answer(), tenant="t")
    assert await shelves.library.look_up("f", now=NOW + seconds) is None
    assert await shelves.other().look_up("f", now=NOW + seconds) is None


async def test_late_look_up_does_not_lengthen_an_answers_life(shelves: Shelves) -> None:
    await shelves.library.keep("f", answer(), tenant="t")
    other = shelves.other()
    assert await other.look_up("f", now=NOW + 3599) == answer()
    assert await other.look_up("f", now=NOW + 3600) is None


async def test_store_that_is_gone_is_a_miss_and_never_an_error(shelves: Shelves) -> None:
    shelves.store.failing = True
    assert await shelves.library.look_up("f", now=NOW) is None
    assert not await shelves.library.keep("f", answer(), tenant="t")
    assert await shelves.library.look_up("f", now=NOW) == answer()


async def test_incomplete_answer_is_kept_nowhere(shelves: Shelves) -> None:
    cut: dict[str, Any] = {"choices": [{"message": {"content": "Not"}, "finish_reason": "length"}]}
    assert not await shelves.library.keep("f", answer(cut), tenant="t")
    assert (len(shelves.memory.values), len(shelves.store)) == (0, 0)


async def test_answer_too_large_for_the_store_is_kept_in_memory_only() -> None:
    store, memory = MemoryAnswerStore(), MemoryTier(max_bytes=10_000_000, ttl=300)
    large: dict[str, Any] = {"choices": [{"message": {"content": "字" * 140_000}, "finish_reason": "stop"}]}
    library = Library(store, memory, ttl=3600)
    assert not await library.keep("f", answer(large), tenant="t")
    assert (len(memory.values), len(store)) == (1, 0)
    assert await library.look_up("f", now=NOW) == answer(large)


@pytest.mark.parametrize("value", [b"", b"\xc1", b"another version"])
async def test_value_that_cannot_be_read_is_a_miss(shelves: Shelves, value: bytes) -> None:
    await shelves.store.put("f", value, tenant="t", expires=NOW + 10)
    assert await shelves.library.look_up("f", now=NOW) is None
    assert await shelves.library.keep("f", answer(), tenant="t")
    assert await shelves.library.look_up("f", now=NOW) == answer()


def test_memory_tier_drops_the_least_recently_used_when_full() -> None:
    tier = MemoryTier(max_bytes=3 * 500, ttl=10)
    for name in "abc":
        tier.put(name, b"x" * 100, expires=NOW + 99, now=NOW)
    tier.get("a", now=NOW)
    tier.put("d", b"x" * 100, expires=NOW + 99, now=NOW)
    assert [name for name in "abcd" if tier.get(name, now=NOW)] == ["a", "c", "d"]
    assert tier.values.bytes_held == 3 * 500


def test_memory_tier_forgets_at_the_earlier_of_its_own_time_and_the_answers() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    tier.put("own", b"1", expires=NOW + 99, now=NOW)
    tier.put("earlier", b"2", expires=NOW + 5, now=NOW)
    assert (tier.get("own", now=NOW + 9.9), tier.get("earlier", now=NOW + 4.9)) == (b"1", b"2")
    assert (tier.get("own", now=NOW + 10), tier.get("earlier", now=NOW + 5)) == (None, None)
    assert (len(tier.values), tier.values.bytes_held) == (0, 0)


def test_memory_tier_that_cannot_take_a_newer_answer_does_not_keep_the_older() -> None:
    tier = MemoryTier(max_bytes=1000, ttl=10)
    tier.put("a", b"old", expires=NOW + 99, now=NOW)
    tier.put("a", b"x" * 5000, expires=NOW + 99, now=NOW)
    assert tier.get("a", now=NOW) is None
    assert tier.values.bytes_held == 0


def test_packed_answer_is_small() -> None:
    assert len(to_bytes(answer())) < 120
