"""What every estimated round trip keeps to, anywhere on Earth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.routing.rtt import (
    EARTH_RADIUS_KM,
    LIGHT_MS_PER_KM,
    Estimator,
    Fit,
    great_circle_km,
    rtt_between_points,
)
from isochrone.routing.ways import Way

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)
points = st.tuples(latitudes, longitudes)
distances = st.floats(0, 20_015)
lines = st.builds(
    Fit, floor_ms=st.floats(0.1, 50), ms_per_km=st.floats(0.01, 0.1), sites=st.just(()), detours=st.just(())
)


@given(points, points)
def test_both_directions_take_equally_long(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert rtt_between_points(a, b) == rtt_between_points(b, a)
    assert great_circle_km(a, b) == great_circle_km(b, a)


@given(points, points)
def test_a_round_trip_is_positive_no_faster_than_light_and_on_this_planet(
    a: tuple[float, float], b: tuple[float, float]
) -> None:
    ms = rtt_between_points(a, b)
    assert great_circle_km(a, b) * LIGHT_MS_PER_KM <= ms < 1000
    assert ms > 1


ways = st.lists(st.builds(Way, points, st.lists(points, min_size=1, max_size=3).map(tuple)), max_size=4)


@given(lines, ways, points, points)
def test_whatever_the_gateways_both_directions_agree_and_are_no_faster_than_light(
    fit: Fit, ways: list[Way], a: tuple[float, float], b: tuple[float, float]
) -> None:
    estimator = Estimator(fit, ways)
    assert estimator.ms(a, b) == estimator.ms(b, a) >= great_circle_km(a, b) * LIGHT_MS_PER_KM
    assert estimator.ms(a, b) > 0


@given(lines, distances, distances)
def test_the_line_never_falls_with_distance(fit: Fit, near: float, far: float) -> None:
    near, far = sorted((near, far))
    assert Estimator(fit).line_ms(near) <= Estimator(fit).line_ms(far)


@given(lines, latitudes, longitudes, st.floats(0, 90), st.floats(0, 90))
def test_without_known_detours_farther_is_never_sooner(
    fit: Fit, latitude: float, longitude: float, near: float, far: float
) -> None:
    near, far = sorted((near, far))
    towards = 1 if longitude < 0 else -1
    here, first, second = ((latitude, longitude + towards * degrees) for degrees in (0, near, far))
    assert Estimator(fit).ms(here, first) <= Estimator(fit).ms(here, second) + 1e-6


@given(points, points, points)
def test_no_way_over_a_third_point_is_shorter(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]
) -> None:
    assert great_circle_km(a, b) <= great_circle_km(a, c) + great_circle_km(c, b) + 1e-6


@given(points, points)
def test_nothing_on_earth_is_farther_than_half_way_round(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert 0 <= great_circle_km(a, b) <= 3.1416 * EARTH_RADIUS_KM


@given(points)
def test_a_point_is_no_distance_from_itself(a: tuple[float, float]) -> None:
    assert great_circle_km(a, a) == pytest.approx(0, abs=1e-6)
