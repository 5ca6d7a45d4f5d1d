"""What holds for every plan and every row of failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.itinerary import LONGEST_WAIT_SECONDS, Itinerary
from tests.plans import plan

NOW = 1000.0
MODELS = ("m", "f", "g")
NEVER_AGAIN = {Cause.SILENT, Cause.OUT_OF_TIME, Cause.CREDENTIALS, Cause.MISSING, Cause.CONTEXT, Cause.REFUSED}

backends = st.lists(
    st.tuples(st.sampled_from(["pool", "api"]), st.sets(st.sampled_from(MODELS), min_size=1)), min_size=1, max_size=5
)
causes = st.sampled_from([cause for cause in Cause if cause is not Cause.FILTERED])
waits = st.none() | st.floats(0, 20)
fates = st.lists(st.tuples(causes, waits), min_size=6, max_size=6)


def steps_of(offered: Sequence[tuple[Any, set[str]]], standings: Sequence[Standing]) -> list[Step]:
    facts = [
        Backend(name=f"b{i}", kind=kind, base_url="http://127.0.0.1:9", models={name: name for name in sorted(models)})
        for i, (kind, models) in enumerate(offered)
    ]
    planned = plan("m", MODELS[1:], Fleet(facts, edge_region="us-east-1"), client=None, near="edge", now=NOW)
    stood = [
        msgspec.structs.replace(step, standing=standing, is_fit=standing is Standing.HEALTHY)
        for step, standing in zip(planned, standings, strict=False)
    ]
    return sorted(stood, key=lambda step: not step.is_fit)


def failed(step: Step, cause: Cause, wait: float | None, now: float) -> AttemptFailed:
    failure = AttemptFailed(cause, cause.value, retry_after=wait)
    failure.belongs_to(step.backend.facts.name, step.model, now=now)
    return failure


def walked(it: Itinerary, fates: Sequence[tuple[Cause, float | None]], chance: float) -> list[tuple[Step, Cause]]:
    """Who is asked, and what became of it, when every attempt fails and time passes only in pauses."""
    failures: list[AttemptFailed] = []
    way: list[tuple[Step, Cause]] = []
    now = NOW
    while stop := it.next_stop(failures, made=len(failures), now=now, chance=chance):
        assert 0 <= stop.pause <= LONGEST_WAIT_SECONDS + 2
        now += stop.pause
        assert now < it.ends_at
        cause, wait = fates[len(failures)]
        failures.append(failed(stop.step, cause, wait, now))
        way.append((stop.step, cause))
    return way


@given(
    backends,
    st.lists(st.sampled_from([Standing.HEALTHY, Standing.HEALTHY, Standing.EJECTED]), min_size=15, max_size=15),
    st.integers(1, 6),
    fates,
    st.floats(0, 1, exclude_max=True),
    st.dictionaries(st.sampled_from(MODELS), st.integers(1, 3)),
    st.floats(0, 60),
)
def test_way_keeps_to_its_bounds(
    offered: list[tuple[str, set[str]]],
    standings: list[Standing],
    attempts: int,
    fates: list[tuple[Cause, float | None]],
    chance: float,
    contexts: dict[str, int],
    ends_in: float,
) -> None:
    steps = steps_of(offered, standings)
    way = walked(Itinerary(steps, attempts, NOW + ends_in, contexts), fates, chance)
    assert len(way) <= attempts
    for place, (step, cause) in enumerate(way):
        later = [other for other, _ in way[place + 1 :]]
        if cause in NEVER_AGAIN:
            assert all(other.offer is not step.offer for other in later)
        if cause in (Cause.CONTEXT, Cause.REFUSED):
            assert all(other.model != step.model for other in later)
        if cause is Cause.CONTEXT and step.model in contexts:
            assert all(contexts.get(other.model, 99) > contexts[step.model] for other in later)
        if cause is Cause.UNREACHABLE:
            assert all(other.offer is step.offer or other.backend is not step.backend for other in later)


@given(st.integers(1, 5), st.integers(2, 6), fates, st.booleans())
def test_dead_pools_never_hide_a_live_backend_of_another_kind(
    pools: int, attempts: int, fates: list[tuple[Cause, float | None]], is_api: bool
) -> None:
    live = ("api", {"m"}) if is_api else ("pool", {"f"})
    steps = steps_of([*[("pool", {"m"})] * pools, live], [Standing.HEALTHY] * 6)
    fates = [
        (cause if cause is not Cause.CONTEXT and cause is not Cause.REFUSED else Cause.CUT, w) for cause, w in fates
    ]
    way = walked(Itinerary(steps, attempts, NOW + 1e6, {}), fates, 0.5)
    assert any(step.backend.facts.name == f"b{pools}" for step, _ in way)
