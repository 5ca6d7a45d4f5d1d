"""The metric line that CloudWatch reads out of the function's log."""

import json

from isochrone.ledger.emf import Pulse, emf_line


def test_line_names_namespace_dimensions_and_values() -> None:
    entry = json.loads(emf_line({"HealthyPools": 2}, {"Region": "eu-west-1"}, now=1_800_000_000.5))
    described = entry["_aws"]["CloudWatchMetrics"][0]
    assert entry["_aws"]["Timestamp"] == 1_800_000_000_500
    assert described["Namespace"] == "Isochrone"
    assert described["Dimensions"] == [["Region"]]
    assert described["Metrics"] == [{"Name": "HealthyPools", "Unit": "Count"}]
    assert entry["Region"] == "eu-west-1"
    assert entry["HealthyPools"] == 2


def test_pulse_says_a_metric_once_an_interval_however_often_it_beats() -> None:
    said: list[str] = []
    pulse = Pulse(said.append, interval=60)
    for second in (0.0, 1.0, 59.9, 60.0, 61.0):
        pulse.beat(lambda: {"HealthyPools": 1}, {"Region": "eu-west-1"}, now=second)
    assert [json.loads(line)["_aws"]["Timestamp"] for line in said] == [0, 60_000]


def test_pulse_asks_for_the_metric_only_when_it_says_it() -> None:
    asked: list[int] = []

    def count() -> dict[str, float]:
        asked.append(1)
        return {"HealthyPools": 1}

    pulse = Pulse(lambda line: None)
    pulse.beat(count, {}, now=0)
    pulse.beat(count, {}, now=1)
    assert len(asked) == 1
