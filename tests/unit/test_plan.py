from __future__ import annotations

from typing import Any

import pytest

from isochrone.routing.fleet import BRISK_MS, UNKNOWN_RTT_MS, BackendState, Fleet
from isochrone.routing.geo import Location
from isochrone.routing.health import PROBE_VERDICT_SECONDS
from isochrone.routing.plan import DOUBT_MS, Near, Step, plan, reason
from isochrone.settings import Backend

TOKYO = Location(35.68, 139.69, "JP", "Tokyo")
FRANKFURT = Location(50.11, 8.68, "DE", "Frankfurt am Main")
SAO_PAULO = Location(-23.55, -46.63, "BR", "São Paulo")
NOW = 1000.0


def pool(name: str, region: str | None = None, **more: Any) -> Backend:
    return Backend(name=name, region=region, base_url="http://127.0.0.1:9", **{"models": {"m": "m-there"}, **more})


US, EU, AP = pool("us", "us-east-1"), pool("eu", "eu-west-1"), pool("ap", "ap-southeast-1")


@pytest.fixture
def fleet() -> Fleet:
    return Fleet([US, EU, AP], edge_region="us-east-1")


def planned(
    fleet: Fleet,
    client: Location | None = None,
    *,
    model: str = "m",
    fallback: tuple[str, ...] = (),
    near: Near = "client",
    now: float = NOW,
) -> list[Step]:
    return plan(model, fallback, fleet, client=client, near=near, now=now)


def names(steps: list[Step]) -> list[str]:
    return [step.backend.facts.name for step in steps]


def state(fleet: Fleet, name: str) -> BackendState:
    return next(state for state in fleet.states if state.facts.name == name)


def eject(backend: BackendState, now: float = NOW) -> None:
    for _ in range(3):
        backend.health.on_failure(now, "answered 500", unreachable=False, begun=now)


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


def test_backend_without_a_place_costs_the_unknown(fleet: Fleet) -> None:
    placeless = Fleet([EU, pool("placeless")], edge_region="us-east-1")
    step = next(step for step in planned(placeless, FRANKFURT) if step.backend.facts.name == "placeless")
    assert (step.network_ms, step.network_from) == (UNKNOWN_RTT_MS, "edge")


def test_step_names_the_model_as_its_backend_knows_it(fleet: Fleet) -> None:
    assert planned(fleet)[0].model_there == "m-there"


def test_model_that_nobody_serves_has_an_empty_plan(fleet: Fleet) -> None:
    assert planned(fleet, model="other") == []


def test_ejected_backend_goes_last_but_not_away(fleet: Fleet) -> None:
    eject(state(fleet, "ap"))
    steps = planned(fleet, TOKYO)
    assert names(steps)[-1] == "ap"
    assert len(steps) == 3
    assert reason(steps[-1]).startswith("ejected")


def test_unreachable_backend_goes_last_but_not_away(fleet: Fleet) -> None:
    state(fleet, "ap").health.on_probe(NOW, reached=False, reason="gone")
    assert names(planned(fleet, TOKYO))[-1] == "ap"


def test_when_all_are_ejected_the_nearest_comes_first_again(fleet: Fleet) -> None:
    for backend in fleet.states:
        eject(backend)
    assert names(planned(fleet, TOKYO))[0] == "ap"


def test_backend_on_trial_gets_one_request_at_a_time(fleet: Fleet) -> None:
    tried = state(fleet, "ap")
    eject(tried, now=NOW - 100)
    assert names(planned(fleet, TOKYO))[0] == "ap"
    tried.trials = 1
    assert names(planned(fleet, TOKYO))[-1] == "ap"
    tried.trials = 0
    assert names(planned(fleet, TOKYO))[0] == "ap"


def test_streams_from_before_an_ejection_do_not_keep_a_backend_from_its_trial(fleet: Fleet) -> None:
    eject(state(fleet, "ap"), now=NOW - 100)
    state(fleet, "ap").in_flight = 3
    assert names(planned(fleet, TOKYO))[0] == "ap"


def test_fallbacks_come_after_every_backend_of_the_model_and_in_their_order() -> None:
    fleet = Fleet(
        [
            pool("second", "us-east-1", models={"fallback-2": "x"}),
            pool("first", "us-east-1", models={"fallback-1": "x"}),
            pool("far", "ap-southeast-1"),
        ],
        edge_region="us-east-1",
    )
    steps = planned(fleet, fallback=("fallback-1", "fallback-2"))
    assert names(steps) == ["far", "first", "second"]
    assert [step.model for step in steps] == ["m", "fallback-1", "fallback-2"]


def test_official_api_is_the_last_resort_even_when_it_is_nearer() -> None:
    api = pool("api", "us-east-1", kind="api")
    fleet = Fleet([api, AP], edge_region="us-east-1")
    steps = planned(fleet)
    assert names(steps) == ["ap", "api"]
    assert "official API, the last resort" in reason(steps[1])


def test_healthy_api_comes_before_an_ejected_pool() -> None:
    fleet = Fleet([pool("api", kind="api"), AP], edge_region="us-east-1")
    eject(state(fleet, "ap"))
    assert names(planned(fleet)) == ["api", "ap"]


def test_queue_moves_a_backend_behind_a_far_one_with_room(fleet: Fleet) -> None:
    state(fleet, "us").in_flight = 32
    steps = planned(fleet)
    assert names(steps) == ["eu", "ap", "us"]
    assert "load 100%" in reason(steps[-1])


def test_requests_that_wait_in_the_engine_count_as_load(fleet: Fleet) -> None:
    state(fleet, "us").on_probe(NOW, reached=True, waiting=40)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert "load 125%" in reason(steps[-1])


def test_queue_that_no_probe_has_seen_of_late_counts_no_longer(fleet: Fleet) -> None:
    state(fleet, "us").on_probe(NOW, reached=True, waiting=40)
    later = NOW + PROBE_VERDICT_SECONDS
    assert names(planned(fleet, now=later - 1))[-1] == "us"
    assert names(planned(fleet, now=later))[0] == "us"
    assert (state(fleet, "us").waiting(NOW), state(fleet, "us").waiting(later)) == (40, 0)


def test_backend_found_unreachable_hours_ago_is_asked_again(fleet: Fleet) -> None:
    state(fleet, "ap").on_probe(NOW, reached=False, reason="gone")
    assert names(planned(fleet, TOKYO, now=NOW + 7200))[0] == "ap"


def test_some_load_does_not_move_a_backend_behind_a_far_one(fleet: Fleet) -> None:
    state(fleet, "us").in_flight = 31
    assert names(planned(fleet))[0] == "us"


def test_doubt_moves_a_backend_back_and_expires(fleet: Fleet) -> None:
    state(fleet, "us").health.on_failure(NOW, "answered 500", unreachable=False, begun=NOW)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert steps[-1].doubt_ms == DOUBT_MS
    assert "failed just now" in reason(steps[-1])
    assert names(planned(fleet, now=NOW + 60))[0] == "us"


def test_slow_first_tokens_move_a_backend_back_and_fade(fleet: Fleet) -> None:
    for _ in range(2):
        state(fleet, "us").on_first_token(BRISK_MS + 3000, now=NOW)
    steps = planned(fleet)
    assert names(steps)[-1] == "us"
    assert "slower than brisk" in reason(steps[-1])
    assert names(planned(fleet, now=NOW + 60))[0] == "us"


def test_brisk_first_tokens_change_nothing(fleet: Fleet) -> None:
    state(fleet, "us").on_first_token(BRISK_MS, now=NOW)
    assert planned(fleet)[0].slowness_ms == 0


def test_measured_detour_on_the_way_counts_beside_the_clients_distance(fleet: Fleet) -> None:
    backend = state(fleet, "eu")
    backend.on_rtt(backend.expected_rtt_ms + 400)
    steps = planned(fleet, FRANKFURT)
    assert names(steps)[0] == "us"
    assert "slower than expected" in reason(steps[-1])


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


def test_first_token_rises_with_the_second_in_a_row_and_falls_slowly() -> None:
    backend = BackendState(US, edge_region="us-east-1")
    assert backend.first_token_ms(NOW) is None
    backend.on_first_token(100, now=NOW)
    backend.on_first_token(900, now=NOW)
    assert backend.first_token_ms(NOW) == 100
    backend.on_first_token(1000, now=NOW)
    assert backend.first_token_ms(NOW) == 900
    backend.on_first_token(100, now=NOW)
    assert 100 < (backend.first_token_ms(NOW) or 0) < 900
    assert (backend.first_token_ms(NOW + 600) or 0) < 1


def test_equal_costs_are_ordered_by_name_so_that_a_plan_can_be_told_again() -> None:
    fleet = Fleet([pool("b", "us-east-1"), pool("a", "us-east-1")], edge_region="us-east-1")
    assert names(planned(fleet)) == ["a", "b"]


def test_reason_is_one_line_of_ascii(fleet: Fleet) -> None:
    for backend in fleet.states:
        eject(backend, now=NOW - 100)
        backend.in_flight = 99
        backend.on_rtt(900)
        backend.on_first_token(9000, now=NOW)
    for step in planned(fleet, SAO_PAULO):
        assert reason(step).isascii()
        assert reason(step).isprintable()


def test_models_stand_in_the_order_of_the_configuration() -> None:
    fleet = Fleet([pool("a", models={"z": "z", "m": "m"}), pool("b", models={"m": "m", "a": "a"})], edge_region="x")
    assert fleet.models == ["z", "m", "a"]
    assert [state.facts.name for state in fleet.serving("m")] == ["a", "b"]
