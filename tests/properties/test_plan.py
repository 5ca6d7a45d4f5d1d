"""What every plan keeps to, whatever has happened to its backends."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.routing.fleet import BRISK_MS, Fleet
from isochrone.routing.geo import Location
from isochrone.routing.health import Standing
from isochrone.routing.plan import Near, Step, plan, reason
from isochrone.settings import Backend

NOW = 1000.0
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1", "sa-east-1", None)
MODELS = ("m", "fallback")

clients = st.none() | st.builds(Location, st.floats(-90, 90), st.floats(-180, 180))
nears: st.SearchStrategy[Near] = st.sampled_from(["client", "edge"])
facts = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["pool", "api"]),
        "region": st.sampled_from(REGIONS),
        "models": st.lists(st.sampled_from(MODELS), min_size=1, unique=True).map(lambda names: {n: n for n in names}),
        "max_concurrency": st.integers(1, 64),
    }
)
events = st.fixed_dictionaries(
    {
        "failures": st.lists(st.floats(0, 120), max_size=5),
        "reached": st.none() | st.booleans(),
        "probed_ago": st.floats(0, 300),
        "in_flight": st.integers(0, 100),
        "trials": st.integers(0, 2),
        "waiting": st.integers(0, 100),
        "rtts": st.lists(st.floats(0.1, 2000), max_size=10),
        "first_token": st.none() | st.floats(1, 60_000),
    }
)
scenes = st.lists(st.tuples(facts, events), min_size=1, max_size=6)


def fleet_of(scene: list[tuple[dict[str, Any], dict[str, Any]]]) -> Fleet:
    backends = [Backend(name=f"b{i}", base_url="http://x", **known) for i, (known, _) in enumerate(scene)]
    fleet = Fleet(backends, edge_region="us-east-1")
    for state, (_, seen) in zip(fleet.states, scene, strict=True):
        for ago in sorted(seen["failures"], reverse=True):
            state.health.on_failure(NOW - ago, "failed", unreachable=False, begun=NOW - ago)
        if seen["reached"] is not None:
            state.on_probe(NOW - seen["probed_ago"], reached=seen["reached"], waiting=seen["waiting"])
        state.in_flight = seen["in_flight"]
        state.trials = min(seen["trials"], seen["in_flight"])
        for ms in seen["rtts"]:
            state.on_rtt(ms)
        if seen["first_token"]:
            state.on_first_token(seen["first_token"], now=NOW)
    return fleet


def takes_requests(step: Step) -> bool:
    on_trial = step.standing is Standing.TRIAL and not step.backend.trials
    return step.standing is Standing.HEALTHY or on_trial


@given(scenes, clients, nears)
@settings(max_examples=300)
def test_plan_keeps_its_order(
    scene: list[tuple[dict[str, Any], dict[str, Any]]], client: Location | None, near: Near
) -> None:
    fleet = fleet_of(scene)
    steps = plan("m", ("fallback",), fleet, client=client, near=near, now=NOW)

    # Nobody is forgotten, nobody stands twice: whatever serves the model or its fallback has its place.
    serving = [(state.facts.name, model) for model in MODELS for state in fleet.serving(model)]
    assert sorted((step.backend.facts.name, step.model) for step in steps) == sorted(serving)

    # Fit before unfit; of the fit the model before its fallback; of those pools before APIs; then the cheapest.
    groups = [(not takes_requests(step), MODELS.index(step.model), step.backend.facts.kind == "api") for step in steps]
    assert groups == sorted(groups)
    for group in set(groups):
        costs = [step.cost_ms for step, own in zip(steps, groups, strict=True) if own == group]
        assert costs == sorted(costs)

    # Costs are sums of what can only be added, and every reason can be sent as a header.
    for step in steps:
        assert min(step.network_ms, step.detour_ms, step.slowness_ms, step.load_ms, step.doubt_ms) >= 0
        assert reason(step).isascii()
        assert reason(step).isprintable()


@given(scenes, clients)
@settings(max_examples=100)
def test_same_scene_has_the_same_plan(
    scene: list[tuple[dict[str, Any], dict[str, Any]]], client: Location | None
) -> None:
    def names() -> list[str]:
        steps = plan("m", ("fallback",), fleet_of(scene), client=client, near="client", now=NOW)
        return [step.backend.facts.name for step in steps]

    assert names() == names()


brisk = st.lists(st.floats(1, BRISK_MS), max_size=20)
slow = st.floats(BRISK_MS + 2000, 600_000)


def near_with_first_tokens(samples: list[float]) -> list[str]:
    fleet = Fleet(
        [
            Backend(name=region, region=region, base_url="http://x", models={"m": "m"})
            for region in REGIONS[:2]
            if region
        ],
        edge_region=REGIONS[0] or "",
    )
    for ms in samples:
        fleet.states[0].on_first_token(ms, now=NOW)
    return [step.backend.facts.name for step in plan("m", (), fleet, client=None, near="edge", now=NOW)]


@given(brisk, slow, brisk)
@settings(max_examples=200)
def test_one_slow_prompt_does_not_move_the_nearest_backend(
    before: list[float], once: float, after: list[float]
) -> None:
    assert near_with_first_tokens([*before, once, *after])[0] == REGIONS[0]


@given(brisk, st.lists(slow, min_size=3, max_size=3))
@settings(max_examples=200)
def test_three_slow_prompts_in_a_row_do(before: list[float], slow_ones: list[float]) -> None:
    assert near_with_first_tokens([*before, *slow_ones])[0] != REGIONS[0]
