#!/usr/bin/env python3
"""Fit the round-trip estimate to the measured pairs in tests/data/rtt and say how good it is.

Writes routing/data/rtt.json (with --check it only compares). The figures are out of sample: sites are set aside by
metropolitan area, the fit sees no pair that touches them, and is then asked about exactly those pairs.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from isochrone.routing import rtt
from isochrone.routing.rtt import Estimator, Fit, great_circle_km
from isochrone.routing.ways import Point, known_ways

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "tests/data/rtt"
TARGET = Path(rtt.__file__).with_name("data") / "rtt.json"
METRO_KM = 100
RELAY_MS = 2.0  # from one network to the next
FOLDS = 8
DEALS = 5
CHOICES = (3, 6, 10)
DRAWS = 4000


class Pair(NamedTuple):
    """One measured pair of different sites."""

    a: Point
    b: Point
    ms: float


def main() -> int:
    arguments = _arguments()
    aws = read_aws(arguments.sources / "aws_interregion_rtt_2020.csv.gz")
    vultr = read_vultr(arguments.sources / "vultr_city_rtt_2026.csv.gz")
    pairs = [*region_pairs(aws), *vultr]
    document = to_json(aws, fit(pairs))
    if arguments.check:
        same = TARGET.read_text(encoding="utf-8") == document
        print(f"{TARGET.name}: {'as the sources say' if same else 'not what the sources give; run this script'}")
        return 0 if same else 1
    TARGET.write_text(document, encoding="utf-8")
    print("\n".join(report(pairs, vultr)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, default=SOURCES, help="folder with the two measured sets")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the shipped file is not the fit")
    return parser.parse_args()


# --- reading ---


def read_aws(file: Path) -> dict[tuple[str, str], float]:
    """Mean milliseconds of both directions by (region, region), in alphabetical order."""
    rows = ((row["src"], row["dst"], row["avg_ms"]) for row in _rows(file))
    return _both_ways(rows)


def read_vultr(file: Path) -> list[Pair]:
    """One pair for each two sites, the mean of both directions."""
    places: dict[str, Point] = {}
    for row in _rows(file):
        for end in ("src", "dst"):
            places[row[end]] = (float(row[f"{end}_lat"]), float(row[f"{end}_lon"]))
    rows = ((row["src"], row["dst"], row["rtt_ms"]) for row in _rows(file))
    return [Pair(places[a], places[b], ms) for (a, b), ms in _both_ways(rows).items()]


def region_pairs(aws: dict[tuple[str, str], float]) -> list[Pair]:
    """The pairs of two different regions."""
    return [Pair(_place(a), _place(b), ms) for (a, b), ms in aws.items() if a != b]


def _place(region: str) -> Point:
    place = rtt.region_location(region)
    if place is None:
        raise SystemExit(f"regions.json: {region} is missing")
    return place


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def _both_ways(rows: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = {}
    for a, b, ms in rows:
        found.setdefault((min(a, b), max(a, b)), []).append(float(ms))
    return {pair: statistics.fmean(both) for pair, both in sorted(found.items())}


# --- fitting ---


def fit(pairs: list[Pair]) -> Fit:
    """The line and the detours that `pairs` show."""
    floor_ms, ms_per_km = fit_line(pairs)
    metros = metros_of(pairs)
    sites = sorted(set(metros.values()))
    found = shortened(least(pairs, metros), sites)

    def detour(a: Point, b: Point) -> float | None:
        line_ms = floor_ms + ms_per_km * great_circle_km(a, b)
        return round(math.log(found[a, b] / line_ms), 2) if (a, b) in found else None

    detours = tuple(tuple(detour(a, b) for b in sites[:i]) for i, a in enumerate(sites))
    return Fit(floor_ms=floor_ms, ms_per_km=ms_per_km, sites=tuple(sites), detours=detours)


def least(pairs: list[Pair], metros: dict[Point, Point]) -> dict[tuple[Point, Point], float]:
    """The least that anybody measured between two metros, each way: what took longer was one network's detour."""
    found: dict[tuple[Point, Point], float] = {}
    for a, b, ms in pairs:
        for ends in ((metros[a], metros[b]), (metros[b], metros[a])):
            if ends[0] != ends[1]:
                found[ends] = min(ms, found.get(ends, math.inf))
    return found


def shortened(found: dict[tuple[Point, Point], float], sites: list[Point]) -> dict[tuple[Point, Point], float]:
    """What was measured, where it is longer than over a third site, by the way over that (Floyd and Warshall 1962).

    Pairs that nobody measured are only passed through: what they take themselves would be no more than a bound.
    """
    ways = {(a, b): found.get((a, b), math.inf) for a in sites for b in sites if a != b}
    for over in sites:
        for (a, b), ms in ways.items():
            if over not in {a, b}:
                ways[a, b] = min(ms, ways[a, over] + ways[over, b] + RELAY_MS)
    return {ends: ways[ends] for ends in found}


def fit_line(pairs: list[Pair]) -> tuple[float, float]:
    """(ms at 0 km, ms per km) with the least mean absolute error: a few absurd detours must not bend it.

    Least squares, repeated with each pair weighted by one over its last error.
    """
    points = [(great_circle_km(a, b), ms) for a, b, ms in pairs]
    floor_ms = ms_per_km = 0.0
    weights = [1.0] * len(points)
    for _ in range(100):
        total = sum(weights)
        mean_km = sum(w * km for w, (km, _) in zip(weights, points, strict=True)) / total
        mean_ms = sum(w * ms for w, (_, ms) in zip(weights, points, strict=True)) / total
        spread = sum(w * (km - mean_km) ** 2 for w, (km, _) in zip(weights, points, strict=True))
        shared = sum(w * (km - mean_km) * (ms - mean_ms) for w, (km, ms) in zip(weights, points, strict=True))
        ms_per_km = shared / spread
        floor_ms = mean_ms - ms_per_km * mean_km
        weights = [1 / max(0.5, abs(floor_ms + ms_per_km * km - ms)) for km, ms in points]
    return round(floor_ms, 2), round(ms_per_km, 5)


def metros_of(pairs: list[Pair]) -> dict[Point, Point]:
    """Each site's metropolitan area, named by its first site: two clouds in Frankfurt are one place."""
    metros: dict[Point, Point] = {}
    for site in sorted({end for pair in pairs for end in pair[:2]}):
        centres = set(metros.values())
        near = [centre for centre in sorted(centres) if great_circle_km(site, centre) < METRO_KM]
        metros[site] = near[0] if near else site
    return metros


def to_json(aws: dict[tuple[str, str], float], shipped: Fit) -> str:
    """The data file: one matrix row a line."""
    regions = sorted({end for pair in aws for end in pair})
    triangle = [[round(aws[a, b], 1) for a in regions[: i + 1]] for i, b in enumerate(regions)]
    return (
        f'{{"regions": {json.dumps(regions)},\n"ms": [\n{_lines(triangle)}\n],\n'
        f'"fit": {{"floor_ms": {shipped.floor_ms}, "ms_per_km": {shipped.ms_per_km},\n'
        f'"sites": {json.dumps(shipped.sites)},\n"detours": [\n{_lines(shipped.detours)}\n]}}}}\n'
    )


def _lines(rows: Iterable[object]) -> str:
    return ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)


# --- judging ---


class Judged(NamedTuple):
    """One pair that the fit of this `deal` had not seen: what was measured, what the line and the estimate say."""

    deal: int
    pair: Pair
    line_ms: float
    estimate_ms: float


def judge(pairs: list[Pair]) -> Iterator[Judged]:
    """Every pair between two metros, once for each time that one of its ends was set aside."""
    metros = metros_of(pairs)
    for deal, aside in _folds(sorted(set(metros.values()))):
        seen = [pair for pair in pairs if not {metros[pair.a], metros[pair.b]} & aside]
        estimator = Estimator(fit(seen), known_ways())
        for a, b, ms in pairs:
            for client, region in ((a, b), (b, a)):
                if metros[client] in aside and metros[a] != metros[b]:
                    line_ms = estimator.line_ms(great_circle_km(a, b))
                    yield Judged(deal, Pair(client, region, ms), line_ms, estimator.ms(a, b))


def _folds(areas: list[Point]) -> Iterator[tuple[int, set[Point]]]:
    """(deal, metros set aside), several times over: with 41 metros, one way of dealing them out is luck."""
    for deal in range(DEALS):
        dealt = random.Random(deal).sample(areas, len(areas))  # noqa: S311
        for fold in range(FOLDS):
            yield deal, set(dealt[fold::FOLDS])


def report(pairs: list[Pair], clients: list[Pair]) -> list[str]:
    """The lines that docs/geography.md quotes. Choices are judged on `clients`, a complete matrix."""
    judged = list(judge(pairs))
    line_ms, whole_ms = [each.line_ms for each in judged], [each.estimate_ms for each in judged]
    known = {(pair.a, pair.b) for pair in clients} | {(pair.b, pair.a) for pair in clients}
    choices = [each for each in judged if (each.pair.a, each.pair.b) in known]
    shipped = fit(pairs)
    return [
        f"line: {shipped.floor_ms} ms + {shipped.ms_per_km} ms/km; {len(shipped.sites)} sites, {len(pairs)} pairs",
        f"out of sample, {DEALS} times {FOLDS} folds of metros, {len(judged)} questions",
        f"  {'':20}{'distance':>12}{'estimate':>12}",
        *_error_lines([each.pair.ms for each in judged], line_ms, whole_ms),
        *(line for count in CHOICES for line in _choice_lines(choices, count)),
    ]


def _error_lines(truth: list[float], line_ms: list[float], whole_ms: list[float]) -> Iterator[str]:
    def errors(guess: list[float]) -> list[float]:
        return [abs(a - b) for a, b in zip(guess, truth, strict=True)]

    yield _figures("mean error, ms", statistics.fmean(errors(line_ms)), statistics.fmean(errors(whole_ms)))
    yield _figures("median error, ms", statistics.median(errors(line_ms)), statistics.median(errors(whole_ms)))
    yield _figures("Pearson", statistics.correlation(line_ms, truth), statistics.correlation(whole_ms, truth))


def _choice_lines(judged: list[Judged], count: int) -> Iterator[str]:
    """How often, and at what cost, the nearest of `count` random regions is missed."""
    by_distance = draw_regrets(judged, count, lambda each: each.line_ms)
    by_estimate = draw_regrets(judged, count, lambda each: each.estimate_ms)
    missed = [100 * sum(regret > 0 for regret in regrets) / DRAWS for regrets in (by_distance, by_estimate)]
    yield _figures(f"{count} regions: missed, %", *missed)
    yield _figures(f"{count} regions: regret, ms", statistics.fmean(by_distance), statistics.fmean(by_estimate))


def draw_regrets(judged: list[Judged], count: int, score: Callable[[Judged], float]) -> list[float]:
    """For random clients and random sets of regions: milliseconds lost by going to the one with the least score."""
    chance = random.Random(7)  # noqa: S311
    by_client: dict[tuple[int, Point], list[Judged]] = {}
    for each in judged:
        by_client.setdefault((each.deal, each.pair.a), []).append(each)
    clients = sorted(by_client)
    regrets = []
    for _ in range(DRAWS):
        offered = chance.sample(by_client[chance.choice(clients)], count)
        regrets.append(min(offered, key=score).pair.ms - min(each.pair.ms for each in offered))
    return regrets


def _figures(name: str, by_distance: float, by_estimate: float) -> str:
    return f"  {name:20}{by_distance:12.2f}{by_estimate:12.2f}"


if __name__ == "__main__":
    sys.exit(main())
