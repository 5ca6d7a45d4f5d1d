from __future__ import annotations

import pytest

from isochrone.api.controls import CacheMode, Recovery, controls_of, request_id
from isochrone.api.errors import BadRequest


def test_nothing_said_is_the_usual_way() -> None:
    assert controls_of({}) == (None, CacheMode.USE, None, Recovery.SPLICE, 5, None)


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("no-store", CacheMode.NO_STORE),
        ("NO-CACHE", CacheMode.NO_CACHE),
        (" only ", CacheMode.ONLY),
        ("", CacheMode.USE),
    ],
)
def test_cache_header_is_read(value: str, mode: CacheMode) -> None:
    assert controls_of({"x-isochrone-cache": value}).cache is mode


@pytest.mark.parametrize(
    ("value", "recovery"), [("splice", Recovery.SPLICE), ("Restart", Recovery.RESTART), ("error", Recovery.ERROR)]
)
def test_recovery_header_is_read(value: str, recovery: Recovery) -> None:
    assert controls_of({"x-isochrone-recovery": value}).recovery is recovery


@pytest.mark.parametrize(("value", "seconds"), [("2", 2.0), ("0.5", 0.5), (" 3 ", 3.0), ("1e2", 100.0)])
def test_timeout_is_seconds(value: str, seconds: float) -> None:
    assert controls_of({"x-isochrone-timeout": value}).timeout == seconds


@pytest.mark.parametrize(("value", "priority"), [("1", 1), (" 7 ", 7), ("10", 10)])
def test_priority_is_one_to_ten(value: str, priority: int) -> None:
    assert controls_of({"x-isochrone-priority": value}).priority == priority


def test_regions_are_names_between_commas() -> None:
    asked = controls_of({"x-isochrone-regions": "eu-west-1, eu-central-1"}).regions
    assert asked == frozenset({"eu-west-1", "eu-central-1"})


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-isochrone-cache", "maybe"),
        ("x-isochrone-cache", "no-store, no-cache"),
        ("x-isochrone-recovery", "hope"),
        ("x-isochrone-timeout", ""),
        ("x-isochrone-timeout", "soon"),
        ("x-isochrone-timeout", "0"),
        ("x-isochrone-timeout", "-1"),
        ("x-isochrone-timeout", "nan"),
        ("x-isochrone-timeout", "inf"),
        ("x-isochrone-timeout", "1e999"),
        ("x-isochrone-priority", ""),
        ("x-isochrone-priority", "0"),
        ("x-isochrone-priority", "11"),
        ("x-isochrone-priority", "5.5"),
        ("x-isochrone-priority", "high"),
        ("x-isochrone-priority", "1" * 5000),
        ("x-isochrone-regions", ""),
        ("x-isochrone-regions", "eu-west-1,"),
        ("x-isochrone-regions", "eu west"),
    ],
)
def test_senseless_wish_is_refused_by_name(header: str, value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        controls_of({header: value})
    assert caught.value.param == header


@pytest.mark.parametrize("value", ["abc", "A.b-c_9", "x" * 128])
def test_well_formed_request_id_is_the_callers(value: str) -> None:
    assert request_id(value) == value


@pytest.mark.parametrize("value", [None, "", "x" * 129, "a b", "a\r\nb", "é", "a/b", "a\n"])
def test_ill_formed_request_id_is_only_ignored(value: str | None) -> None:
    assert request_id(value) is None
