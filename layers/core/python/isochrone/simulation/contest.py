"""All policies in the same world, side by side: each in a process of its own, as many at once as there are cores."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, cast

from isochrone.settings import Settings, load
from isochrone.simulation import policies
from isochrone.simulation.figures import Figures
from isochrone.simulation.ours import Ours
from isochrone.simulation.run import MakePolicy, Terms, simulate
from isochrone.simulation.scenarios import SCENARIOS
from isochrone.simulation.traffic import SOURCES, Source
from isochrone.simulation.world import DATA, build_world


class Entrant(NamedTuple):
    """A policy as it is called in tables."""

    title: str
    make: MakePolicy


ENTRANTS: dict[str, Entrant] = {
    "distance": Entrant("nearest by distance", policies.NearestByDistance),
    "rtt": Entrant("lowest round trip", policies.LowestRtt),
    "round-robin": Entrant("round robin", policies.RoundRobin),
    "least-load": Entrant("least load", policies.LeastLoad),
    "api-alone": Entrant("official API alone", policies.ApiAlone),
    "api-three-times": Entrant("official API, three tries", policies.ApiThreeTimes),
    "ours": Entrant("isochrone", Ours),
}


class Wish(NamedTuple):
    """What somebody typed; None and () stand for what the scenario has. `settings` is a world of their own."""

    scenario: str
    requests: int
    clients: int
    seed: int
    probe_seconds: float
    source: str | None = None
    rate: float | None = None
    cv: float = 3.0
    policies: tuple[str, ...] = ()
    settings: Settings | None = None
    model: str | None = None


def terms_of(wish: Wish) -> tuple[Terms, tuple[str, ...]]:
    """The terms and the names of the policies. Raises ValueError: one line on what cannot be."""
    scenario = SCENARIOS[_known(wish.scenario, SCENARIOS, "scenario")]
    settings = wish.settings or load(DATA / scenario.config)
    model = wish.model or (settings.model[0].name if settings.model else next(iter(settings.backend[0].models)))
    terms = Terms(
        scenario=wish.scenario,
        settings=settings,
        model=model,
        requests=wish.requests,
        clients=wish.clients,
        seed=wish.seed,
        source=cast(Source, _known(wish.source or scenario.source, SOURCES, "traffic")),
        rate=wish.rate or scenario.rate,
        cv=wish.cv,
        probe_seconds=wish.probe_seconds,
    )
    build_world(settings, model, clients=1, seed=wish.seed)
    return terms, tuple(_known(name, ENTRANTS, "policy") for name in wish.policies or scenario.policies)


def _known(name: str, names: Iterable[str], what: str) -> str:
    if name not in names:
        raise ValueError(f"--{what} {name!r} is not known; there are {', '.join(names)}")
    return name


def compare(terms: Terms, names: Sequence[str], *, processes: int) -> list[Figures]:
    """The figures of each policy, in the order of `names`. Progress goes to stderr."""
    watch = partial(_watch, terms)
    if processes == 1:
        return [watch(name) for name in names]
    with multiprocessing.get_context("spawn").Pool(min(processes, len(names)), _leave_interrupts_to_parent) as pool:
        # The slowest first, or it would be the last one to run, alone.
        slowest_first = sorted(names, key=lambda name: name != "ours")
        found = dict(zip(slowest_first, pool.imap(watch, slowest_first), strict=True))
    return [found[name] for name in names]


def _watch(terms: Terms, name: str) -> Figures:
    entrant = ENTRANTS[name]
    return simulate(entrant.title, entrant.make, terms, partial(_say, entrant.title, terms.requests))


def _say(title: str, requests: int, done: int) -> None:
    print(f"{title}: {done:,} of {requests:,} requests", file=sys.stderr, flush=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
