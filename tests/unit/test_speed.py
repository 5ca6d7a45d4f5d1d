from __future__ import annotations

import pytest

from isochrone.routing.speed import BRISK_MS, SAMPLES, Speed, SpeedNote, percentile_95


@pytest.fixture
def speed() -> Speed:
    return Speed()


def test_nothing_is_known_at_first(speed: Speed) -> None:
    assert (speed.first_token_ms(0), speed.answer_ms, speed.export()) == (None,) * 3
    assert speed.first_tokens(0) == []


def test_slower_counts_at_once_when_it_comes_twice_and_faster_is_smoothed(speed: Speed) -> None:
    speed.on_first_token(100, now=10)
    speed.on_first_token(900, now=10)
    assert speed.first_token_ms(10) == 100
    speed.on_first_token(1000, now=10)
    assert speed.first_token_ms(10) == 900
    speed.on_first_token(100, now=10)
    assert speed.first_token_ms(10) == pytest.approx(660)


def test_first_of_all_counts_only_as_far_as_it_is_brisk(speed: Speed) -> None:
    speed.on_first_token(9000, now=10)
    assert speed.first_token_ms(10) == BRISK_MS
    speed.on_first_token(9000, now=10)
    assert speed.first_token_ms(10) == 9000


def test_slowness_fades_to_half_in_ten_seconds(speed: Speed) -> None:
    speed.on_first_token(1000, now=10)
    assert speed.first_token_ms(20) == pytest.approx(500)
    speed.on_first_token(600, now=20)
    assert speed.first_token_ms(20) == 600


def test_last_samples_are_kept_as_they_were_measured(speed: Speed) -> None:
    for at in range(100):
        speed.on_first_token(at * 10, now=at)
    assert len(speed.first_tokens(-1)) == SAMPLES
    assert speed.first_tokens(97) == [980, 990]


def test_time_of_an_answer_is_smoothed(speed: Speed) -> None:
    speed.on_answer(1000, now=1)
    assert speed.answer_ms == 1000
    speed.on_answer(2000, now=2)
    assert speed.answer_ms == 1300


def test_answers_come_soon_once_one_did_and_none_took_long_for_ten_minutes(speed: Speed) -> None:
    assert not speed.answers_come_soon(0)
    speed.on_answer(1999, now=1)
    assert speed.answers_come_soon(1)
    speed.on_answer(2000, now=2)
    speed.on_answer(10, now=3)
    assert not speed.answers_come_soon(601.9)
    assert speed.answers_come_soon(602)


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([7.0], 7.0), (range(1, 21), 19), (range(20, 0, -1), 19), (range(1, 22), 20)]
)
def test_percentile_is_the_least_value_that_95_of_100_do_not_exceed(values: list[float], expected: float) -> None:
    assert percentile_95(list(values)) == expected


def test_newer_word_of_another_edge_is_taken_over(speed: Speed) -> None:
    speed.absorb(SpeedNote(10, 500.0), 12)
    assert speed.export() == SpeedNote(10, 500.0)
    speed.absorb(SpeedNote(10, 700.0), 12)
    speed.absorb(SpeedNote(12.001, 800.0), 12)
    assert speed.export() == SpeedNote(10, 500.0)
    speed.absorb(SpeedNote(12, 700.0), 12)
    assert speed.first_token_ms(12) == 700.0


def test_word_from_a_clock_that_is_ahead_is_not_believed(speed: Speed) -> None:
    speed.absorb(SpeedNote(90, 500.0), 12)
    assert speed.export() is None


def test_slowness_is_what_lies_above_brisk_and_fades_to_nothing(speed: Speed) -> None:
    assert speed.slowness_ms(0.0) == 0.0
    for _ in range(2):  # one slow first token alone counts for no more than brisk
        speed.on_first_token(4 * BRISK_MS, now=0.0)
    assert speed.slowness_ms(0.0) == 3 * BRISK_MS
    assert speed.slowness_ms(10.0) == BRISK_MS
    assert speed.slowness_ms(30.0) == 0.0


def test_brisk_first_token_is_no_slowness(speed: Speed) -> None:
    speed.on_first_token(BRISK_MS, now=0.0)
    assert speed.slowness_ms(0.0) == 0.0
