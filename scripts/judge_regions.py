#!/usr/bin/env python3
"""How much is lost by choosing a region by the shipped estimate, or by distance, for clients that nobody measured.

Takes a csv of measured round trips (may be gzipped) with the columns client_id, lat, lon, region and rtt_avg_ms.
Nothing is fitted to it. A client's regret is what its round trip to the chosen region takes longer than to the best.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from isochrone.routing.rtt import great_circle_km, region_location, rtt_between_points
from isochrone.routing.ways import Point

SIX = ("us-east-1", "us-west-2", "eu-west-1", "ap-southeast-1", "ap-northeast-1", "sa-east-1")
TEN = (*SIX, "eu-central-1", "ap-south-1", "ap-southeast-2", "ca-central-1")

Score = Callable[[Point, Point], float]


class Client(NamedTuple):
    """Where one stands, and its measured milliseconds by region."""

    place: Point
    ms: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the measured round trips")
    parser.add_argument("--regions", help="regions to choose among, separated by commas; default: a six and a ten")
    arguments = parser.parse_args()
    clients = read(arguments.file)
    choices = [tuple(arguments.regions.split(","))] if arguments.regions else [SIX, TEN]
    print("\n".join(line for regions in choices for line in report(clients, regions)))
    return 0


def read(file: Path) -> list[Client]:
    """One for each client_id."""
    found: dict[str, Client] = {}
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            client = found.setdefault(row["client_id"], Client((float(row["lat"]), float(row["lon"])), {}))
            client.ms[row["region"]] = float(row["rtt_avg_ms"])
    return list(found.values())


def report(clients: Sequence[Client], regions: Sequence[str]) -> Iterable[str]:
    """The lines to print."""
    yield f"{len(clients)} clients, {len(regions)} regions: {', '.join(regions)}"
    yield f"  {'':37}{'distance':>10}{'estimate':>10}"
    for when, offered in (("", [regions]), (", one region down", without_one(regions))):
        by_distance, by_estimate = (regrets(clients, offered, score) for score in (great_circle_km, rtt_between_points))
        for name, of in (("missed, %", missed), ("mean regret, ms", statistics.fmean), ("99 of 100 below, ms", p99)):
            yield f"  {name + when:37}{of(by_distance):10.2f}{of(by_estimate):10.2f}"


def without_one(regions: Sequence[str]) -> list[Sequence[str]]:
    """Each way in which one of them is down."""
    return [[region for region in regions if region != down] for down in regions]


def regrets(clients: Iterable[Client], offered: Iterable[Sequence[str]], score: Score) -> list[float]:
    """Milliseconds lost, for each client and each set of regions that is offered to it, in rising order."""
    return sorted(_regret(client, regions, score) for regions in offered for client in clients)


def _regret(client: Client, regions: Sequence[str], score: Score) -> float:
    measured = [region for region in regions if region in client.ms]
    chosen = min(measured, key=lambda region: score(client.place, _place(region)))
    return client.ms[chosen] - min(client.ms[region] for region in measured)


def _place(region: str) -> Point:
    place = region_location(region)
    if place is None:
        raise SystemExit(f"region {region!r} is not known")
    return place


def missed(ordered: Sequence[float]) -> float:
    """How many of a hundred did not get the best region."""
    return 100 * sum(regret > 0 for regret in ordered) / len(ordered)


def p99(ordered: Sequence[float]) -> float:
    """By nearest rank."""
    return ordered[int(0.99 * len(ordered))]


if __name__ == "__main__":
    sys.exit(main())
