"""What will be asked for: popular, periodic and rising demand, from hourly counts."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.warming.forecast import EVEN, HORIZON, HOUR, Day, Forecast, forecast

DAY = 86_400
MIDNIGHT = 1_795_392_000.0  # 2026-11-23, a Monday
THIS = int(MIDNIGHT // HOUR)


def days_ago(hours: Iterable[int], days: Iterable[int], asks: float = 1.0) -> dict[int, float]:
    return {THIS - 24 * day + hour: asks for day in days for hour in hours}


def test_the_same_hour_of_each_day_is_periodic() -> None:
    found = forecast(days_ago([9], range(1, 8)), MIDNIGHT)
    assert (found.kind, found.why) == ("periodic", "asked for at the same hour (09 h UTC) of each day")
    assert found.chance(MIDNIGHT + 9 * HOUR, MIDNIGHT + 10 * HOUR) == pytest.approx(7 / 8)
    assert found.chance(MIDNIGHT + 10 * HOUR, MIDNIGHT + DAY) == 0.0


def test_a_day_that_was_left_out_lowers_the_chance() -> None:
    found = forecast(days_ago([9], (1, 2, 4, 5, 7)), MIDNIGHT)
    assert found.chance(MIDNIGHT, MIDNIGHT + DAY) == pytest.approx(5 / 8)


def test_the_same_hour_of_each_week_is_periodic_and_says_nothing_of_other_days() -> None:
    found = forecast(days_ago([9], (7, 14, 21, 28)), MIDNIGHT)
    assert (found.kind, found.why) == ("periodic", "asked for at the same hour (09 h UTC) of each week")
    assert found.chance(MIDNIGHT + 9 * HOUR, MIDNIGHT + 10 * HOUR) == pytest.approx(4 / 5)
    assert found.chance(MIDNIGHT + DAY, MIDNIGHT + 6 * DAY) == 0.0


def test_twice_is_no_habit() -> None:
    assert forecast(days_ago([9], (1, 2)), MIDNIGHT).kind == "popular"


def test_what_is_asked_for_at_any_hour_is_popular_and_not_periodic() -> None:
    found = forecast(days_ago(range(24), range(1, 8)), MIDNIGHT)
    assert found.kind == "popular"
    assert found.chance(MIDNIGHT, MIDNIGHT + HOUR) == pytest.approx(0.52, abs=0.01), (
        "somewhat less than once an hour, to be sure"
    )


def test_a_day_ago_counts_half_of_now() -> None:
    def rate(age: int) -> float:
        found = forecast({THIS - 72: 1.0, THIS - age: 1000.0, THIS: 1.0}, MIDNIGHT)
        assert found.kind == "popular"
        return -log(1 - found.chance(MIDNIGHT, MIDNIGHT + HOUR))

    assert rate(48) == pytest.approx(rate(24) / 2, rel=0.01)


def test_many_asks_in_the_last_hours_are_rising_demand_that_fades() -> None:
    found = forecast({THIS: 6.0, THIS - 1: 3.0, THIS - 20: 1.0}, MIDNIGHT)
    assert found.kind == "rising"
    soon = found.chance(MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)
    assert 0.9 < soon <= 1
    assert found.chance(MIDNIGHT + DAY, MIDNIGHT + DAY + HOUR) < soon / 3


def test_what_was_asked_for_as_often_before_does_not_rise() -> None:
    assert forecast({THIS - hour: 3.0 for hour in range(27)}, MIDNIGHT).kind == "popular"


def test_two_asks_in_a_minute_are_no_rate() -> None:
    found = forecast({THIS: 2.0}, MIDNIGHT + 60)
    assert found.kind == "popular"
    assert found.chance(MIDNIGHT, MIDNIGHT + HOUR) < 0.1


def test_what_was_asked_for_once_may_never_be_asked_for_again() -> None:
    assert forecast({THIS: 1.0}, MIDNIGHT).chance(MIDNIGHT, MIDNIGHT + 7 * DAY) == 0.0


def test_what_was_asked_for_often_and_then_no_more_is_forgotten() -> None:
    burst = {THIS - 40: 20.0, THIS - 39: 30.0, THIS - 38: 10.0}
    assert forecast(burst, MIDNIGHT).chance(MIDNIGHT, MIDNIGHT + DAY) < 0.01


def test_a_silence_by_night_is_no_loss_of_interest() -> None:
    by_day = Day.of([0.0] * 8 + [10.0] * 12 + [0.0] * 4)
    asks = {THIS - 24 * day + 8 + number: 1.0 for day in range(1, 6) for number in (day % 4, 3 + day % 5, 8)}
    morning = MIDNIGHT + 8 * HOUR
    awake, even = (forecast(asks, morning, day).chance(morning, morning + 12 * HOUR) for day in (by_day, EVEN))
    assert awake > 0.8 > even


def test_by_night_less_is_expected_of_anything() -> None:
    by_day = Day.of([1.0] * 8 + [10.0] * 12 + [1.0] * 4)
    found = forecast({THIS - hour: 1.0 for hour in range(0, 115, 5)}, MIDNIGHT, by_day)
    night, noon = (found.chance(MIDNIGHT + hour * HOUR, MIDNIGHT + (hour + 1) * HOUR) for hour in (2, 12))
    assert 0 < night < noon / 3


def test_a_morning_is_no_rising_demand() -> None:
    by_day = Day.of([0.1] * 8 + [10.0] * 12 + [0.1] * 4)
    asks = {THIS - 24 + hour: 10.0 for hour in range(8, 20)} | {THIS + hour: 10.0 for hour in (8, 9, 10)}
    ten = MIDNIGHT + 10.5 * HOUR
    assert forecast(asks, ten, EVEN).kind == "rising"
    assert forecast(asks, ten, by_day).kind == "popular"


def test_nothing_is_foreseen_beyond_the_horizon_or_in_the_past() -> None:
    found = forecast({THIS: 100.0}, MIDNIGHT)
    end = MIDNIGHT + HORIZON * HOUR
    assert found.chance(end, end + DAY) == 0.0
    assert found.chance(MIDNIGHT - DAY, MIDNIGHT) == 0.0
    assert found.chance(MIDNIGHT, MIDNIGHT) == 0.0


def test_a_part_of_an_hour_has_a_part_of_its_chance() -> None:
    found = Forecast("popular", THIS, (0.75,) * HORIZON, "")
    assert found.chance(MIDNIGHT, MIDNIGHT + HOUR / 2) == pytest.approx(0.5)
    assert found.chance(MIDNIGHT + 1800, MIDNIGHT + 5400) == pytest.approx(0.75)


@given(
    st.dictionaries(st.integers(THIS - 28 * 24, THIS), st.floats(0.5, 1000), min_size=1, max_size=60),
    st.floats(0, 7 * DAY),
    st.floats(0, 7 * DAY),
    st.floats(0, 7 * DAY),
)
def test_chances_are_chances_and_grow_with_the_span(
    series: dict[int, float], begin: float, length: float, more: float
) -> None:
    found = forecast(series, MIDNIGHT)
    chance = found.chance(MIDNIGHT + begin, MIDNIGHT + begin + length)
    longer = found.chance(MIDNIGHT + begin, MIDNIGHT + begin + length + more)
    assert 0.0 <= chance <= longer + 1e-12
    assert longer <= 1.0
    assert len(found.hourly) == HORIZON
