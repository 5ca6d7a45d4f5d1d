from __future__ import annotations

import pytest

from isochrone.routing.silence import LISTENED_SECONDS, PAUSE_SECONDS, Silence

A_MOMENT = 0.001


@pytest.fixture
def silence() -> Silence:
    return Silence()


def test_callers_who_listen_one_after_the_other_add_up(silence: Silence) -> None:
    assert silence.add(10, 15) == 5
    assert silence.add(16, 20) == 9


def test_time_of_several_callers_at_once_counts_once(silence: Silence) -> None:
    assert silence.add(10, 15) == 5
    assert silence.add(10, 15) == 5
    assert silence.add(12, 17) == 7
    assert silence.add(8, 16) == 7


def test_caller_who_hardly_listened_says_nothing(silence: Silence) -> None:
    for at in range(100, 200):
        assert silence.add(at, at + LISTENED_SECONDS - A_MOMENT) == 0
    assert silence.add(300, 300 + LISTENED_SECONDS) == LISTENED_SECONDS


def test_anything_heard_by_a_younger_attempt_breaks_the_silence(silence: Silence) -> None:
    silence.add(10, 15)
    silence.break_by(12)
    assert silence.add(12 + A_MOMENT, 17) == pytest.approx(2)


def test_caller_who_came_before_the_last_that_heard_something_says_nothing(silence: Silence) -> None:
    silence.break_by(12)
    silence.break_by(11)
    assert silence.add(12, 30) == 0
    assert silence.add(12 + A_MOMENT, 30) > 0


def test_long_pause_ends_what_came_before_it(silence: Silence) -> None:
    silence.add(10, 15)
    assert silence.add(15 + PAUSE_SECONDS - A_MOMENT, 50) == pytest.approx(10 + A_MOMENT)
    silence = Silence()
    silence.add(10, 15)
    assert silence.add(15 + PAUSE_SECONDS, 50) == 5
