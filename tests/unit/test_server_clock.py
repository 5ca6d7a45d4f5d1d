"""Time by the service's clock, told from the dates of its replies."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.stores.dynamodb.server_clock import ServerClock

NOW = 1_800_000_000.0


def test_clocks_that_agree_are_left_alone() -> None:
    clock = ServerClock()
    clock.heard(formatdate(NOW, usegmt=True), sent=NOW + 0.2, received=NOW + 0.3)
    assert clock.offset == 0.0


@pytest.mark.parametrize("skew", [-90.0, 90.0])
def test_a_clock_that_is_wrong_by_ninety_seconds_is_found_out_by_the_first_reply(skew: float) -> None:
    clock = ServerClock()
    clock.heard(formatdate(NOW, usegmt=True), sent=NOW + 0.2 - skew, received=NOW + 0.3 - skew)
    assert clock.offset == pytest.approx(skew, abs=1.0)


@given(
    skew=st.floats(-3600, 3600).filter(lambda skew: abs(skew) > 2),
    replies=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 0.4), st.floats(0, 0.4)), min_size=1, max_size=20),
)
def test_the_offset_is_never_wrong_by_more_than_a_second_and_half_a_round_trip(
    skew: float, replies: list[tuple[float, float, float]]
) -> None:
    clock, now = ServerClock(), NOW
    for pause, there, back in replies:
        now += pause
        date = formatdate(int(now + there + skew), usegmt=True)
        clock.heard(date, sent=now, received=now + there + back)
        now += there + back
        assert abs(clock.offset - skew) <= 0.9 + 1e-6


def test_a_clock_that_is_set_is_believed_anew() -> None:
    clock = ServerClock()
    clock.heard(formatdate(NOW, usegmt=True), sent=NOW - 90, received=NOW - 90)
    clock.heard(formatdate(NOW + 60, usegmt=True), sent=NOW + 60.5, received=NOW + 60.6)
    assert clock.offset == 0.0


@pytest.mark.parametrize("date", [None, "", "soon", "Mon, 99 Nov 2026 11:18:14 GMT", "\x00"])
def test_a_reply_without_a_date_says_nothing(date: str | None) -> None:
    clock = ServerClock()
    clock.heard(date, sent=NOW, received=NOW)
    assert clock.offset == 0.0


def test_a_reply_that_came_before_it_was_asked_for_says_nothing() -> None:
    clock = ServerClock()
    clock.heard(formatdate(NOW + 500, usegmt=True), sent=NOW, received=NOW - 100)
    assert clock.offset == 0.0
