"""What scripts/judge_regions.py counts, on a matrix small enough to be counted by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import judge_regions
from isochrone.routing.rtt import great_circle_km, rtt_between_points

ROWS = """client_id,lat,lon,region,rtt_avg_ms
1,53.35,-6.26,eu-west-1,5
1,53.35,-6.26,us-east-1,80
2,39.04,-77.49,eu-west-1,90
2,39.04,-77.49,us-east-1,100
"""
BOTH = ("eu-west-1", "us-east-1")


@pytest.fixture(params=["plain.csv", "packed.csv.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    path.write_bytes(gzip.compress(ROWS.encode()) if path.suffix == ".gz" else ROWS.encode())
    return path


def test_regret_is_what_the_chosen_region_takes_longer_than_the_best(file: Path) -> None:
    clients = judge_regions.read(file)
    found = judge_regions.regrets(clients, [BOTH], rtt_between_points)
    assert found == [0.0, 10.0]
    assert judge_regions.missed(found) == 50.0
    assert judge_regions.p99(found) == 10.0


def test_with_one_region_down_the_other_is_the_best(file: Path) -> None:
    clients = judge_regions.read(file)
    downs = judge_regions.without_one(BOTH)
    assert downs == [["us-east-1"], ["eu-west-1"]]
    assert judge_regions.regrets(clients, downs, great_circle_km) == [0.0] * 4


def test_report_sets_distance_beside_the_estimate(file: Path) -> None:
    lines = list(judge_regions.report(judge_regions.read(file), BOTH))
    assert lines[0] == "2 clients, 2 regions: eu-west-1, us-east-1"
    assert lines[3].split() == ["mean", "regret,", "ms", "5.00", "5.00"]


def test_unknown_region_is_named() -> None:
    client = judge_regions.Client((0.0, 0.0), {"mars-1": 1.0})
    with pytest.raises(SystemExit, match="region 'mars-1' is not known"):
        judge_regions.regrets([client], [["mars-1"]], great_circle_km)
