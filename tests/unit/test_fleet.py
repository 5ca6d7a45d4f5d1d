from __future__ import annotations

from collections.abc import Sequence

import pytest

from isochrone.routing.circuit import OPEN_BASE_SECONDS, OPEN_CAP_SECONDS, STEADY_SECONDS, CircuitNote
from isochrone.routing.ejection import CONNECTION_FAILURES, EJECTION_BASE_SECONDS, OUTCOMES, EjectionNote
from isochrone.routing.engines import EngineLoad
from isochrone.routing.fleet import LOAD_SECONDS, USUAL_CONCURRENCY, Fleet, Offer, in_panic
from isochrone.routing.health import PROBE_VERDICT_SECONDS, Fault, Standing
from isochrone.routing.probe import Probe
from isochrone.settings import Backend, Deadlines, Model, OwnDeadlines

NOW = 1000.0
TWO = ("a", "b")
PATIENCE = 10.0


def fleet_of(*names: str, models: Sequence[str] = ("m",), max_concurrency: int | None = None) -> Fleet:
    backends = [
        Backend(
            name=name,
            base_url="http://127.0.0.1:9/v1",
            models={model: model for model in models},
            max_concurrency=max_concurrency,
        )
        for name in names
    ]
    return Fleet(backends, edge_region="us-east-1")


def first(fleet: Fleet) -> Offer:
    return fleet.states[0].offers[0]


def fail(offer: Offer, *, at: float = NOW, times: int = 3, fault: Fault = Fault.ANSWER) -> None:
    for _ in range(times):
        offer.on_failure(at, "answered 500", begun=at, fault=fault)


def fail_now_and_then(offer: Offer, *, at: float = NOW) -> None:
    """Every other time: what no circuit notices."""
    for _ in range(OUTCOMES // 2):
        offer.on_success(at, begun=at)
        offer.on_failure(at, "answered 500", begun=at, fault=Fault.ANSWER)


def lost(at: float = NOW) -> Probe:
    return Probe(at, reached=False, reason="no answer to a probe")


def reached(at: float = NOW) -> Probe:
    return Probe(at, reached=True)


# -- what is offered ---------------------------------------------------------------------------------------------------


def test_fleet_lists_who_offers_a_model_in_the_order_of_the_configuration() -> None:
    fleet = fleet_of("a", "b", models=("m", "n"))
    assert fleet.models == ["m", "n"]
    assert [offer.backend.facts.name for offer in fleet.offers("n")] == ["a", "b"]
    assert fleet.offers("x") == ()
    assert [peer.backend.facts.name for peer in first(fleet).peers] == ["a", "b"]


def test_nearest_word_on_a_deadline_counts() -> None:
    facts = Backend(
        name="a", base_url="http://127.0.0.1:9/v1", models={"m": "x", "n": "n"}, deadlines=OwnDeadlines(stall=3)
    )
    model = Model(name="m", deadlines=OwnDeadlines(stall=4, first_token=5))
    fleet = Fleet([facts], edge_region="us-east-1", models=[model], deadlines=Deadlines(total=60))
    (m,), (n,) = fleet.offers("m"), fleet.offers("n")
    assert (m.deadlines.stall, m.deadlines.first_token, m.deadlines.total, m.model_there) == (3, 5, 60, "x")
    assert (n.deadlines.stall, n.deadlines.first_token) == (3, Deadlines().first_token)


# -- standing ----------------------------------------------------------------------------------------------------------


def test_new_offer_is_trusted() -> None:
    offer = first(fleet_of(*TWO))
    assert offer.standing(NOW) is Standing.HEALTHY
    assert offer.takes_requests(NOW)
    assert (offer.was_tried, offer.why(NOW), offer.retry_in(NOW)) == (False, "", 0)


def test_requests_of_other_edges_count_as_the_engine_tells_them() -> None:
    backend = fleet_of("a", max_concurrency=10).states[0]
    backend.in_flight = 2
    backend.on_probe(Probe(NOW, reached=True, load=EngineLoad(running=6, waiting=1)))
    assert backend.present(NOW) == 7
    backend.in_flight = 5
    assert (backend.present(NOW), backend.load(NOW)) == (10, 1.0)
    backend.in_flight = 0
    assert backend.present(NOW) == 5


def test_never_fewer_are_present_than_our_own() -> None:
    backend = fleet_of("a").states[0]
    backend.in_flight = 4
    backend.on_probe(Probe(NOW, reached=True, load=EngineLoad(running=0, waiting=0)))
    assert backend.present(NOW) == 4


def test_what_an_engine_told_of_its_load_is_soon_old() -> None:
    backend = fleet_of("a").states[0]
    backend.in_flight = 1
    backend.on_probe(Probe(NOW, reached=True, load=EngineLoad(running=9)))
    assert (backend.present(NOW + LOAD_SECONDS - 1), backend.present(NOW + LOAD_SECONDS)) == (9, 1)


def test_open_circuit_ejects_one_model_and_leaves_the_others() -> None:
    sick, sound = fleet_of("a", models=("m", "n")).states[0].offers
    fail(sick)
    assert (sick.standing(NOW), sound.standing(NOW)) == (Standing.EJECTED, Standing.HEALTHY)
    assert not sick.takes_requests(NOW)
    assert (sick.why(NOW), sick.retry_in(NOW), sick.was_tried) == ("answered 500", OPEN_BASE_SECONDS, True)


def test_half_open_circuit_takes_one_request_at_a_time() -> None:
    offer = first(fleet_of("a"))
    fail(offer)
    later = NOW + OPEN_BASE_SECONDS
    assert offer.standing(later) is Standing.TRIAL
    assert offer.takes_requests(later)
    offer.circuit.claim_trial(later)
    assert offer.standing(later) is Standing.TRIAL
    assert not offer.takes_requests(later)


def test_probe_that_does_not_get_through_speaks_of_all_models() -> None:
    state = fleet_of("a", models=("m", "n")).states[0]
    fail(state.offers[0])
    state.on_probe(lost())
    assert [offer.standing(NOW) for offer in state.offers] == [Standing.UNREACHABLE] * 2
    assert [offer.why(NOW) for offer in state.offers] == ["no answer to a probe"] * 2
    assert [offer.was_tried for offer in state.offers] == [True] * 2


def test_probe_that_gets_through_makes_it_reachable_at_once() -> None:
    offer = first(fleet_of("a"))
    offer.backend.on_probe(lost())
    offer.backend.on_probe(reached(NOW + 1))
    assert (offer.standing(NOW + 1), offer.why(NOW + 1)) == (Standing.HEALTHY, "")


def test_unreachable_host_is_tried_by_one_request_where_the_next_probe_is_far() -> None:
    """In a Lambda there is a probe each minute; it must not take so long until a pool that is back is used again."""
    offer = first(fleet_of("a"))
    offer.backend.on_probe(lost())
    assert offer.standing(NOW + OPEN_CAP_SECONDS - 0.1) is Standing.UNREACHABLE
    assert offer.standing(NOW + OPEN_CAP_SECONDS) is Standing.TRIAL
    fail(offer, at=NOW + OPEN_CAP_SECONDS, times=1, fault=Fault.UNREACHABLE)
    assert offer.standing(NOW + OPEN_CAP_SECONDS) is Standing.UNREACHABLE
    lapsed = NOW + PROBE_VERDICT_SECONDS
    fail(offer, at=lapsed, times=1, fault=Fault.UNREACHABLE)
    assert (offer.standing(lapsed), offer.why(lapsed)) == (Standing.EJECTED, "answered 500")


def test_probes_that_fail_again_and_again_leave_no_gap() -> None:
    offer = first(fleet_of("a"))
    for at in range(0, 600, 5):
        offer.backend.on_probe(lost(NOW + at))
        assert offer.standing(NOW + at + 4.999) is Standing.UNREACHABLE


def test_probe_is_news_only_when_it_is_later_than_the_last() -> None:
    state = fleet_of("a").states[0]
    state.on_probe(reached())
    state.on_probe(lost())
    assert state.last_probe() == reached()
    state.absorb_probe(lost(NOW + 2), NOW + 1)
    assert state.last_probe() == reached()
    state.absorb_probe(lost(NOW + 2), NOW + 2)
    assert state.last_probe() == lost(NOW + 2)


def test_attempt_that_is_answered_proves_the_host_reachable() -> None:
    offer = first(fleet_of("a"))
    offer.backend.on_probe(lost())
    offer.backend.on_probe(lost(NOW + 5))
    offer.on_first_token(NOW + 6, begun=NOW)
    assert offer.standing(NOW + 6) is Standing.HEALTHY


def test_attempt_from_before_the_probe_that_found_it_gone_proves_nothing() -> None:
    offer = first(fleet_of("a"))
    offer.backend.on_probe(lost())
    offer.on_first_token(NOW + 1, begun=NOW - 1)
    offer.on_success(NOW + 2, begun=NOW - 1)
    assert offer.standing(NOW + 2) is Standing.UNREACHABLE


# -- out of reach ------------------------------------------------------------------------------------------------------


def test_connections_that_do_not_come_about_speak_of_the_host_hence_of_all_its_models() -> None:
    offers = fleet_of("a", models=("m", "n")).states[0].offers
    fail(offers[0], times=2, fault=Fault.UNREACHABLE)
    fail(offers[1], times=1, fault=Fault.UNREACHABLE)
    assert [offer.standing(NOW) for offer in offers] == [Standing.EJECTED] * 2


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER])
def test_what_came_through_to_one_model_speaks_of_that_alone(fault: Fault) -> None:
    offers = fleet_of("a", models=("m", "n")).states[0].offers
    fail(offers[0], fault=fault)
    assert [offer.circuit.failures_in_a_row for offer in offers] == [3, 0]


def test_anything_that_comes_through_ends_for_all_models_that_the_host_was_out_of_reach() -> None:
    for heal in ("first token", "probe", "success"):
        state = fleet_of("a", models=("m", "n")).states[0]
        fail(state.offers[0], fault=Fault.UNREACHABLE)
        if heal == "probe":
            state.on_probe(reached(NOW + 1))
        elif heal == "success":
            state.offers[1].on_success(NOW + 2, begun=NOW + 1)
        else:
            state.offers[1].on_first_token(NOW + 2, begun=NOW + 1)
        assert [offer.standing(NOW + 2) for offer in state.offers] == [Standing.HEALTHY] * 2, heal


def test_probe_does_not_end_what_bad_answers_opened() -> None:
    offer = first(fleet_of("a"))
    fail(offer)
    offer.backend.on_probe(reached(NOW + 1))
    assert offer.standing(NOW + 1) is Standing.EJECTED


def test_probe_that_does_not_get_through_ends_nothing() -> None:
    offer = first(fleet_of("a"))
    fail(offer, fault=Fault.UNREACHABLE)
    offer.backend.on_probe(lost(NOW + 1))
    assert not offer.takes_requests(NOW + 1)


def test_host_that_was_lost_and_found_again_leaves_the_models_that_answer_badly_aside() -> None:
    sick, sound = fleet_of("a", models=("m", "n")).states[0].offers
    fail(sick)
    sick.backend.on_probe(lost(NOW + 1))
    sick.backend.on_probe(reached(NOW + 2))
    assert [offer.standing(NOW + 2) for offer in (sick, sound)] == [Standing.EJECTED, Standing.HEALTHY]
    assert sick.why(NOW + 2) == "answered 500"


# -- ejection ----------------------------------------------------------------------------------------------------------


def test_backend_that_fails_now_and_then_is_ejected_for_all_its_models() -> None:
    offers = fleet_of(*TWO, models=("m", "n")).states[0].offers
    fail_now_and_then(offers[0])
    assert [offer.standing(NOW) for offer in offers] == [Standing.EJECTED] * 2
    assert offers[1].why(NOW) == f"failed 10 of its last {OUTCOMES} requests: answered 500"
    assert offers[1].retry_in(NOW) == EJECTION_BASE_SECONDS
    assert offers[1].standing(NOW + EJECTION_BASE_SECONDS) is Standing.HEALTHY


def test_lost_connections_over_several_models_eject() -> None:
    state = fleet_of(*TWO, models=("m", "n", "o")).states[0]
    for number in range(CONNECTION_FAILURES):
        assert not state.ejection.holds(NOW)
        fail(state.offers[number % 3], times=1, fault=Fault.DROPPED)
    assert state.ejection.holds(NOW)


def test_any_reply_breaks_a_row_of_lost_connections() -> None:
    for reply in ("first token", "refusal"):
        state = fleet_of(*TWO, models=("m", "n", "o")).states[0]
        for number in range(CONNECTION_FAILURES - 1):
            fail(state.offers[number % 3], times=1, fault=Fault.DROPPED)
        if reply == "refusal":
            state.offers[0].on_reply(begun=NOW)
        else:
            state.offers[0].on_first_token(NOW, begun=NOW)
        fail(state.offers[2], times=1, fault=Fault.DROPPED)
        assert not state.ejection.holds(NOW), reply


def test_only_choice_is_never_ejected() -> None:
    offer = first(fleet_of("a"))
    fail_now_and_then(offer)
    assert offer.standing(NOW) is Standing.HEALTHY


def test_backend_that_is_the_only_choice_for_one_of_its_models_is_never_ejected() -> None:
    both, one = ({"m": "m", "n": "n"}, {"m": "m"})
    backends = [
        Backend(name=name, base_url="http://127.0.0.1:9/v1", models=models)
        for name, models in (("a", both), ("b", one))
    ]
    state = Fleet(backends, edge_region="us-east-1").states[0]
    fail_now_and_then(state.offers[0])
    assert not state.ejection.holds(NOW)


def test_second_of_three_is_not_ejected_while_the_first_is() -> None:
    fleet = fleet_of("a", "b", "c")
    offers = fleet.offers("m")
    fail_now_and_then(offers[0])
    fail_now_and_then(offers[1])
    assert [offer.standing(NOW) for offer in offers] == [Standing.EJECTED, Standing.HEALTHY, Standing.HEALTHY]
    fail_now_and_then(offers[1], at=NOW + EJECTION_BASE_SECONDS)
    assert offers[1].standing(NOW + EJECTION_BASE_SECONDS) is Standing.EJECTED


def test_backend_of_sixteen_models_that_nearly_all_fail_goes_on_serving_the_others() -> None:
    """What an open circuit says of one model is not held against the whole backend as well."""
    names = [f"m{number}" for number in range(16)]
    state = fleet_of(*TWO, models=names).states[0]
    for second in range(60):
        now = NOW + second
        for offer in state.offers[:-1]:
            fail(offer, at=now, times=1)
        for _ in range(6):
            state.offers[-1].on_success(now, begun=now)
    assert state.offers[-1].standing(NOW + 60) is Standing.HEALTHY
    assert not state.offers[0].takes_requests(NOW + 60)


def test_ejection_of_another_edge_is_taken_over_under_the_same_condition() -> None:
    fleet = fleet_of(*TWO)
    for state in fleet.states:
        state.absorb_ejection(EjectionNote(NOW, 1, 10.0, "there"), NOW)
    assert [state.ejection.holds(NOW) for state in fleet.states] == [True, False]


def test_ejection_for_being_out_of_reach_that_a_later_probe_ended_is_not_taken_over() -> None:
    note = EjectionNote(NOW, 1, 10.0, "there", unreachable=True)
    for probe_at, holds in ((NOW - 1, True), (NOW + 1, False)):
        state = fleet_of(*TWO).states[0]
        state.on_probe(reached(probe_at))
        state.absorb_ejection(note, NOW + 2)
        assert state.ejection.holds(NOW + 2) is holds
    state = fleet_of(*TWO).states[0]
    state.on_probe(lost(NOW + 1))
    state.absorb_ejection(note, NOW + 2)
    assert state.ejection.holds(NOW + 2)


@pytest.mark.parametrize(("probe_at", "standing"), [(NOW - 1, Standing.EJECTED), (NOW, Standing.HEALTHY)])
def test_circuit_of_another_edge_that_could_not_reach_it_yields_to_a_later_probe(
    probe_at: float, standing: Standing
) -> None:
    offer = first(fleet_of("a"))
    offer.backend.on_probe(reached(probe_at))
    offer.absorb_circuit(CircuitNote(NOW, 1, 4.0, "refused", unreachable=True), NOW)
    assert offer.standing(NOW) is standing


# -- panic -------------------------------------------------------------------------------------------------------------


def test_nothing_ejected_is_no_panic_however_many_are_out() -> None:
    fleet = fleet_of(*TWO)
    for offer in fleet.offers("m"):
        fail(offer)
    assert not in_panic(fleet.offers("m"), NOW)


def test_half_of_the_choices_out_is_no_panic() -> None:
    fleet = fleet_of(*TWO)
    fail_now_and_then(first(fleet))
    assert not in_panic(fleet.offers("m"), NOW)


def test_in_a_panic_ejections_do_not_count_but_open_circuits_and_dead_hosts_do() -> None:
    fleet = fleet_of("a", "b", "c", "d")
    ejected, broken, dead, _ = offers = fleet.offers("m")
    fail_now_and_then(ejected)
    fail(broken)
    assert not in_panic(offers, NOW)
    dead.backend.on_probe(lost())
    assert in_panic(offers, NOW)
    assert [offer.standing(NOW, panic=True) for offer in offers] == [
        Standing.HEALTHY,
        Standing.EJECTED,
        Standing.UNREACHABLE,
        Standing.HEALTHY,
    ]
    assert not ejected.takes_requests(NOW)
    assert ejected.takes_requests(NOW, panic=True)


# -- silence -----------------------------------------------------------------------------------------------------------


def leave(offer: Offer, *, begun: float, after: float) -> str | None:
    return offer.on_left(begun + after, begun=begun, patience=PATIENCE)


def test_caller_who_leaves_after_a_long_silence_is_a_failure() -> None:
    offer = first(fleet_of("a"))
    assert leave(offer, begun=NOW, after=PATIENCE - 0.1) is None
    offer = first(fleet_of("a"))
    assert leave(offer, begun=NOW, after=PATIENCE) == "had said nothing for 10 s when its caller left"
    assert (offer.circuit.failures_in_a_row, offer.why(NOW)) == (1, "had said nothing for 10 s when its caller left")


def test_backend_that_is_silent_to_all_is_ejected_although_each_caller_leaves_early() -> None:
    offer = first(fleet_of("a"))
    told = [leave(offer, begun=NOW + 3 * number, after=3) for number in range(6)]
    assert told[:3] == [None] * 3
    assert told[3] == "had said nothing for 12 s to callers who left"
    assert offer.standing(NOW + 18) is Standing.EJECTED


@pytest.mark.parametrize("answer", ["first token", "success", "refusal"])
def test_anything_that_one_of_them_hears_breaks_the_silence(answer: str) -> None:
    offer = first(fleet_of("a"))
    for number in range(20):
        begun = NOW + 3 * number
        assert leave(offer, begun=begun, after=3) is None
        if answer == "first token":
            offer.on_first_token(begun + 3, begun=begun + 1)
        elif answer == "success":
            offer.on_success(begun + 3, begun=begun + 1)
        else:
            offer.on_reply(begun=begun + 1)
    assert offer.circuit.failures_in_a_row == 0


def test_callers_with_no_patience_at_all_cannot_eject_a_sound_backend() -> None:
    offer = first(fleet_of("a"))
    for number in range(1000):
        assert leave(offer, begun=NOW + 0.5 * number, after=1.9) is None
    assert offer.standing(NOW + 500) is Standing.HEALTHY


# -- load and speed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_concurrency", "places"), [(None, USUAL_CONCURRENCY), (4, 4)])
def test_load_is_the_share_of_places_in_use_or_waited_for(max_concurrency: int | None, places: int) -> None:
    state = fleet_of("a", max_concurrency=max_concurrency).states[0]
    state.in_flight = 3
    assert state.load(NOW) == 3 / places
    state.on_probe(Probe(NOW, reached=True, load=EngineLoad(waiting=5, kv_use=0.5)))
    assert (state.waiting(NOW), state.kv_use(NOW), state.load(NOW)) == (5, 0.5, 8 / places)
    lapsed = NOW + PROBE_VERDICT_SECONDS
    assert (state.waiting(lapsed), state.kv_use(lapsed), state.load(lapsed)) == (0, 0, 3 / places)


def test_probe_that_measured_the_way_counts_for_it() -> None:
    state = fleet_of("a").states[0]
    state.on_probe(Probe(NOW, reached=True, rtt_ms=20.0))
    state.on_probe(Probe(NOW + 1, reached=True, rtt_ms=30.0))
    state.on_probe(Probe(NOW + 2, reached=True))
    assert state.measured_rtt_ms == 20.0


def test_what_attempts_tell_reaches_the_speed() -> None:
    offer = first(fleet_of("a"))
    offer.on_first_token(NOW + 0.5, begun=NOW)
    offer.on_success(NOW + 2, begun=NOW)
    assert offer.speed.first_token_ms(NOW + 0.5) == 500
    assert offer.speed.answer_ms == 2000


def test_recovered_backend_takes_requests_again_within_half_a_minute_however_long_it_was_out() -> None:
    offer = first(fleet_of(*TWO))
    now = NOW
    while now < NOW + 600:
        fail(offer, at=now, times=1)
        now += offer.retry_in(now) or 0.1
    assert offer.retry_in(now) <= OPEN_CAP_SECONDS * 1.1
    assert OPEN_CAP_SECONDS * 1.1 + STEADY_SECONDS < 30


@pytest.mark.parametrize(("wait", "seconds"), [(None, 1.0), (0.0, 0.0), (7.0, 7.0), (25.0, 25.0), (26.0, 25.0)])
def test_offer_that_said_it_is_full_is_busy_for_as_long_as_it_said_within_reason(
    wait: float | None, seconds: float
) -> None:
    offer = first(fleet_of("a"))
    assert offer.busy_until < NOW
    offer.on_busy(NOW, wait)
    assert offer.busy_until == NOW + seconds


def test_later_and_shorter_word_of_being_full_takes_nothing_back() -> None:
    offer = first(fleet_of("a"))
    offer.on_busy(NOW, 7.0)
    offer.on_busy(NOW + 1, 2.0)
    assert offer.busy_until == NOW + 7
