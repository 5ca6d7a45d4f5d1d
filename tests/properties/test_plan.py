"""What every plan keeps to, whatever has happened to its backends."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.api.errors import Forbidden
from isochrone.routing.affinity import digest, score
from isochrone.routing.engines import EngineLoad
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import Location
from isochrone.routing.health import Standing
from isochrone.routing.hybrid import HOLD_SECONDS, MEASURED, Hybrid
from isochrone.routing.plan import Near, Planner, Step, reason
from isochrone.routing.probe import Probe
from isochrone.routing.residency import Regions
from isochrone.routing.speed import BRISK_MS, Speed
from isochrone.settings import Backend, Model, Price, Routing

NOW = 1000.0
SUMS = ("idle_ms", "cost_ms")
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1", "sa-east-1", None)
MODELS = ("m", "fallback")

clients = st.none() | st.builds(Location, st.floats(-90, 90), st.floats(-180, 180))
affinities = st.none() | st.integers(0, 2**64 - 1)
places = st.frozensets(st.sampled_from([region for region in REGIONS if region]))
facts = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["pool", "api"]),
        "region": st.sampled_from(REGIONS),
        "models": st.lists(st.sampled_from(MODELS), min_size=1, unique=True).map(lambda names: {n: n for n in names}),
        "max_concurrency": st.none() | st.integers(1, 64),
        "weight": st.sampled_from([0.5, 1.0, 1.0, 3.0]),
        "share": st.sampled_from([None, None, None, 0.05, 0.5]),
        "price": st.builds(Price, st.floats(0, 100), st.floats(0, 100)),
    }
)
events = st.fixed_dictionaries(
    {
        "failures": st.lists(st.floats(0, 120), max_size=5),
        "ejected_ago": st.none() | st.floats(0, 60),
        "reached": st.none() | st.booleans(),
        "probed_ago": st.floats(0, 300),
        "in_flight": st.integers(0, 100),
        "on_trial": st.booleans(),
        "waiting": st.none() | st.integers(0, 100),
        "kv_use": st.none() | st.floats(0, 1),
        "rtts": st.lists(st.floats(0.1, 2000), max_size=10),
        "first_token": st.none() | st.floats(1, 60_000),
    }
)
Scene = list[tuple[dict[str, Any], dict[str, Any]]]
scenes = st.lists(st.tuples(facts, events), min_size=1, max_size=6)
rules = st.fixed_dictionaries(
    {
        "near": st.sampled_from(["client", "edge"]),
        "near_equal_ms": st.sampled_from([0.0, 20.0, 500.0]),
        "price_ms": st.sampled_from([0.0, 1.0, 100.0]),
    }
)
models = st.builds(
    Model,
    name=st.just("m"),
    fallback=st.sampled_from([(), ("fallback",)]),
    primary=st.sampled_from(["pool", "api"]),
    standby_above_ms=st.none() | st.just(500.0),
)


def fleet_of(scene: Scene) -> Fleet:
    backends = [Backend(name=f"b{i}", base_url="http://x", **known) for i, (known, _) in enumerate(scene)]
    fleet = Fleet(backends, edge_region="us-east-1")
    for state, (_, seen) in zip(fleet.states, scene, strict=True):
        for ago in sorted(seen["failures"], reverse=True):
            state.offers[0].circuit.on_failure(NOW - ago, "failed", begun=NOW - ago)
        if seen["ejected_ago"] is not None:
            state.ejection.eject(NOW - seen["ejected_ago"], "failed often")
        if seen["reached"] is not None:
            load = EngineLoad(waiting=seen["waiting"], kv_use=seen["kv_use"])
            state.on_probe(Probe(at=NOW - seen["probed_ago"], reached=seen["reached"], load=load))
        if seen["on_trial"]:
            state.offers[0].circuit.claim_trial(NOW)
        state.in_flight = seen["in_flight"]
        for ms in seen["rtts"]:
            state.on_rtt(ms)
        for _ in range(MEASURED if seen["first_token"] else 0):
            state.offers[0].speed.on_first_token(seen["first_token"], now=NOW)
    return fleet


def planned(
    fleet: Fleet,
    model: Model,
    routing: dict[str, Any],
    *,
    client: Location | None = None,
    affinity: int | None = None,
    regions: Regions = None,
    seed: int = 0,
) -> list[Step]:
    planner = Planner(fleet, models=[model], routing=Routing(**routing), chance=Random(seed).random)
    return planner.plan("m", client=client, now=NOW, affinity=affinity, regions=regions)


def told(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.backend.facts.name, step.model) for step in steps]


def _unfitness(step: Step) -> int:
    if step.is_fit:
        return 0
    return 2 if step.standing is Standing.UNREACHABLE else 1


@given(scenes, models, rules, clients, affinities, st.integers(0, 9))
@settings(max_examples=300)
def test_plan_keeps_its_order(
    scene: Scene, model: Model, routing: dict[str, Any], client: Location | None, affinity: int | None, seed: int
) -> None:
    fleet = fleet_of(scene)
    steps = planned(fleet, model, routing, client=client, affinity=affinity, seed=seed)

    # Nobody is forgotten, nobody stands twice: whatever serves the model or its fallback has its place.
    serving = [offer for name in ("m", *model.fallback) for offer in fleet.offers(name)]
    assert sorted(told(steps)) == sorted((offer.backend.facts.name, offer.model) for offer in serving)

    # Fit before unfit, and what probes do not reach last; then what has not said that it is full; the model before its
    # fallback; room before no room.
    groups = [(_unfitness(step), step.is_busy, MODELS.index(step.model), step.is_full) for step in steps]
    assert groups == sorted(groups)

    # Then kinds, canaries aside, and of one kind the near-equals before the others, which stand by cost.
    for group in set(groups):
        own = [step for step, its in zip(steps, groups, strict=True) if its == group]
        assert sum(step.choice == "canary" for step in own) <= (1 if own[0].choice == "canary" else 0)
        ordinary = [step for step in own if "canary" not in step.choice]
        seconds = [step.role in ("standby", "slow primary") for step in ordinary]
        assert seconds == sorted(seconds)
        for second in (False, True):
            alike = [step for step, its in zip(ordinary, seconds, strict=True) if its is second]
            chosen = [step.choice != "" for step in alike]
            assert chosen == sorted(chosen, reverse=True)
            costs = [step.cost_ms for step in alike if not step.choice]
            assert costs == sorted(costs)

    # Costs are sums of what can only be added, and every reason can be sent as a header.
    for step in steps:
        parts = [getattr(step, name) for name in Step.__struct_fields__ if name.endswith("_ms") and name not in SUMS]
        assert min(parts) >= 0
        assert step.cost_ms == pytest.approx(sum(parts))
        assert reason(step).isascii()
        assert reason(step).isprintable()


@given(scenes, models, rules, clients, affinities, st.integers(0, 9))
@settings(max_examples=100)
def test_same_scene_has_the_same_plan(
    scene: Scene, model: Model, routing: dict[str, Any], client: Location | None, affinity: int | None, seed: int
) -> None:
    def again() -> list[tuple[str, str]]:
        return told(planned(fleet_of(scene), model, routing, client=client, affinity=affinity, seed=seed))

    assert again() == again()


@given(scenes, models, rules, places, places, affinities, st.integers(0, 9))
@settings(max_examples=300)
def test_nobody_outside_the_eligible_regions_is_ever_asked(
    scene: Scene,
    model: Model,
    routing: dict[str, Any],
    regions: frozenset[str],
    rule: frozenset[str],
    affinity: int | None,
    seed: int,
) -> None:
    fleet = fleet_of(scene)
    ruled = Model(name="m", regions=tuple(rule), fallback=model.fallback, primary=model.primary)
    allowed = regions & rule if rule else regions
    try:
        steps = planned(fleet, ruled, routing, regions=regions, affinity=affinity, seed=seed)
    except Forbidden:
        steps = []
    inside = [
        (offer.backend.facts.name, name)
        for name in ("m", *model.fallback)
        for offer in fleet.offers(name)
        if offer.backend.facts.region in allowed
    ]
    assert sorted(told(steps)) == sorted(inside)


@given(scenes, models, rules, clients, affinities, st.integers(0, 9), st.data())
@settings(max_examples=400)
def test_more_load_never_moves_a_backend_forward(
    scene: Scene,
    model: Model,
    routing: dict[str, Any],
    client: Location | None,
    affinity: int | None,
    seed: int,
    data: st.DataObject,
) -> None:
    which = data.draw(st.integers(0, len(scene) - 1))
    name, more = f"b{which}", data.draw(st.integers(1, 100))
    idle, busy = fleet_of(scene), fleet_of(scene)
    busy.states[which].in_flight += more

    def places_in(fleet: Fleet) -> dict[str, int]:
        steps = told(planned(fleet, model, routing, client=client, affinity=affinity, seed=seed))
        return {served: i for i, (backend, served) in enumerate(steps) if backend == name}

    before, after = places_in(idle), places_in(busy)
    assert all(after[served] >= place for served, place in before.items())


POOLS = [f"pool-{i}" for i in range(8)]


@given(st.integers(0, 2**64 - 1), st.sets(st.sampled_from(POOLS), min_size=2), st.data())
@settings(max_examples=300)
def test_losing_a_backend_moves_only_its_own_keys(key: int, names: set[str], data: st.DataObject) -> None:
    def best(among: set[str]) -> str:
        return max(sorted(among), key=lambda name: score(name, 1.0, key))

    lost = data.draw(st.sampled_from(sorted(names)))
    assert best(names - {lost}) == best(names) or best(names) == lost


@given(st.lists(st.sampled_from(POOLS), min_size=2, max_size=6, unique=True), affinities.filter(bool), st.data())
@settings(max_examples=100)
def test_plan_without_the_lost_backend_keeps_the_order_of_the_others(
    names: list[str], affinity: int, data: st.DataObject
) -> None:
    def order(left: list[str]) -> list[str]:
        backends = [Backend(name=name, base_url="http://x", region="us-east-1", models={"m": "m"}) for name in left]
        steps = planned(Fleet(backends, edge_region="us-east-1"), Model(name="m"), {}, affinity=affinity)
        return [step.backend.facts.name for step in steps]

    lost = data.draw(st.sampled_from(names))
    assert order([name for name in names if name != lost]) == [name for name in order(names) if name != lost]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
contents = st.none() | st.text() | st.lists(st.dictionaries(st.sampled_from(["type", "text", "x"]), json_values))
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]), "content": contents}
)


@given(st.lists(messages, min_size=1, max_size=5), st.lists(messages, max_size=3))
@settings(max_examples=200)
def test_later_turns_do_not_change_the_digest(first: list[dict[str, Any]], later: list[dict[str, Any]]) -> None:
    question = {"role": "user", "content": "Why?"}
    assert digest({"messages": [*first, question]}) == digest({"messages": [*first, question, *later]})


@given(json_values)
@settings(max_examples=200)
def test_digest_of_any_prompt_is_a_number_or_nothing(prompt: Any) -> None:
    known = digest({"prompt": prompt})
    assert known is None or 0 <= known < 2**64


@given(st.lists(st.tuples(st.floats(0.1, 5), st.lists(st.floats(1, 2000), max_size=30)), max_size=60))
@settings(max_examples=200)
def test_hybrid_rule_holds_for_a_while_whatever_is_measured(seconds: list[tuple[float, list[float]]]) -> None:
    hybrid, speed, switches, now = Hybrid("pool", 500.0), Speed(), [], NOW
    for pause, measured in seconds:
        now += pause
        for ms in measured:
            speed.on_first_token(ms, now=now)
        before = hybrid.is_on_standby
        hybrid.judge(now, speed.first_tokens)
        if hybrid.is_on_standby is not before:
            switches.append(now)
    assert all(later - earlier >= HOLD_SECONDS for earlier, later in pairwise(switches))


brisk = st.lists(st.floats(1, BRISK_MS), max_size=20)
slow = st.floats(BRISK_MS + 2000, 600_000)


def near_with_first_tokens(samples: list[float]) -> str:
    backends = [Backend(name=region, region=region, base_url="http://x", models={"m": "m"}) for region in REGIONS[:2]]
    fleet = Fleet(backends, edge_region="us-east-1")
    for ms in samples:
        fleet.states[0].offers[0].speed.on_first_token(ms, now=NOW)
    near: Near = "edge"
    return planned(fleet, Model(name="m"), {"near": near})[0].backend.facts.name


@given(brisk, slow, brisk)
@settings(max_examples=200)
def test_one_slow_prompt_does_not_move_the_nearest_backend(
    before: list[float], once: float, after: list[float]
) -> None:
    assert near_with_first_tokens([*before, once, *after]) == "us-east-1"


@given(brisk, st.lists(slow, min_size=3, max_size=3))
@settings(max_examples=200)
def test_three_slow_prompts_in_a_row_do(before: list[float], slow_ones: list[float]) -> None:
    assert near_with_first_tokens([*before, *slow_ones]) != "us-east-1"
