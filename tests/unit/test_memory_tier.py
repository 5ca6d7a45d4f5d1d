from __future__ import annotations

from isochrone.answers.memory_tier import MemoryTier

NOW = 1000.0
FAR = NOW + 9999


def put(tier: MemoryTier, name: str, value: bytes, *, fresh_until: float = FAR, expires: float = FAR) -> None:
    tier.put(name, value, fresh_until=fresh_until, expires=expires, now=NOW)


def value_of(tier: MemoryTier, name: str, now: float = NOW) -> bytes | None:
    held = tier.get(name, now=now)
    return held.value if held else None


def asks_again_at(tier: MemoryTier, name: str) -> float:
    held = tier.get(name, now=NOW)
    assert held
    return held.ask_again_at


def test_least_recently_used_goes_first_when_it_is_full() -> None:
    tier = MemoryTier(max_bytes=3 * 500, ttl=10)
    for name in "abc":
        put(tier, name, b"x" * 100)
    tier.get("a", now=NOW)
    put(tier, "d", b"x" * 100)
    assert [name for name in "abcd" if tier.get(name, now=NOW)] == ["a", "c", "d"]
    assert tier.values.bytes_held == 3 * 500


def test_value_is_forgotten_when_its_time_is_over() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    put(tier, "a", b"1", expires=NOW + 50)
    assert value_of(tier, "a", NOW + 49.9) == b"1"
    assert value_of(tier, "a", NOW + 50) is None
    assert (len(tier.values), tier.values.bytes_held) == (0, 0)


def test_store_is_asked_again_at_the_earlier_of_the_tiers_time_and_the_answers() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    put(tier, "own", b"1")
    put(tier, "earlier", b"2", fresh_until=NOW + 5)
    assert (asks_again_at(tier, "own"), asks_again_at(tier, "earlier")) == (NOW + 10, NOW + 5)


def test_store_is_asked_every_second_for_a_newer_one_when_the_answers_time_is_over() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    put(tier, "stale", b"1", fresh_until=NOW)
    assert asks_again_at(tier, "stale") == NOW + 1


def test_postponed_value_is_believed_for_a_while_more() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    put(tier, "a", b"1")
    held = tier.get("a", now=NOW)
    assert held
    tier.postpone("a", held, seconds=5, now=NOW + 10)
    assert asks_again_at(tier, "a") == NOW + 15


def test_tier_that_cannot_take_a_newer_answer_does_not_keep_the_older() -> None:
    tier = MemoryTier(max_bytes=1000, ttl=10)
    put(tier, "a", b"old")
    put(tier, "a", b"x" * 5000)
    assert tier.get("a", now=NOW) is None
    assert tier.values.bytes_held == 0


def test_discarding_one_leaves_another_that_has_taken_its_place() -> None:
    tier = MemoryTier(max_bytes=10_000, ttl=10)
    first = tier.put("a", b"1", fresh_until=FAR, expires=FAR, now=NOW)
    put(tier, "a", b"2")
    tier.discard("a", only=first)
    assert value_of(tier, "a") == b"2"
    tier.discard("a")
    assert value_of(tier, "a") is None
