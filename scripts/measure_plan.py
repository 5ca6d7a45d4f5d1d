#!/usr/bin/env python
"""What one plan costs: CPU microseconds for 20 backends, in five regions and in one, with and without affinity."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import click

from isochrone.routing.affinity import digest
from isochrone.routing.engines import EngineLoad
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import Location
from isochrone.routing.plan import Planner
from isochrone.routing.probe import Probe
from isochrone.settings import Backend, Model, Routing

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1", "sa-east-1", "us-west-2")
BACKENDS = 20
NOW = 1000.0
FRANKFURT = Location(50.1, 8.7, "DE", "Frankfurt am Main")
PROMPT = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. " * 60},
        {"role": "user", "content": "What do you make of this text? " * 60},
    ]
}


@click.command(help=__doc__)
@click.option("--plans", default=3000, show_default=True, help="Plans a round.")
@click.option("--rounds", default=7, show_default=True, help="The best of so many counts: the others were disturbed.")
def main(plans: int, rounds: int) -> None:
    for where, regions in (("five regions", REGIONS), ("one region, all near-equals", REGIONS[:1])):
        fleet = busy_fleet(regions)
        planner = Planner(fleet, models=[Model(name="m")], routing=Routing(), chance=random.random)

        def by_affinity(planner: Planner = planner) -> None:
            planner.plan("m", client=FRANKFURT, now=NOW + 1, affinity=digest(PROMPT))

        def by_lot(planner: Planner = planner) -> None:
            planner.plan("m", client=FRANKFURT, now=NOW + 1)

        for how, planning in (("affinity, with the digest", by_affinity), ("by lot", by_lot)):
            print(f"{BACKENDS} backends, {where}, {how}: {cpu_us(planning, plans, rounds):.1f} us")


def busy_fleet(regions: tuple[str, ...]) -> Fleet:
    """Every backend probed, measured and in use, as in a running edge."""
    chance = random.Random(1)  # noqa: S311
    fleet = Fleet([_backend(i, regions) for i in range(BACKENDS)], edge_region="us-east-1")
    for state in fleet.states:
        state.in_flight = chance.randrange(20)
        load = EngineLoad(waiting=0, running=3, kv_use=0.2)
        state.on_probe(Probe(at=NOW, reached=True, rtt_ms=state.expected_rtt_ms + 1, load=load))
        state.offers[0].on_first_token(NOW, begun=NOW - 0.5)
    return fleet


def _backend(number: int, regions: tuple[str, ...]) -> Backend:
    return Backend(
        name=f"pool-{number}",
        region=regions[number % len(regions)],
        base_url="http://127.0.0.1:9",
        models={"m": "m"},
        max_concurrency=32,
    )


def cpu_us(work: Callable[[], object], times: int, rounds: int) -> float:
    """CPU microseconds of one call, in the best round."""
    return min(_round(work, times) for _ in range(rounds)) * 1e6


def _round(work: Callable[[], object], times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


if __name__ == "__main__":
    main()
