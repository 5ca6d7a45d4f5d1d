"""Round trips between regions and places, and the fit that estimates them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from isochrone.routing.rtt import (
    LIGHT_MS_PER_KM,
    Estimator,
    Fit,
    great_circle_km,
    region_location,
    rtt_between_points,
    rtt_between_regions,
)
from isochrone.routing.ways import Way, known_ways

ROOT = Path(__file__).parent.parent.parent
MEASURED = ROOT / "tests/data/rtt/aws_interregion_rtt_2020.csv.gz"

LONDON, PARIS, NEW_YORK, SYDNEY = (51.51, -0.13), (48.86, 2.35), (40.71, -74.01), (-33.87, 151.21)


@pytest.fixture(scope="module")
def fit_rtt() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_rtt", ROOT / "scripts/fit_rtt.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_rtt"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("a", "b", "km"), [(LONDON, PARIS, 344), (LONDON, NEW_YORK, 5570), (LONDON, SYDNEY, 16994)])
def test_great_circle_agrees_with_published_distances(
    a: tuple[float, float], b: tuple[float, float], km: float
) -> None:
    assert great_circle_km(a, b) == pytest.approx(km, rel=0.005)


def test_the_antipode_is_half_way_round() -> None:
    assert great_circle_km((0.0, 0.0), (0.0, 180.0)) == pytest.approx(20_015, abs=1)


def test_the_date_line_is_no_border() -> None:
    assert great_circle_km((0.0, 179.9), (0.0, -179.9)) == pytest.approx(22.2, abs=0.1)


def test_every_measured_pair_of_regions_is_answered_as_measured() -> None:
    with gzip.open(MEASURED, "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 361
    for row in rows:
        answer = rtt_between_regions(row["src"], row["dst"])
        assert answer is not None
        assert answer.source == "measured"
        assert answer.ms == pytest.approx(float(row["avg_ms"]), abs=0.061)


def test_a_pair_of_regions_that_nobody_measured_is_estimated() -> None:
    answer = rtt_between_regions("eu-central-2", "ap-east-2")
    assert answer is not None
    assert answer.source == "estimated"
    assert 120 < answer.ms < 300


def test_a_region_that_nobody_measured_is_nearest_to_itself() -> None:
    itself, neighbour = (rtt_between_regions("eu-central-2", name) for name in ("eu-central-2", "eu-central-1"))
    assert itself is not None
    assert neighbour is not None
    assert 0 < itself.ms < neighbour.ms < 20


@pytest.mark.parametrize("name", ["", "local", "us-east-9"])
def test_an_unknown_region_has_no_place_and_no_round_trip(name: str) -> None:
    assert region_location(name) is None
    assert rtt_between_regions(name, "us-east-1") is None
    assert rtt_between_regions("us-east-1", name) is None
    assert rtt_between_regions(name, name) is None


@pytest.mark.parametrize(
    ("region", "city"),
    [("eu-west-1", (53.35, -6.26)), ("ap-northeast-1", (35.68, 139.69)), ("sa-east-1", (-23.55, -46.63))],
)
def test_a_region_lies_in_its_city(region: str, city: tuple[float, float]) -> None:
    place = region_location(region)
    assert place is not None
    assert great_circle_km(place, city) < 30


def test_the_same_place_is_a_few_milliseconds_away_not_none() -> None:
    assert 0 < rtt_between_points(LONDON, LONDON) < 6


ISLANDS = Fit(floor_ms=2.0, ms_per_km=0.015, sites=((0.0, 0.0), (0.0, 10.0)), detours=((), (1.0,)))


def test_near_measured_sites_their_detour_counts() -> None:
    estimator = Estimator(ISLANDS)
    line_ms = estimator.line_ms(great_circle_km((0.0, 0.0), (0.0, 10.0)))
    assert estimator.ms((0.0, 0.0), (0.0, 10.0)) > 2 * line_ms


def test_far_from_every_measured_site_the_line_remains() -> None:
    a, b = (0.0, 170.0), (0.0, -170.0)
    estimator = Estimator(ISLANDS)
    assert estimator.ms(a, b) == pytest.approx(estimator.line_ms(great_circle_km(a, b)), rel=0.001)


def test_a_pair_that_nobody_measured_leaves_the_line_as_it_is() -> None:
    unmeasured = Estimator(Fit(floor_ms=2.0, ms_per_km=0.015, sites=ISLANDS.sites, detours=((), (None,))))
    assert unmeasured.ms(*ISLANDS.sites) == unmeasured.line_ms(great_circle_km(*ISLANDS.sites))


def test_no_detour_makes_an_estimate_faster_than_light() -> None:
    absurd = Estimator(Fit(floor_ms=2.0, ms_per_km=0.015, sites=ISLANDS.sites, detours=((), (-5.0,))))
    assert absurd.ms(*ISLANDS.sites) == great_circle_km(*ISLANDS.sites) * LIGHT_MS_PER_KM


WEST, EAST, PORT, ISLAND = (0.0, 0.0), (0.0, 40.0), (20.0, 20.0), (0.0, 20.0)
LINE = Fit(floor_ms=2.0, ms_per_km=0.015, sites=(WEST, EAST, PORT), detours=((), (None,), (None, None)))


def line_ms(*stops: tuple[float, float]) -> float:
    """The line along all stops."""
    legs = pairwise(stops)
    return sum(LINE.floor_ms + LINE.ms_per_km * great_circle_km(a, b) for a, b in legs)


def test_place_that_has_gateways_is_reached_through_them_and_not_on_the_direct_way() -> None:
    estimator = Estimator(LINE, [Way(ISLAND, through=(PORT,))])
    assert estimator.ms(WEST, ISLAND) == pytest.approx(line_ms(WEST, PORT, ISLAND))
    assert estimator.ms(WEST, ISLAND) > Estimator(LINE).ms(WEST, ISLAND)


def test_best_of_several_gateways_is_taken() -> None:
    estimator = Estimator(LINE, [Way(ISLAND, through=(PORT, WEST))])
    assert estimator.ms(WEST, ISLAND) == pytest.approx(line_ms(WEST, ISLAND))
    assert estimator.ms(EAST, ISLAND) == pytest.approx(line_ms(EAST, PORT, ISLAND))


def test_surroundings_of_a_place_go_its_way_and_to_each_other_directly() -> None:
    estimator = Estimator(LINE, [Way(ISLAND, through=(PORT,))])
    village, town = (0.5, 20.0), (-0.5, 20.0)
    assert estimator.ms(WEST, village) == pytest.approx(line_ms(WEST, PORT, village))
    assert estimator.ms(village, town) == pytest.approx(line_ms(village, town))


def test_two_places_with_gateways_meet_behind_both() -> None:
    other = (0.0, 60.0)
    estimator = Estimator(LINE, [Way(ISLAND, through=(PORT,)), Way(other, through=(EAST,))])
    assert estimator.ms(other, ISLAND) == pytest.approx(line_ms(other, EAST, PORT, ISLAND))


def test_table_of_ways_names_places_on_earth_and_gateways_where_somebody_measured(fit_rtt: ModuleType) -> None:
    assert len(known_ways()) > 100
    vultr = fit_rtt.read_vultr(fit_rtt.SOURCES / "vultr_city_rtt_2026.csv.gz")
    pairs = [*fit_rtt.region_pairs(fit_rtt.read_aws(MEASURED)), *vultr]
    sites = set(fit_rtt.metros_of(pairs))
    for way in known_ways():
        assert way.through
        assert abs(way.at[0]) <= 90
        assert abs(way.at[1]) <= 180
        for gateway in way.through:
            assert min(great_circle_km(gateway, site) for site in sites) < fit_rtt.METRO_KM


@pytest.mark.parametrize(
    ("client", "nearer", "than"),
    [
        ((4.71, -74.07), "us-east-1", "sa-east-1"),  # Bogota: cables land in Florida
        ((-36.85, 174.76), "ap-southeast-2", "us-west-2"),  # Auckland
        ((6.52, 3.38), "eu-west-2", "me-south-1"),  # Lagos
        ((25.20, 55.27), "me-south-1", "eu-central-1"),  # Dubai: through Bahrain
    ],
)
def test_places_that_nobody_measured_find_the_region_that_is_nearer_on_the_network(
    client: tuple[float, float], nearer: str, than: str
) -> None:
    near, far = region_location(nearer), region_location(than)
    assert near is not None
    assert far is not None
    assert rtt_between_points(client, near) < rtt_between_points(client, far)


def test_one_networks_detour_is_no_detour_of_the_place(fit_rtt: ModuleType) -> None:
    pairs = [fit_rtt.Pair((0.0, 0.0), (0.0, 10.0), 40.0), fit_rtt.Pair((0.1, 0.0), (0.1, 10.0), 20.0)]
    found = fit_rtt.least(pairs, fit_rtt.metros_of(pairs))
    assert set(found.values()) == {20.0}


def test_what_is_shorter_over_a_third_site_is_taken_for_that_long(fit_rtt: ModuleType) -> None:
    a, b, c, d = sites = [(0.0, 0.0), (0.0, 10.0), (0.0, 20.0), (0.0, 30.0)]
    found = {(a, b): 10.0, (b, c): 10.0, (a, c): 90.0, (c, d): 10.0}
    both = found | {(there, here): ms for (here, there), ms in found.items()}
    shorter = fit_rtt.shortened(both, sites)
    assert shorter[a, c] == shorter[c, a] == 20.0 + fit_rtt.RELAY_MS
    assert (shorter[a, b], set(shorter)) == (10.0, set(both))


def test_the_shipped_numbers_are_what_the_sources_give(
    fit_rtt: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_rtt.py", "--check"])
    assert fit_rtt.main() == 0, capsys.readouterr().out


def test_a_fit_finds_the_line_that_made_the_data_in_spite_of_one_absurd_pair(fit_rtt: ModuleType) -> None:
    places = [(0.0, float(degree)) for degree in range(0, 60, 5)]
    pairs = [fit_rtt.Pair(places[0], b, 5 + 0.02 * great_circle_km(places[0], b)) for b in places[1:]]
    floor_ms, ms_per_km = fit_rtt.fit_line([*pairs, fit_rtt.Pair(places[0], (0.0, 27.5), 9000.0)])
    assert (floor_ms, ms_per_km) == (pytest.approx(5, abs=0.2), pytest.approx(0.02, abs=1e-4))


def test_the_documented_figures_are_what_the_fit_prints(fit_rtt: ModuleType) -> None:
    vultr = fit_rtt.read_vultr(fit_rtt.SOURCES / "vultr_city_rtt_2026.csv.gz")
    pairs = [*fit_rtt.region_pairs(fit_rtt.read_aws(MEASURED)), *vultr]
    printed = "\n".join(fit_rtt.report(pairs, vultr))
    assert printed in (ROOT / "docs/geography.md").read_text(encoding="utf-8")
