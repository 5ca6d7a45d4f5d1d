from __future__ import annotations

from collections.abc import Sequence

import pytest

from isochrone.routing.hybrid import (
    HOLD_SECONDS,
    MEASURED,
    MEASURED_ON_STANDBY,
    PRIMARY_SHARE,
    SILENCE_SECONDS,
    WINDOW_SECONDS,
    Hybrid,
)

LIMIT = 500.0
NOW = 1000.0
OFTEN, SELDOM = 0.99, 0.0


class Log:
    """First tokens of the primary as an edge measured them."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def add(self, at: float, ms: float, count: int = 1) -> None:
        self.seen += [(at, ms)] * count

    def __call__(self, since: float) -> Sequence[float]:
        return [ms for at, ms in self.seen if at > since]


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def hybrid() -> Hybrid:
    return Hybrid("pool", LIMIT)


def on_standby(hybrid: Hybrid, log: Log) -> Hybrid:
    log.add(NOW - 1, 2 * LIMIT, MEASURED)
    hybrid.judge(NOW, log)
    assert hybrid.is_on_standby
    return hybrid


def test_primary_goes_first_while_nothing_is_measured(hybrid: Hybrid, log: Log) -> None:
    hybrid.judge(NOW, log)
    assert hybrid.first(OFTEN) == "pool"


@pytest.mark.parametrize(("count", "first"), [(MEASURED - 1, "pool"), (MEASURED, "api")])
def test_standby_goes_first_when_enough_was_measured_and_is_slow(
    hybrid: Hybrid, log: Log, count: int, first: str
) -> None:
    log.add(NOW - 1, LIMIT + 1, count)
    hybrid.judge(NOW, log)
    assert hybrid.first(OFTEN) == first


@pytest.mark.parametrize(("ms", "first"), [(LIMIT, "pool"), (LIMIT + 0.1, "api")])
def test_limit_itself_is_not_above_the_limit(hybrid: Hybrid, log: Log, ms: float, first: str) -> None:
    log.add(NOW - 1, ms, MEASURED)
    hybrid.judge(NOW, log)
    assert hybrid.first(OFTEN) == first


def test_one_slow_first_token_in_twenty_is_no_slow_primary(hybrid: Hybrid, log: Log) -> None:
    log.add(NOW - 1, 10.0, 19)
    log.add(NOW - 1, 60_000.0)
    hybrid.judge(NOW, log)
    assert hybrid.first(OFTEN) == "pool"


@pytest.mark.parametrize(("age", "first"), [(WINDOW_SECONDS - 1, "api"), (WINDOW_SECONDS + 1, "pool")])
def test_what_is_older_than_the_window_does_not_count(hybrid: Hybrid, log: Log, age: float, first: str) -> None:
    log.add(NOW - age, 2 * LIMIT, MEASURED)
    hybrid.judge(NOW, log)
    assert hybrid.first(OFTEN) == first


def test_one_request_in_twenty_looks_whether_the_primary_is_back(hybrid: Hybrid, log: Log) -> None:
    on_standby(hybrid, log)
    assert PRIMARY_SHARE == 1 / 20
    assert hybrid.first(PRIMARY_SHARE - 0.001) == "pool"
    assert hybrid.first(PRIMARY_SHARE) == "api"


@pytest.mark.parametrize(("ms", "first"), [(0.8 * LIMIT - 0.1, "pool"), (0.8 * LIMIT, "api")])
def test_primary_is_back_when_it_is_well_below_the_limit(hybrid: Hybrid, log: Log, ms: float, first: str) -> None:
    on_standby(hybrid, log)
    log.add(NOW + 5, ms, MEASURED_ON_STANDBY)
    hybrid.judge(NOW + HOLD_SECONDS, log)
    assert hybrid.first(OFTEN) == first


def test_few_fast_first_tokens_do_not_bring_it_back(hybrid: Hybrid, log: Log) -> None:
    on_standby(hybrid, log)
    log.add(NOW + 5, 10.0, MEASURED_ON_STANDBY - 1)
    hybrid.judge(NOW + HOLD_SECONDS, log)
    assert hybrid.first(OFTEN) == "api"


@pytest.mark.parametrize(("after", "first"), [(SILENCE_SECONDS - 0.1, "api"), (SILENCE_SECONDS, "pool")])
def test_primary_that_nobody_measures_is_tried_again(hybrid: Hybrid, log: Log, after: float, first: str) -> None:
    on_standby(hybrid, log)
    hybrid.judge(NOW + after, log)
    assert hybrid.first(OFTEN) == first


def test_slow_samples_now_and_then_keep_the_standby(hybrid: Hybrid, log: Log) -> None:
    on_standby(hybrid, log)
    for second in range(1, 300, 20):
        log.add(NOW + second, 2 * LIMIT)
        hybrid.judge(NOW + second, log)
        assert hybrid.first(OFTEN) == "api"


def test_nothing_switches_twice_within_the_hold(hybrid: Hybrid, log: Log) -> None:
    on_standby(hybrid, log)
    log.add(NOW + 1, 10.0, MEASURED_ON_STANDBY)
    hybrid.judge(NOW + HOLD_SECONDS - 0.1, log)
    assert hybrid.is_on_standby
    hybrid.judge(NOW + HOLD_SECONDS, log)
    assert not hybrid.is_on_standby


def test_after_a_return_what_was_slow_before_it_is_forgotten(hybrid: Hybrid, log: Log) -> None:
    on_standby(hybrid, log)
    log.add(NOW + 5, 10.0, MEASURED_ON_STANDBY)
    hybrid.judge(NOW + HOLD_SECONDS, log)
    hybrid.judge(NOW + 2 * HOLD_SECONDS, log)
    assert hybrid.first(OFTEN) == "pool"


def test_without_a_limit_the_primary_always_goes_first(log: Log) -> None:
    plain = Hybrid("api")
    log.add(NOW - 1, 60_000.0, MEASURED)
    assert not plain.is_due(NOW)
    plain.judge(NOW, log)
    assert plain.first(OFTEN) == "api"


def test_an_api_can_be_the_primary_and_pools_stand_by(log: Log) -> None:
    hybrid = on_standby(Hybrid("api", LIMIT), log)
    assert (hybrid.first(OFTEN), hybrid.first(SELDOM)) == ("pool", "api")


def test_it_is_judged_once_a_second(hybrid: Hybrid, log: Log) -> None:
    assert hybrid.is_due(NOW)
    hybrid.judge(NOW, log)
    assert not hybrid.is_due(NOW + 0.9)
    assert hybrid.is_due(NOW + 1.0)
