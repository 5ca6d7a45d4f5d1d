from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from isochrone.api.errors import Forbidden
from isochrone.routing.circuit import Chance
from isochrone.routing.engines import EngineLoad
from isochrone.routing.fleet import UNKNOWN_RTT_MS, BackendState, Fleet
from isochrone.routing.geo import Location
from isochrone.routing.health import PROBE_VERDICT_SECONDS, Fault
from isochrone.routing.hybrid import HOLD_SECONDS, MEASURED, MEASURED_ON_STANDBY
from isochrone.routing.plan import DOUBT_MS, KV_CACHE_FULL_MS, USUAL_ANSWER_MS, Planner, Step, reason
from isochrone.routing.probe import Probe
from isochrone.routing.speed import BRISK_MS
from isochrone.settings import Backend, Model, Price, Routing
from tests.plans import plan

TOKYO = Location(35.68, 139.69, "JP", "Tokyo")
FRANKFURT = Location(50.11, 8.68, "DE", "Frankfurt am Main")
SAO_PAULO = Location(-23.55, -46.63, "BR", "São Paulo")
NOW = 1000.0
SUMS = ("idle_ms", "cost_ms")


def pool(name: str, region: str | None = None, **more: Any) -> Backend:
    return Backend(name=name, region=region, base_url="http://127.0.0.1:9", **{"models": {"m": "m-there"}, **more})


def api(name: str, region: str | None = None, **more: Any) -> Backend:
    return pool(name, region, kind="api", **more)


US, EU, AP = pool("us", "us-east-1"), pool("eu", "eu-west-1"), pool("ap", "ap-southeast-1")


@pytest.fixture
def fleet() -> Fleet:
    return Fleet([US, EU, AP], edge_region="us-east-1")


def fleet_of(*backends: Backend) -> Fleet:
    return Fleet(backends, edge_region="us-east-1")


def never() -> float:
    """The lot that draws the last, and no canary."""
    return 0.999


def always() -> float:
    """The lot that draws the first, and every canary."""
    return 0.0


def planner(
    fleet: Fleet, *, fallback: tuple[str, ...] = (), model: Model | None = None, chance: Chance = never, **routing: Any
) -> Planner:
    known = model or Model(name="m", fallback=fallback)
    return Planner(fleet, models=[known], routing=Routing(**{"near_equal_ms": 0.0, **routing}), chance=chance)


def planned(
    fleet: Fleet, client: Location | None = None, *, now: float = NOW, affinity: int | None = None, **rules: Any
) -> list[Step]:
    return planner(fleet, **rules).plan("m", client=client, now=now, affinity=affinity)


def names(steps: Iterable[Step]) -> list[str]:
    return [step.backend.facts.name for step in steps]


def state(fleet: Fleet, name: str) -> BackendState:
    return next(state for state in fleet.states if state.facts.name == name)


def open_circuit(backend: BackendState, now: float = NOW) -> None:
    for _ in range(3):
        backend.offers[0].circuit.on_failure(now, "answered 500", begun=now)


def probed(
    backend: BackendState, at: float = NOW, *, reached: bool = True, waiting: int = 0, kv_use: float = 0.0
) -> None:
    backend.on_probe(Probe(at=at, reached=reached, load=EngineLoad(waiting=waiting, kv_use=kv_use)))


# -- distance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "first"), [(TOKYO, "ap"), (FRANKFURT, "eu"), (SAO_PAULO, "us")])
def test_backend_nearest_to_the_client_comes_first(fleet: Fleet, client: Location, first: str) -> None:
    steps = planned(fleet, client)
    assert names(steps)[0] == first
    assert steps[0].network_from == "client"


@pytest.mark.parametrize("client", [None, TOKYO])
def test_backend_nearest_to_the_edge_comes_first_where_that_decides(fleet: Fleet, client: Location | None) -> None:
    steps = planned(fleet, client, near="edge")
    assert names(steps) == ["us", "eu", "ap"]
    assert {step.network_from for step in steps} == {"edge"}


def test_backend_without_a_place_costs_the_unknown() -> None:
    step = next(s for s in planned(fleet_of(EU, pool("placeless")), FRANKFURT) if s.backend.facts.name == "placeless")
    assert (step.network_ms, step.network_from) == (UNKNOWN_RTT_MS, "edge")
    assert "distance unknown" in reason(step)


def test_measured_detour_on_the_way_counts_beside_the_clients_distance(fleet: Fleet) -> None:
    backend = state(fleet, "eu")
    backend.on_rtt(backend.expected_rtt_ms + 400)
    steps = planned(fleet, FRANKFURT)
    assert names(steps)[0] == "us"
    assert "slower than expected" in reason(steps[-1])


@pytest.mark.parametrize(("excess", "detour"), [(20.0, 0.0), (20.5, 20.5)])
def test_probes_that_wander_a_little_are_no_detour(fleet: Fleet, excess: float, detour: float) -> None:
    backend = state(fleet, "eu")
    backend.on_rtt(backend.expected_rtt_ms + excess)
    assert planned(fleet, FRANKFURT)[0].detour_ms == pytest.approx(detour)


def test_best_of_the_last_probes_is_the_way(fleet: Fleet) -> None:
    backend = state(fleet, "us")
    for ms in (90.0, 40.0, 300.0):
        backend.on_rtt(ms)
    assert backend.rtt_ms == 40.0
    for _ in range(8):
        backend.on_rtt(300.0)
    assert backend.rtt_ms == 300.0


def test_probe_answered_nearer_than_the_backend_stands_is_not_believed(fleet: Fleet) -> None:
    backend = state(fleet, "ap")
    backend.on_rtt(0.2)
    assert backend.rtt_ms == backend.expected_rtt_ms > 100


def test_only_measurement_counts_where_the_place_is_unknown() -> None:
    backend = BackendState(pool("placeless"), edge_region="us-east-1")
    assert (backend.rtt_ms, backend.rtt_source) == (UNKNOWN_RTT_MS, "unknown")
    backend.on_rtt(3.0)
    assert backend.rtt_ms == 3.0


def test_location_is_estimated_and_a_region_is_looked_up() -> None:
    placed = BackendState(pool("placed", location=(53.35, -6.26)), edge_region="us-east-1")
    assert placed.rtt_source == "estimate"
    assert 40 < placed.expected_rtt_ms < 140
    assert BackendState(EU, edge_region="us-east-1").rtt_source == "matrix"


# -- models and kinds ------------------------------------------------------------------------------------------------


def test_step_names_its_model(fleet: Fleet) -> None:
    step = planned(fleet)[0]
    assert (step.model, step.offer.model_there) == ("m", "m-there")


def test_model_that_nobody_serves_has_an_empty_plan(fleet: Fleet) -> None:
    assert planner(fleet).plan("other", client=None, now=NOW) == []


def test_fallbacks_come_after_every_backend_of_the_model_and_in_their_order() -> None:
    fleet = fleet_of(
        pool("second", "us-east-1", models={"fallback-2": "x"}),
        pool("first", "us-east-1", models={"fallback-1": "x"}),
        pool("far", "ap-southeast-1"),
    )
    steps = planned(fleet, fallback=("fallback-1", "fallback-2"))
    assert names(steps) == ["far", "first", "second"]
    assert [step.model for step in steps] == ["m", "fallback-1", "fallback-2"]


def test_official_api_is_the_last_resort_even_when_it_is_nearer() -> None:
    steps = planned(fleet_of(api("api", "us-east-1"), AP))
    assert names(steps) == ["ap", "api"]
    assert "official API, the last resort" in reason(steps[1])


def test_api_that_is_the_models_primary_comes_before_a_nearer_pool() -> None:
    steps = planned(fleet_of(api("api", "ap-southeast-1"), US), model=Model(name="m", primary="api"))
    assert names(steps) == ["api", "us"]
    assert "last resort" not in reason(steps[0])
    assert "stands by" in reason(steps[1])


def test_single_plan_follows_the_usual_rules(fleet: Fleet) -> None:
    assert names(plan("m", (), fleet, client=TOKYO, near="client", now=NOW))[0] == "ap"
    assert names(plan("m", (), fleet, client=TOKYO, near="edge", now=NOW))[0] == "us"


# -- health ----------------------------------------------------------------------------------------------------------


def test_ejected_backend_goes_last_but_not_away(fleet: Fleet) -> None:
    state(fleet, "ap").ejection.eject(NOW, "failed often")
    steps = planned(fleet, TOKYO)
    assert names(steps)[-1] == "ap"
    assert len(steps) == 3
    assert reason(steps[-1]).startswith("ejected")


def test_model_with_an_open_circuit_goes_last_and_the_other_models_of_its_backend_do_not() -> None:
    fleet = fleet_of(pool("us", "us-east-1", models={"m": "m", "other": "o"}), AP)
    open_circuit(state(fleet, "us"))
    assert names(planned(fleet)) == ["ap", "us"]
    other = planner(fleet).plan("other", client=None, now=NOW)
    assert [step.is_fit for step in other] == [True]


def test_unreachable_backend_goes_last_but_not_away(fleet: Fleet) -> None:
    probed(state(fleet, "ap"), reached=False)
    assert names(planned(fleet, TOKYO))[-1] == "ap"


def test_last_resort_is_whoever_can_at_least_be_reached() -> None:
    fleet = fleet_of(US, AP)
    probed(state(fleet, "us"), reached=False)
    open_circuit(state(fleet, "ap"))
    steps = planned(fleet)
    assert [(step.backend.facts.name, step.standing.value) for step in steps] == [
        ("ap", "ejected"),
        ("us", "unreachable"),
    ]


def test_backend_found_unreachable_hours_ago_is_asked_again(fleet: Fleet) -> None:
    probed(state(fleet, "ap"), reached=False)
    assert names(planned(fleet, TOKYO, now=NOW + 7200))[0] == "ap"


def test_when_all_circuits_are_open_the_nearest_comes_first_again(fleet: Fleet) -> None:
    for backend in fleet.states:
        open_circuit(backend)
    assert names(planned(fleet, TOKYO))[0] == "ap"


def test_when_more_than_half_refuse_ejections_do_not_count() -> None:
    fleet = fleet_of(pool("a", "us-east-1"), pool("b", "eu-west-1"), pool("c", "ap-southeast-1"))
    state(fleet, "a").ejection.eject(NOW, "failed often")
    assert names(planned(fleet)) == ["b", "c", "a"]
    probed(state(fleet, "b"), reached=False)
    assert names(planned(fleet)) == ["a", "c", "b"]


def test_backend_on_trial_gets_one_request_at_a_time(fleet: Fleet) -> None:
    tried = state(fleet, "ap").offers[0].circuit
    open_circuit(state(fleet, "ap"), now=NOW - 100)
    assert names(planned(fleet, TOKYO))[0] == "ap"
    trial = tried.claim_trial(NOW)
    assert trial is not None
    assert names(planned(fleet, TOKYO))[-1] == "ap"
    tried.free_trial(trial, NOW)
    assert names(planned(fleet, TOKYO))[0] == "ap"


def test_healthy_api_comes_before_an_ejected_pool() -> None:
    fleet = fleet_of(api("api"), AP)
    open_circuit(state(fleet, "ap"))
    assert names(planned(fleet)) == ["api", "ap"]


def test_healthy_fallback_comes_before_an_ejected_backend_of_the_model() -> None:
    fleet = fleet_of(US, pool("spare", "ap-southeast-1", models={"other": "o"}))
    open_circuit(state(fleet, "us"))
    assert names(planned(fleet, fallback=("other",))) == ["spare", "us"]


def test_doubt_moves_a_backend_back_and_expires(fleet: Fleet) -> None:
    state(fleet, "us").offers[0].circuit.on_failure(NOW, "answered 500", begun=NOW)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert steps[-1].doubt_ms == DOUBT_MS
    assert "failed just now" in reason(steps[-1])
    assert names(planned(fleet, now=NOW + 60))[0] == "us"


# -- load ------------------------------------------------------------------------------------------------------------


def test_full_backend_goes_behind_a_far_one_with_room() -> None:
    fleet = fleet_of(pool("us", "us-east-1", max_concurrency=4), AP)
    state(fleet, "us").in_flight = 3
    assert names(planned(fleet)) == ["us", "ap"]
    state(fleet, "us").in_flight = 4
    steps = planned(fleet)
    assert names(steps) == ["ap", "us"]
    assert "full (4 at once)" in reason(steps[1])


def test_requests_overflow_to_the_next_region_then_to_the_api_then_wait() -> None:
    fleet = fleet_of(
        pool("us", "us-east-1", max_concurrency=4),
        pool("ap", "ap-southeast-1", max_concurrency=4),
        api("api", "eu-west-1"),
        pool("spare", "us-east-1", models={"other": "o"}),
    )
    got = []
    for busy in (("us",), ("ap",)):
        got.append(names(planned(fleet, fallback=("other",))))
        for name in busy:
            state(fleet, name).in_flight = 4
    got.append(names(planned(fleet, fallback=("other",))))
    assert got == [["us", "ap", "api", "spare"], ["ap", "api", "us", "spare"], ["api", "us", "ap", "spare"]]


def test_wait_is_the_requests_in_the_way_by_the_usual_time_of_an_answer() -> None:
    fleet = fleet_of(pool("us", "us-east-1", max_concurrency=4), AP)
    backend = state(fleet, "us")
    backend.in_flight = 5
    assert planned(fleet)[1].wait_ms == 2 * USUAL_ANSWER_MS / 4
    backend.offers[0].speed.on_answer(1000, now=0)
    step = planned(fleet)[1]
    assert step.wait_ms == 500
    assert "waits 500 ms for a place" in reason(step)


def test_queue_moves_a_pool_that_states_no_places_behind_a_far_one(fleet: Fleet) -> None:
    state(fleet, "us").in_flight = 40
    steps = planned(fleet)
    assert names(steps) == ["eu", "ap", "us"]
    assert "load 125%" in reason(steps[-1])
    assert not steps[-1].is_full


def test_official_api_that_states_no_places_is_never_full() -> None:
    fleet = fleet_of(api("api", "us-east-1"))
    state(fleet, "api").in_flight = 4000
    step = planned(fleet)[0]
    assert (step.wait_ms, step.is_full) == (0, False)


def test_requests_that_wait_in_the_engine_count(fleet: Fleet) -> None:
    probed(state(fleet, "us"), waiting=40)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert steps[-1].wait_ms == 40 * USUAL_ANSWER_MS / 32


def test_engine_that_others_fill_makes_wait_and_is_full() -> None:
    fleet = twins("a", "b")
    state(fleet, "a").on_probe(Probe(at=NOW, reached=True, load=EngineLoad(running=10, waiting=3)))
    (step,) = [step for step in planned(fleet) if step.backend.facts.name == "a"]
    assert step.wait_ms == 4 * USUAL_ANSWER_MS / 10
    assert step.is_full


def test_slow_first_tokens_of_an_engine_that_tells_its_load_are_its_prompts(fleet: Fleet) -> None:
    us = state(fleet, "us")
    for _ in range(3):
        us.offers[0].speed.on_first_token(9000.0, now=NOW)
    assert next(step for step in planned(fleet) if step.backend is us).slowness_ms > 0
    us.on_probe(Probe(at=NOW, reached=True, load=EngineLoad(running=1, waiting=0)))
    assert next(step for step in planned(fleet) if step.backend is us).slowness_ms == 0


def test_queue_that_no_probe_has_seen_of_late_counts_no_longer(fleet: Fleet) -> None:
    probed(state(fleet, "us"), waiting=40, kv_use=1.0)
    later = NOW + PROBE_VERDICT_SECONDS
    assert names(planned(fleet, now=later - 1))[-1] == "us"
    assert names(planned(fleet, now=later))[0] == "us"


@pytest.mark.parametrize(("kv_use", "memory_ms"), [(0.9, 0.0), (0.95, KV_CACHE_FULL_MS / 2), (1.0, KV_CACHE_FULL_MS)])
def test_cache_that_is_nearly_full_counts(fleet: Fleet, kv_use: float, memory_ms: float) -> None:
    probed(state(fleet, "us"), kv_use=kv_use)
    step = next(step for step in planned(fleet) if step.backend.facts.name == "us")
    assert step.memory_ms == pytest.approx(memory_ms)
    assert ("cache is nearly full" in reason(step)) == (memory_ms > 0)


def test_some_load_does_not_move_a_backend_behind_a_far_one(fleet: Fleet) -> None:
    state(fleet, "us").in_flight = 31
    assert names(planned(fleet))[0] == "us"


def test_slow_first_tokens_move_a_backend_back_and_fade(fleet: Fleet) -> None:
    for _ in range(2):
        state(fleet, "us").offers[0].speed.on_first_token(BRISK_MS + 3000, now=NOW)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert "slower than brisk" in reason(steps[-1])
    assert names(planned(fleet, now=NOW + 60))[0] == "us"


def test_brisk_first_tokens_change_nothing(fleet: Fleet) -> None:
    state(fleet, "us").offers[0].speed.on_first_token(BRISK_MS, now=NOW)
    assert planned(fleet)[0].slowness_ms == 0


# -- price -----------------------------------------------------------------------------------------------------------


def test_price_decides_between_equals_and_over_no_distance_by_default() -> None:
    fleet = fleet_of(
        api("a-dear", "us-east-1", price=Price(1.0, 2.0)),
        api("cheap", "us-east-1", price=Price(0.5, 1.0)),
        api("far", "eu-west-1"),
    )
    steps = planned(fleet)
    assert names(steps) == ["cheap", "a-dear", "far"]
    assert [step.price_ms for step in steps] == [1.5, 3.0, 0.0]
    assert names(planned(fleet, price_ms=1000.0))[0] == "far"


def test_no_dearer_backend_is_drawn_among_near_equals() -> None:
    dear, cheap = api("a-dear", "us-east-1", price=Price(1.0, 2.0)), api("cheap", "us-east-1", price=Price(0.5, 1.0))
    free = api("free", "us-east-2")
    assert firsts(planner(fleet_of(dear, cheap), near_equal_ms=20), affinities=range(100)) == {"cheap": 100}
    assert set(firsts(planner(fleet_of(dear, cheap, free), near_equal_ms=20), affinities=range(100))) == {
        "cheap",
        "free",
    }


# -- near-equals -----------------------------------------------------------------------------------------------------


def twins(*names: str, **more: Any) -> Fleet:
    return fleet_of(*(pool(name, "us-east-1", max_concurrency=10, **more) for name in names), AP)


def firsts(planner: Planner, *, affinities: Iterable[int | None]) -> Counter[str]:
    return Counter(names(planner.plan("m", client=None, now=NOW, affinity=key))[0] for key in affinities)


def test_equal_costs_are_ordered_by_name_where_nothing_is_near_equal() -> None:
    assert names(planned(fleet_of(pool("b", "us-east-1"), pool("a", "us-east-1")))) == ["a", "b"]


def test_requests_that_begin_alike_go_to_one_of_the_near_equals_and_others_to_others() -> None:
    among = planner(twins("a", "b", "c"), near_equal_ms=20)
    got = firsts(among, affinities=range(300))
    assert set(got) == {"a", "b", "c"}
    for key in range(20):
        assert len(firsts(among, affinities=[key] * 10)) == 1


def test_affinity_orders_the_next_attempts_too() -> None:
    fleet = twins("a", "b", "c")
    steps = planned(fleet, near_equal_ms=20, affinity=7)
    first, second = names(steps)[:2]
    assert reason(steps[0]).startswith("likely knows the prompt's beginning")
    open_circuit(state(fleet, first))
    assert names(planned(fleet, near_equal_ms=20, affinity=7))[0] == second


def test_affinity_can_be_turned_off() -> None:
    among = planner(twins("a", "b", "c"), near_equal_ms=20, affinity=False, chance=Random(1).random)
    assert len(firsts(among, affinities=[7] * 100)) == 3


def test_affinity_draws_no_request_over_a_distance() -> None:
    among = planner(twins("a", "b"), near_equal_ms=20)
    assert "ap" not in firsts(among, affinities=range(200))


@pytest.mark.parametrize(("others", "own", "left"), [(0, 1, False), (0, 2, True), (4, 6, False), (4, 8, True)])
def test_affine_backend_is_left_when_it_is_clearly_more_loaded_than_its_equals(
    others: int, own: int, left: bool
) -> None:
    fleet = twins("a", "b", "c")
    affine = names(planned(fleet, near_equal_ms=20, affinity=7))[0]
    for name in "abc":
        state(fleet, name).in_flight = own if name == affine else others
    assert (names(planned(fleet, near_equal_ms=20, affinity=7))[0] != affine) is left


def test_affine_backend_is_left_above_nine_tenths_of_its_places() -> None:
    fleet = fleet_of(*(pool(name, "us-east-1", max_concurrency=100) for name in "ab"))
    affine, other = names(planned(fleet, near_equal_ms=20, affinity=7))
    for load, first in ((90, affine), (91, other)):
        state(fleet, affine).in_flight = load
        state(fleet, other).in_flight = 85
        assert names(planned(fleet, near_equal_ms=20, affinity=7))[0] == first


def test_without_a_digest_the_less_loaded_of_two_comes_first() -> None:
    fleet = twins("a", "b")
    state(fleet, "a").in_flight = 3
    steps = planned(fleet, near_equal_ms=20, chance=always)
    assert names(steps) == ["b", "a", "ap"]
    assert [step.choice for step in steps] == ["less loaded", "near-equal", ""]
    assert "less loaded of two" in reason(steps[0])


def test_the_most_loaded_of_many_is_never_drawn_and_the_least_loaded_not_always() -> None:
    fleet = twins("a", "b", "c", "d")
    for load, name in enumerate("abcd"):
        state(fleet, name).in_flight = load
    got = firsts(planner(fleet, near_equal_ms=20, chance=Random(5).random), affinities=[None] * 600)
    assert got["d"] == 0
    assert got["a"] > got["b"] > got["c"] > 0


@pytest.mark.parametrize("affine", [True, False])
def test_weight_gives_shares_among_near_equals(affine: bool) -> None:
    fleet = fleet_of(pool("light", "us-east-1"), pool("heavy", "us-east-1", weight=3.0))
    among = planner(fleet, near_equal_ms=20, chance=Random(5).random)
    got = firsts(among, affinities=range(1000) if affine else [None] * 1000)
    assert got["heavy"] == pytest.approx(750, abs=50)


def test_weight_holds_under_load_too() -> None:
    fleet = fleet_of(pool("light", "us-east-1"), pool("heavy", "us-east-1", weight=3.0))
    state(fleet, "light").in_flight, state(fleet, "heavy").in_flight = 3, 8
    assert names(planned(fleet, near_equal_ms=20, chance=always))[0] == "heavy"
    state(fleet, "heavy").in_flight = 10
    assert names(planned(fleet, near_equal_ms=20, chance=always))[0] == "light"


def test_what_makes_wait_is_no_near_equal() -> None:
    fleet = twins("a", "b")
    probed(state(fleet, "a"), waiting=1)
    assert [step.choice for step in planned(fleet, near_equal_ms=20, affinity=7)] == ["", "", ""]


# -- canaries --------------------------------------------------------------------------------------------------------


def test_canary_comes_first_in_its_turn_wherever_it_stands_and_else_last_of_its_kind() -> None:
    fleet = fleet_of(US, pool("canary", "us-east-1", share=0.1), AP, api("api"))
    turn = planned(fleet, chance=lambda: 0.0999)
    assert names(turn) == ["canary", "us", "ap", "api"]
    assert "canary, its turn" in reason(turn[0])
    rest = planned(fleet, chance=lambda: 0.1)
    assert names(rest) == ["us", "ap", "canary", "api"]
    assert "canary, not its turn" in reason(rest[2])


def test_canary_that_is_an_api_gets_its_share_before_all_pools() -> None:
    fleet = fleet_of(US, api("canary", "ap-southeast-1", share=0.1), api("api"))
    assert names(planned(fleet, chance=lambda: 0.05)) == ["canary", "us", "api"]
    assert names(planned(fleet, chance=lambda: 0.5)) == ["us", "api", "canary"]


def test_several_canaries_share_the_lot() -> None:
    fleet = fleet_of(US, pool("one", "us-east-1", share=0.1), pool("two", "us-east-1", share=0.2))
    got = firsts(planner(fleet, chance=Random(3).random), affinities=[None] * 4000)
    assert got["one"] == pytest.approx(400, abs=60)
    assert got["two"] == pytest.approx(800, abs=80)


def test_sick_canary_has_no_turn() -> None:
    fleet = fleet_of(US, pool("canary", "us-east-1", share=1.0))
    open_circuit(state(fleet, "canary"))
    assert names(planned(fleet, chance=always)) == ["us", "canary"]


def test_full_canary_has_no_turn() -> None:
    fleet = fleet_of(US, pool("canary", "us-east-1", share=1.0, max_concurrency=1))
    state(fleet, "canary").in_flight = 1
    assert names(planned(fleet, chance=always)) == ["us", "canary"]


# -- the hybrid rule -------------------------------------------------------------------------------------------------

HYBRID = Model(name="m", primary="api", standby_above_ms=500.0)


def measured(fleet: Fleet, name: str, ms: float, *, at: float, times: int) -> None:
    for _ in range(times):
        state(fleet, name).offers[0].speed.on_first_token(ms, now=at)


def test_slow_primary_is_relieved_by_the_standby_and_comes_back() -> None:
    fleet = fleet_of(api("api", "us-east-1"), AP)
    hybrid = planner(fleet, model=HYBRID)
    measured(fleet, "api", 800, at=NOW - 1, times=MEASURED)
    relieved = hybrid.plan("m", client=None, now=NOW)
    assert names(relieved) == ["ap", "api"]
    assert "stands in for a slow primary" in reason(relieved[0])
    assert "primary, but slow of late" in reason(relieved[1])
    measured(fleet, "api", 100, at=NOW + 5, times=MEASURED_ON_STANDBY)
    assert names(hybrid.plan("m", client=None, now=NOW + HOLD_SECONDS)) == ["api", "ap"]


def test_some_requests_still_measure_a_primary_that_is_relieved() -> None:
    fleet = fleet_of(api("api", "us-east-1"), AP)
    measured(fleet, "api", 800, at=NOW - 1, times=MEASURED)
    got = firsts(planner(fleet, model=HYBRID, chance=Random(2).random), affinities=[None] * 2000)
    assert got["api"] == pytest.approx(100, abs=35)


def test_primary_is_judged_by_all_its_backends_together() -> None:
    fleet = fleet_of(api("one", "us-east-1"), api("two", "us-east-1"), AP)
    measured(fleet, "one", 800, at=NOW - 1, times=MEASURED // 2)
    measured(fleet, "two", 800, at=NOW - 1, times=MEASURED // 2)
    assert names(planned(fleet, model=HYBRID))[0] == "ap"


def test_first_tokens_of_the_standby_do_not_count() -> None:
    fleet = fleet_of(api("api", "us-east-1"), AP)
    measured(fleet, "ap", 800, at=NOW - 1, times=MEASURED)
    assert names(planned(fleet, model=HYBRID))[0] == "api"


def test_standby_that_cannot_take_requests_relieves_nobody() -> None:
    fleet = fleet_of(api("api", "us-east-1"), AP)
    measured(fleet, "api", 800, at=NOW - 1, times=MEASURED)
    open_circuit(state(fleet, "ap"))
    assert names(planned(fleet, model=HYBRID)) == ["api", "ap"]


# -- residency -------------------------------------------------------------------------------------------------------


def test_what_stands_outside_is_not_in_the_plan_at_all() -> None:
    fleet = fleet_of(US, EU, pool("nowhere"), pool("spare", "us-east-1", models={"other": "o"}))
    steps = planner(fleet, fallback=("other",)).plan("m", client=None, now=NOW, regions=frozenset({"eu-west-1"}))
    assert names(steps) == ["eu"]


def test_neither_health_nor_load_nor_a_canary_brings_back_what_stands_outside() -> None:
    fleet = fleet_of(US, pool("eu", "eu-west-1", max_concurrency=1), pool("canary", "us-east-1", share=1.0))
    open_circuit(state(fleet, "eu"))
    state(fleet, "eu").in_flight = 1
    steps = planner(fleet, chance=always).plan("m", client=None, now=NOW, regions=frozenset({"eu-west-1"}))
    assert names(steps) == ["eu"]


def test_the_models_own_rule_binds_it_and_its_fallbacks() -> None:
    fleet = fleet_of(US, EU, pool("spare", "us-east-1", models={"other": "o"}))
    model = Model(name="m", regions=("eu-west-1",), fallback=("other",))
    assert names(planned(fleet, model=model)) == ["eu"]


def test_fallback_with_a_rule_of_its_own_keeps_to_both() -> None:
    fleet = fleet_of(
        US, pool("here", "us-east-1", models={"other": "o"}), pool("there", "eu-west-1", models={"other": "o"})
    )
    models = [Model(name="m", fallback=("other",)), Model(name="other", regions=("eu-west-1",))]
    ruled = Planner(fleet, models=models, routing=Routing(), chance=never)
    assert names(ruled.plan("m", client=None, now=NOW)) == ["us", "there"]
    only_here = frozenset({"us-east-1"})
    assert names(ruled.plan("m", client=None, now=NOW, regions=only_here)) == ["us"]


def test_model_that_nobody_serves_where_it_may_be_served_is_refused(fleet: Fleet) -> None:
    with pytest.raises(Forbidden) as caught:
        planner(fleet).plan("m", client=None, now=NOW, regions=frozenset({"sa-east-1", "eu-north-1"}))
    assert caught.value.code == "region_not_allowed"
    assert "no backend that serves 'm' stands in eu-north-1, sa-east-1" in caught.value.message


# -- reasons ---------------------------------------------------------------------------------------------------------


def test_cost_is_the_sum_of_its_parts(fleet: Fleet) -> None:
    for backend in fleet.states:
        backend.in_flight = 99
        backend.on_rtt(900)
        probed(backend, kv_use=0.97)
        backend.offers[0].circuit.on_failure(NOW, "x", begun=NOW)
        measured(fleet, backend.facts.name, 9000, at=NOW, times=2)
    for step in planned(fleet, SAO_PAULO):
        fields = [name for name in Step.__struct_fields__ if name.endswith("_ms") and name not in SUMS]
        parts = [getattr(step, name) for name in fields]
        assert step.cost_ms == pytest.approx(sum(parts))
        assert [name for name, part in zip(fields, parts, strict=True) if not part] == ["price_ms"]


def test_reason_is_one_line_of_ascii(fleet: Fleet) -> None:
    for backend in fleet.states:
        open_circuit(backend, now=NOW - 100)
        backend.in_flight = 99
        backend.on_rtt(900)
        probed(backend, kv_use=0.97)
        measured(fleet, backend.facts.name, 9000, at=NOW, times=2)
    for step in planned(fleet, SAO_PAULO):
        assert reason(step).isascii()
        assert reason(step).isprintable()


def test_models_stand_in_the_order_of_the_configuration() -> None:
    fleet = fleet_of(pool("a", models={"z": "z", "m": "m"}), pool("b", models={"m": "m", "a": "a"}))
    assert fleet.models == ["z", "m", "a"]
    assert [offer.backend.facts.name for offer in fleet.offers("m")] == ["a", "b"]


def test_who_has_just_said_that_it_is_full_goes_behind_all_that_take_requests_but_before_the_ejected() -> None:
    fleet = fleet_of(US, EU, AP, pool("other", models={"chat": "c"}))
    busy, out = fleet.offers("m")[0], fleet.offers("m")[1]
    busy.on_busy(NOW, 7.0)
    for _ in range(3):
        out.on_failure(NOW, "answered 500", begun=NOW, fault=Fault.ANSWER)
    steps = planned(fleet, fallback=("chat",))
    assert names(steps) == ["ap", "other", "us", "eu"]
    assert [step.is_busy for step in steps] == [False, False, True, False]
    assert "says that it is full" in reason(steps[2])
    assert names(planned(fleet, fallback=("chat",), now=NOW + 7.0))[0] == "us"
