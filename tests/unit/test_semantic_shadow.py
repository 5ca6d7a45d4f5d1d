from __future__ import annotations

import random

import pytest

from isochrone.answers.semantic.shadow import CONFIDENCE, Watch, interval

HOUR = 3600.0


def after(wrong: int, right: int, *, bound: float = 0.01) -> Watch:
    watch = Watch()
    for _ in range(right):
        watch.saw(True, bound=bound, now=0.0)
    for _ in range(wrong):
        watch.saw(False, bound=bound, now=0.0)
    return watch


def test_nothing_seen_says_nothing() -> None:
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "seen", "low", "high"),
    [
        # Clopper-Pearson of R's binom.test at 95 %, two-sided.
        (0, 100, 0.0, 0.03622),
        (1, 100, 0.00025, 0.05446),
        (5, 100, 0.01643, 0.11283),
        (10, 10, 0.69150, 1.0),
    ],
)
def test_the_interval_is_that_of_clopper_and_pearson(wrong: int, seen: int, low: float, high: float) -> None:
    assert interval(wrong, seen, confidence=0.975) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_holds_the_true_rate_as_often_as_it_says() -> None:
    chance = random.Random(4).random
    held = 0
    for _ in range(400):
        low, high = interval(sum(chance() < 0.05 for _ in range(200)), 200)
        held += low <= 0.05 <= high
    assert held >= 400 * (2 * CONFIDENCE - 1) - 6


def test_two_wrong_answers_may_be_chance_and_switch_nothing_off() -> None:
    assert not after(wrong=2, right=0).is_off(0.0)


def test_wrong_answers_beyond_the_bound_switch_off_and_begin_a_clean_slate() -> None:
    watch = after(wrong=3, right=5)
    assert watch.is_off(HOUR - 1)
    assert not watch.is_off(HOUR)
    assert (watch.same, watch.different) == (0.0, 0.0)


def test_as_many_wrong_ones_among_many_more_switch_nothing_off() -> None:
    assert not after(wrong=2, right=100).is_off(0.0)


def test_each_further_time_is_twice_as_long_and_at_most_a_day() -> None:
    watch = Watch()
    lengths = []
    for _ in range(7):
        for _ in range(3):
            watch.saw(False, bound=0.01, now=1000.0)
        lengths.append((watch.off_until - 1000.0) / HOUR)
    assert lengths == [1, 2, 4, 8, 16, 24, 24]


def test_a_tenant_whose_answers_keep_the_bound_is_hardly_ever_switched_off() -> None:
    chance = random.Random(5).random
    off = 0
    for _ in range(100):
        watch = Watch()
        for _ in range(1000):
            watch.saw(chance() >= 0.005, bound=0.01, now=0.0)
        off += watch.times_off > 0
    assert off <= 5


def test_a_tenant_with_five_times_the_bound_is_switched_off_within_some_hundred_comparisons() -> None:
    chance = random.Random(6).random
    for _ in range(50):
        watch = Watch()
        for _ in range(600):
            watch.saw(chance() >= 0.05, bound=0.01, now=0.0)
        assert watch.times_off


def test_what_was_seen_long_ago_counts_half() -> None:
    watch = after(wrong=0, right=1500)
    assert watch.same <= 1000
