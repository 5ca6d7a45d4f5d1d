from __future__ import annotations

from math import inf
from random import randbytes
from typing import Any

import pytest

FINGERPRINT = "ab" * 32


async def test_answer_comes_back_as_it_was_put(stores: Any) -> None:
    now = stores.clock.now
    value = bytes(range(256)) + "等时线 é".encode()
    await stores.answers.put(FINGERPRINT, value, tenant="team-a", expires=now + 60)
    assert await stores.answers.get(FINGERPRINT, now=now) == value


async def test_unknown_fingerprint_is_a_miss(stores: Any) -> None:
    assert await stores.answers.get("00" * 32, now=stores.clock.now) is None


async def test_empty_answer_is_not_a_miss(stores: Any) -> None:
    await stores.answers.put(FINGERPRINT, b"", tenant="t", expires=stores.clock.now + 60)
    assert await stores.answers.get(FINGERPRINT, now=stores.clock.now) == b""


@pytest.mark.parametrize(("age", "known"), [(59, True), (60, False), (61, False)])
async def test_answer_at_or_past_its_expiry_is_a_miss(stores: Any, age: int, known: bool) -> None:
    now = stores.clock.now
    await stores.answers.put(FINGERPRINT, b"text", tenant="t", expires=now + 60)
    assert (await stores.answers.get(FINGERPRINT, now=now + age) is not None) is known


async def test_later_put_replaces_value_and_expiry(stores: Any) -> None:
    now = stores.clock.now
    await stores.answers.put(FINGERPRINT, b"old", tenant="t", expires=now + 10)
    await stores.answers.put(FINGERPRINT, b"new", tenant="t", expires=now + 100)
    assert await stores.answers.get(FINGERPRINT, now=now + 50) == b"new"


async def test_deleted_answer_is_a_miss_and_deleting_again_is_no_error(stores: Any) -> None:
    now = stores.clock.now
    await stores.answers.put(FINGERPRINT, b"text", tenant="t", expires=now + 60)
    await stores.answers.delete(FINGERPRINT)
    await stores.answers.delete(FINGERPRINT)
    assert await stores.answers.get(FINGERPRINT, now=now) is None


async def test_answer_without_expiry_is_kept_for_ever(stores: Any) -> None:
    await stores.answers.put(FINGERPRINT, b"text", tenant="t", expires=inf)
    assert await stores.answers.get(FINGERPRINT, now=stores.clock.now + 1e9) == b"text"


async def test_consistent_read_sees_what_was_just_written(stores: Any) -> None:
    await stores.answers.put(FINGERPRINT, b"text", tenant="t", expires=inf)
    assert await stores.answers.get(FINGERPRINT, now=stores.clock.now, consistent=True) == b"text"


async def put(stores: Any, value: bytes, *, fence: int | None, fresh_for: float = 60, life: float = 120) -> bool:
    now = stores.clock.now
    kept: bool = await stores.answers.put(
        FINGERPRINT, value, tenant="t", fence=fence, fresh_until=now + fresh_for, expires=now + life
    )
    return kept


async def known(stores: Any) -> bytes | None:
    found: bytes | None = await stores.answers.get(FINGERPRINT, now=stores.clock.now, consistent=True)
    return found


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [(None, 1, True), (None, None, True), (1, None, True), (1, 1, True), (1, 2, True), (2, 1, False), (9, 2, False)],
)
async def test_answer_is_replaced_unless_somebody_with_a_higher_fence_was_faster(
    stores: Any, first: int | None, second: int | None, kept: bool
) -> None:
    assert await put(stores, b"first", fence=first)
    assert await put(stores, b"second", fence=second) is kept
    assert await known(stores) == (b"second" if kept else b"first")


@pytest.mark.parametrize(("seconds", "kept"), [(59, False), (60, True), (119, True), (120, True)])
async def test_answer_past_its_time_yields_to_any_fence(stores: Any, seconds: float, kept: bool) -> None:
    await put(stores, b"first", fence=7)
    stores.clock.now += seconds
    assert await put(stores, b"second", fence=1) is kept


@pytest.mark.parametrize(("life", "kept"), [(120, True), (inf, False)])
async def test_expired_answer_that_was_fresh_for_ever_yields_too(stores: Any, life: float, kept: bool) -> None:
    await put(stores, b"first", fence=7, fresh_for=inf, life=life)
    stores.clock.now += 120
    assert await put(stores, b"second", fence=1) is kept


@pytest.mark.parametrize(("seconds", "kept"), [(86_399, False), (86_400, True)])
async def test_fence_counts_for_a_day_because_leases_are_numbered_for_no_longer(
    stores: Any, seconds: float, kept: bool
) -> None:
    await put(stores, b"first", fence=7, fresh_for=inf, life=inf)
    stores.clock.now += seconds
    assert await put(stores, b"second", fence=1, fresh_for=inf, life=inf) is kept


async def test_deleted_answer_fences_nobody_off(stores: Any) -> None:
    await put(stores, b"first", fence=7)
    await stores.answers.delete(FINGERPRINT)
    assert await put(stores, b"second", fence=1)


@pytest.mark.parametrize("size", [409_600, 1_000_000])
async def test_answer_larger_than_an_item_comes_back_whole(stores: Any, size: int) -> None:
    value = randbytes(size)
    assert await put(stores, value, fence=1)
    assert await known(stores) == value
    assert await put(stores, b"small", fence=2)
    assert await known(stores) == b"small"


async def test_largest_answer_fits_with_the_longest_tenant_name(stores: Any) -> None:
    value = b"\xff" * stores.answers.max_bytes
    await stores.answers.put(FINGERPRINT, value, tenant="t" * 128, expires=inf)
    assert await known(stores) == value


async def test_answer_above_the_limit_is_refused_before_it_is_sent(stores: Any) -> None:
    with pytest.raises(ValueError, match="more than the store takes"):
        await stores.answers.put(FINGERPRINT, b"x" * (stores.answers.max_bytes + 1), tenant="t", expires=2e9)
    assert await stores.answers.get(FINGERPRINT, now=stores.clock.now) is None
