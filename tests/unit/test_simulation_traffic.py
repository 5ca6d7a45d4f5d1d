"""Traffic is as it was recorded, or as bursty as it was asked for."""

from __future__ import annotations

from itertools import islice, pairwise
from statistics import fmean, pstdev

import pytest

from isochrone.simulation.traffic import CONTEXT_TOKENS, SOURCES, Arrival, Source, arrivals, natural_rate
from isochrone.simulation.world import dice


def _drawn(source: Source, count: int = 20_000, *, rate: float | None = None, cv: float = 3.0) -> list[Arrival]:
    return list(islice(arrivals(source, dice(1, "traffic"), rate=rate, cv=cv), count))


def _cv(drawn: list[Arrival]) -> float:
    gaps = [after.at - before.at for before, after in pairwise(drawn)]
    return pstdev(gaps) / fmean(gaps)


@pytest.mark.parametrize("source", SOURCES)
def test_requests_come_in_order_and_fit_the_model(source: Source) -> None:
    drawn = _drawn(source)
    assert all(before.at <= after.at for before, after in pairwise(drawn))
    assert all(1 <= one.input_tokens <= CONTEXT_TOKENS and one.output_tokens >= 1 for one in drawn)


@pytest.mark.parametrize("source", ["azure", "azure-conv", "azure-code", "mooncake"])
def test_a_trace_is_played_as_fast_as_asked_for(source: Source) -> None:
    assert len(as_recorded := _drawn(source)) / as_recorded[-1].at == pytest.approx(natural_rate(source), rel=0.1)
    assert len(faster := _drawn(source, rate=50.0)) / faster[-1].at == pytest.approx(50.0, rel=0.1)


def test_the_rates_of_servegen_can_be_scaled() -> None:
    """Over all its windows: twelve hours."""
    day = [one for one in _drawn("servegen", 60_000, rate=1.0) if one.at < 71 * 600]
    assert len(day) / (71 * 600) == pytest.approx(1.0, rel=0.15)


def test_a_lap_after_the_trace_begins_where_it_ended() -> None:
    lap = 5353  # rows
    drawn = _drawn("azure-code", 2 * lap)
    assert drawn[lap].input_tokens == drawn[0].input_tokens
    assert drawn[lap].at == drawn[lap - 1].at


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_arrivals_are_as_bursty_as_asked_for(cv: float) -> None:
    assert _cv(_drawn("rate", 50_000, rate=10.0, cv=cv)) == pytest.approx(cv, rel=0.1)


def test_the_code_trace_is_as_bursty_as_real_load_gets() -> None:
    assert _cv(_drawn("azure-code", 5000)) > 10


@pytest.mark.parametrize("source", ["servegen", "rate"])
def test_the_same_chance_gives_the_same_traffic(source: Source) -> None:
    assert _drawn(source, 1000) == _drawn(source, 1000)
