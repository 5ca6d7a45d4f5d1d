from __future__ import annotations

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


async def test_largest_allowed_answer_fits_with_the_longest_tenant_name(stores: Any) -> None:
    now = stores.clock.now
    value = b"\xff" * stores.answers.max_bytes
    await stores.answers.put(FINGERPRINT, value, tenant="t" * 128, expires=now + 60)
    assert await stores.answers.get(FINGERPRINT, now=now) == value


async def test_answer_above_the_limit_is_refused_before_it_is_sent(stores: Any) -> None:
    with pytest.raises(ValueError, match="more than the store takes"):
        await stores.answers.put(FINGERPRINT, b"x" * (stores.answers.max_bytes + 1), tenant="t", expires=2e9)
    assert await stores.answers.get(FINGERPRINT, now=stores.clock.now) is None
