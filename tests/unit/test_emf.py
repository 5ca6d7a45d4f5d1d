"""The metric line that CloudWatch reads out of the function's log."""

import json

from isochrone.ledger.emf import Pulse, emf_line

HERE = {"Region": "eu-west-1"}


def test_line_names_namespace_dimensions_and_values() -> None:
    entry = json.loads(emf_line("Isochrone/staging", {"HealthyPools": 2}, HERE, now=1_800_000_000.5))
    described = entry["_aws"]["CloudWatchMetrics"][0]
    assert entry["_aws"]["Timestamp"] == 1_800_000_000_500
    assert described["Namespace"] == "Isochrone/staging"
    assert described["Dimensions"] == [["Region"]]
    assert described["Metrics"] == [{"Name": "HealthyPools", "Unit": "Count"}]
    assert entry["Region"] == "eu-west-1"
    assert entry["HealthyPools"] == 2


def test_pulse_says_a_metric_once_an_interval_however_often_it_beats() -> None:
    said: list[str] = []
    pulse = Pulse("isochrone", said.append, interval=60)
    for second in (0.0, 1.0, 59.9, 60.0, 61.0):
        pulse.beat({"HealthyPools": 1}, HERE, now=second)
    assert [json.loads(line)["_aws"]["Timestamp"] for line in said] == [0, 60_000]


def test_pulse_is_silent_about_what_is_not_known_and_speaks_as_soon_as_it_is() -> None:
    said: list[str] = []
    pulse = Pulse("isochrone", said.append, interval=60)
    pulse.beat({"HealthyPools": None}, HERE, now=0)
    pulse.beat({"HealthyPools": 0}, HERE, now=1)
    assert [json.loads(line)["HealthyPools"] for line in said] == [0]


def test_pulse_tells_whether_it_would_speak() -> None:
    pulse = Pulse("isochrone", lambda line: None, interval=60)
    assert pulse.is_due(0)
    pulse.beat({"Misses": 1}, HERE, now=0)
    assert not pulse.is_due(59.9)
    assert pulse.is_due(60)
