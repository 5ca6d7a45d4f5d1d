from __future__ import annotations

from math import inf

import pytest

from isochrone.routing.circuit import (
    CONSECUTIVE_FAILURES,
    DOUBT_SECONDS,
    JITTER,
    LAPSE_SECONDS,
    OPEN_BASE_SECONDS,
    OPEN_CAP_SECONDS,
    SKEW_SECONDS,
    STEADY_SECONDS,
    TRIAL_SECONDS,
    Circuit,
    CircuitNote,
    State,
    jittered,
)

A_MOMENT = 0.001
HALF_OPEN_AT = 10 + OPEN_BASE_SECONDS


@pytest.fixture
def circuit() -> Circuit:
    return Circuit(lambda: 0.5)


@pytest.fixture
def opened(circuit: Circuit) -> Circuit:
    """Opened at 10, for the first time."""
    fail(circuit, at=10, times=CONSECUTIVE_FAILURES)
    return circuit


def fail(circuit: Circuit, *, at: float, begun: float | None = None, times: int = 1, unreachable: bool = False) -> None:
    for _ in range(times):
        circuit.on_failure(at, "answered 500", begun=at if begun is None else begun, unreachable=unreachable)


def claim(circuit: Circuit, at: float) -> int:
    number = circuit.claim_trial(at)
    assert number is not None
    return number


def note_of(circuit: Circuit) -> CircuitNote:
    note = circuit.export()
    assert note is not None
    return note


# -- closed ------------------------------------------------------------------------------------------------------------


def test_new_circuit_is_closed_and_has_nothing_to_say(circuit: Circuit) -> None:
    assert circuit.state(0) is State.CLOSED
    assert circuit.lets_through(0)
    assert (circuit.doubts(0), circuit.retry_in(0), circuit.reason, circuit.tried) == (0, 0, "", False)
    assert circuit.export() is None


def test_answer_is_a_trial_of_the_backend_too(circuit: Circuit) -> None:
    circuit.on_success(begun=0)
    assert circuit.tried


def test_third_failure_in_a_row_opens(circuit: Circuit) -> None:
    fail(circuit, at=10, times=2)
    assert (circuit.state(10), circuit.failures_in_a_row) == (State.CLOSED, 2)
    fail(circuit, at=11)
    assert (circuit.state(11), circuit.failures_in_a_row) == (State.OPEN, 3)
    assert not circuit.lets_through(11)
    assert circuit.retry_in(11) == OPEN_BASE_SECONDS == 4.0
    assert (circuit.reason, circuit.tried) == ("answered 500", True)


def test_success_between_failures_starts_the_row_anew(circuit: Circuit) -> None:
    for at in range(10):
        fail(circuit, at=at, times=CONSECUTIVE_FAILURES - 1)
        circuit.on_success(begun=at)
    assert (circuit.state(10), circuit.failures_in_a_row, circuit.reason) == (State.CLOSED, 0, "")


def test_answer_that_began_before_a_row_of_failures_leaves_the_doubt_and_the_row(circuit: Circuit) -> None:
    """A sick engine may still finish what it has; that must not draw the next request to it."""
    fail(circuit, at=10, times=2)
    circuit.on_success(begun=10 - A_MOMENT)
    assert (circuit.doubts(10), circuit.reason) == (2, "answered 500")
    fail(circuit, at=11)
    assert circuit.state(11) is State.OPEN


def test_circuit_opens_for_an_engine_that_fails_all_that_is_new_while_old_streams_end_well(circuit: Circuit) -> None:
    for number in range(CONSECUTIVE_FAILURES):
        fail(circuit, at=1000 + 4 * number)
        circuit.on_success(begun=990 + number)
    assert circuit.state(1008) is State.OPEN


def test_old_answer_breaks_the_row_where_a_younger_attempt_has_been_heard(circuit: Circuit) -> None:
    """Streams last long: of a pool that fails now and then, only first tokens tell soon enough that it still works."""
    fail(circuit, at=10, times=2)
    circuit.on_first_token(11.5, begun=11)
    circuit.on_success(begun=9)
    fail(circuit, at=12)
    assert (circuit.state(12), circuit.failures_in_a_row) == (State.CLOSED, 1)


def test_first_token_alone_breaks_no_row(circuit: Circuit) -> None:
    for at in (10, 11, 12):
        circuit.on_first_token(at, begun=at)
        fail(circuit, at=at)
    assert circuit.state(12) is State.OPEN


def test_answer_that_began_within_a_row_of_failures_breaks_it_and_leaves_the_doubt(circuit: Circuit) -> None:
    fail(circuit, at=10)
    fail(circuit, at=12)
    circuit.on_success(begun=11)
    assert (circuit.doubts(12), circuit.reason) == (2, "answered 500")
    fail(circuit, at=13)
    assert (circuit.state(13), circuit.doubts(13)) == (State.CLOSED, CONSECUTIVE_FAILURES - 1)
    circuit.on_success(begun=13)
    assert (circuit.doubts(14), circuit.reason) == (0, "")


def test_doubts_expire_so_that_a_backend_gets_its_turn_again(circuit: Circuit) -> None:
    fail(circuit, at=10, times=2)
    assert circuit.doubts(10 + DOUBT_SECONDS - A_MOMENT) == 2
    assert circuit.doubts(10 + DOUBT_SECONDS) == 0


def test_stale_doubts_do_not_add_to_a_new_one(circuit: Circuit) -> None:
    fail(circuit, at=0)
    fail(circuit, at=DOUBT_SECONDS)
    assert circuit.doubts(DOUBT_SECONDS) == 1


def test_doubts_count_up_to_what_opens_and_none_stand_beside_an_opening(circuit: Circuit) -> None:
    fail(circuit, at=10)
    assert circuit.doubts(10) == 1
    fail(circuit, at=10)
    assert circuit.doubts(10) == 2
    fail(circuit, at=10)
    assert circuit.doubts(10) == 0


# -- open --------------------------------------------------------------------------------------------------------------


def test_failures_while_it_is_open_do_not_lengthen_that(opened: Circuit) -> None:
    fail(opened, at=11, times=50)
    assert opened.retry_in(11) == OPEN_BASE_SECONDS - 1


def test_only_what_began_since_the_opening_says_what_is_wrong_now(opened: Circuit) -> None:
    opened.on_failure(11, "cut its reply short", begun=10 - A_MOMENT)
    assert opened.reason == "answered 500"
    opened.on_failure(11, "cut its reply short", begun=10)
    assert opened.reason == "cut its reply short"


def test_attempt_that_began_while_it_was_open_and_ends_well_closes_it(opened: Circuit) -> None:
    """It was the last resort, and the better witness."""
    opened.on_success(begun=10)
    assert (opened.state(10), opened.failures_in_a_row, opened.retry_in(10)) == (State.CLOSED, 0, 0)
    fail(opened, at=11, times=2)
    assert opened.state(11) is State.CLOSED


def test_attempt_that_began_before_the_opening_says_nothing_any_more(opened: Circuit) -> None:
    opened.on_success(begun=10 - A_MOMENT)
    assert opened.state(10) is State.OPEN
    fail(opened, at=HALF_OPEN_AT + 1, begun=10 - A_MOMENT)
    assert opened.state(HALF_OPEN_AT + 1) is State.HALF_OPEN
    opened.on_success(begun=HALF_OPEN_AT)
    fail(opened, at=HALF_OPEN_AT + 2, begun=10 - A_MOMENT, times=CONSECUTIVE_FAILURES)
    assert (opened.state(20), opened.doubts(HALF_OPEN_AT + 2), opened.failures_in_a_row) == (State.CLOSED, 0, 0)


# -- half-open ---------------------------------------------------------------------------------------------------------


def test_open_circuit_becomes_half_open_when_its_time_is_over(opened: Circuit) -> None:
    assert opened.state(HALF_OPEN_AT - A_MOMENT) is State.OPEN
    assert opened.state(HALF_OPEN_AT) is State.HALF_OPEN
    assert opened.retry_in(HALF_OPEN_AT + 5) == 0


def test_trial_that_is_answered_closes(opened: Circuit) -> None:
    opened.on_success(begun=HALF_OPEN_AT)
    assert opened.state(HALF_OPEN_AT) is State.CLOSED


def test_trial_that_fails_opens_for_longer_each_time_up_to_the_cap(opened: Circuit) -> None:
    now, lasted = 10.0, []
    for _ in range(2000):
        lasted.append(opened.retry_in(now))
        now += opened.retry_in(now)
        fail(opened, at=now)
    assert lasted[:3] == [4.0, 8.0, 12.0]
    assert set(lasted[3:]) == {OPEN_CAP_SECONDS}


def test_next_row_of_openings_begins_short_again(opened: Circuit) -> None:
    fail(opened, at=HALF_OPEN_AT)
    assert opened.retry_in(HALF_OPEN_AT) == 8.0
    opened.on_success(begun=50)
    fail(opened, at=51, times=CONSECUTIVE_FAILURES)
    assert opened.retry_in(51) == 4.0


def test_failure_that_began_while_it_was_open_is_no_failed_trial(opened: Circuit) -> None:
    fail(opened, at=HALF_OPEN_AT + 1, begun=HALF_OPEN_AT - A_MOMENT)
    assert opened.state(HALF_OPEN_AT + 1) is State.HALF_OPEN
    fail(opened, at=HALF_OPEN_AT + 1, begun=HALF_OPEN_AT)
    assert opened.state(HALF_OPEN_AT + 1) is State.OPEN


def test_times_are_varied_by_chance_so_that_edges_do_not_come_back_in_step() -> None:
    assert jittered(10, 0.0) == pytest.approx(9)
    assert jittered(10, 0.5) == pytest.approx(10)
    assert jittered(10, 1.0) == pytest.approx(11)
    circuit = Circuit(lambda: 0.0)
    fail(circuit, at=10, times=3)
    assert circuit.retry_in(10) == pytest.approx(OPEN_BASE_SECONDS * (1 - JITTER))


# -- the trial ---------------------------------------------------------------------------------------------------------


def test_half_open_circuit_gives_one_trial_at_a_time(opened: Circuit) -> None:
    assert opened.lets_through(HALF_OPEN_AT)
    number = claim(opened, HALF_OPEN_AT)
    assert not opened.lets_through(HALF_OPEN_AT)
    assert opened.claim_trial(HALF_OPEN_AT) is None
    opened.free_trial(number, HALF_OPEN_AT)
    assert opened.lets_through(HALF_OPEN_AT)
    assert claim(opened, HALF_OPEN_AT) != number


def test_there_is_no_trial_where_none_is_needed_or_allowed(circuit: Circuit) -> None:
    assert circuit.claim_trial(0) is None
    fail(circuit, at=10, times=3)
    assert circuit.claim_trial(HALF_OPEN_AT - A_MOMENT) is None


def test_neutral_end_of_a_trial_neither_heals_nor_opens(opened: Circuit) -> None:
    opened.free_trial(claim(opened, HALF_OPEN_AT), HALF_OPEN_AT + 1)
    assert opened.state(HALF_OPEN_AT + 1) is State.HALF_OPEN
    assert opened.lets_through(HALF_OPEN_AT + 1)


def test_trial_that_never_ends_frees_itself_and_its_late_end_frees_no_other(opened: Circuit) -> None:
    lost = claim(opened, HALF_OPEN_AT)
    assert not opened.lets_through(HALF_OPEN_AT + TRIAL_SECONDS - A_MOMENT)
    later = HALF_OPEN_AT + TRIAL_SECONDS
    claim(opened, later)
    opened.free_trial(lost, later)
    assert opened.claim_trial(later) is None


def test_failed_trial_is_free_for_the_next_half_open_time(opened: Circuit) -> None:
    number = claim(opened, HALF_OPEN_AT)
    fail(opened, at=HALF_OPEN_AT + 1, begun=HALF_OPEN_AT)
    assert opened.lets_through(HALF_OPEN_AT + 1 + 8)
    opened.free_trial(number, HALF_OPEN_AT + 1)
    assert opened.lets_through(HALF_OPEN_AT + 1 + 8)


def test_trial_that_goes_on_telling_is_believed_before_its_end(opened: Circuit) -> None:
    """Answers of a reasoning model last minutes; a pool must not stand aside for so long."""
    claim(opened, HALF_OPEN_AT)
    heard = HALF_OPEN_AT + 1
    opened.on_first_token(heard, begun=HALF_OPEN_AT)
    opened.on_first_token(heard + 3, begun=HALF_OPEN_AT)
    assert opened.state(heard + STEADY_SECONDS - A_MOMENT) is State.HALF_OPEN
    assert not opened.lets_through(heard + STEADY_SECONDS - A_MOMENT)
    assert opened.state(heard + STEADY_SECONDS) is State.CLOSED
    assert opened.lets_through(heard + STEADY_SECONDS)


def test_one_failure_reopens_what_no_whole_answer_has_closed(opened: Circuit) -> None:
    number = claim(opened, HALF_OPEN_AT)
    opened.on_first_token(HALF_OPEN_AT, begun=HALF_OPEN_AT)
    steady = HALF_OPEN_AT + STEADY_SECONDS
    opened.free_trial(number, steady)
    assert opened.state(steady) is State.CLOSED
    fail(opened, at=steady + 1, begun=steady)
    assert opened.retry_in(steady + 1) == 8.0
    assert opened.state(steady + 1 + 8) is State.HALF_OPEN


def test_trial_that_is_called_off_before_it_was_steady_shows_nothing(opened: Circuit) -> None:
    number = claim(opened, HALF_OPEN_AT)
    opened.on_first_token(HALF_OPEN_AT, begun=HALF_OPEN_AT)
    opened.free_trial(number, HALF_OPEN_AT + STEADY_SECONDS - A_MOMENT)
    assert opened.state(HALF_OPEN_AT + STEADY_SECONDS) is State.HALF_OPEN


def test_only_a_trial_can_be_steady(opened: Circuit) -> None:
    """What began before the circuit was half-open is no witness, and neither is a last resort beside no trial."""
    opened.on_first_token(HALF_OPEN_AT, begun=HALF_OPEN_AT)
    assert opened.state(HALF_OPEN_AT + STEADY_SECONDS) is State.HALF_OPEN
    claim(opened, HALF_OPEN_AT + STEADY_SECONDS)
    opened.on_first_token(HALF_OPEN_AT + STEADY_SECONDS, begun=HALF_OPEN_AT - A_MOMENT)
    assert opened.state(HALF_OPEN_AT + 2 * STEADY_SECONDS) is State.HALF_OPEN


def test_steadiness_of_an_earlier_row_of_openings_is_forgotten(opened: Circuit) -> None:
    claim(opened, HALF_OPEN_AT)
    opened.on_first_token(HALF_OPEN_AT, begun=HALF_OPEN_AT)
    opened.on_success(begun=HALF_OPEN_AT)
    fail(opened, at=100, times=CONSECUTIVE_FAILURES)
    assert opened.state(100 + OPEN_BASE_SECONDS) is State.HALF_OPEN
    assert opened.lets_through(100 + OPEN_BASE_SECONDS)


def test_steadiness_before_a_success_says_nothing_after_a_probe_that_was_lost(opened: Circuit) -> None:
    claim(opened, HALF_OPEN_AT)
    opened.on_first_token(HALF_OPEN_AT, begun=HALF_OPEN_AT)
    opened.on_success(begun=HALF_OPEN_AT)
    opened.on_lost(100, "no answer")
    assert opened.state(100 + OPEN_CAP_SECONDS) is State.HALF_OPEN


# -- out of reach ------------------------------------------------------------------------------------------------------


def test_way_through_mends_what_was_a_failure_to_reach_it(circuit: Circuit) -> None:
    fail(circuit, at=10, times=3, unreachable=True)
    circuit.on_reached(10 - A_MOMENT)
    assert circuit.state(10) is State.OPEN
    circuit.on_reached(10)
    assert (circuit.state(10), circuit.failures_in_a_row, circuit.reason) == (State.CLOSED, 0, "")
    assert not circuit.failed_to_reach


def test_way_through_takes_back_the_doubts_of_a_failure_to_reach_it(circuit: Circuit) -> None:
    fail(circuit, at=10, unreachable=True)
    circuit.on_reached(10)
    assert circuit.doubts(10) == 0


def test_way_through_does_not_mend_bad_answers(opened: Circuit) -> None:
    """An engine that accepts connections and then hangs would be let back in at once."""
    opened.on_reached(11)
    assert (opened.state(11), opened.reason) == (State.OPEN, "answered 500")


def test_last_failure_says_whether_it_was_out_of_reach(circuit: Circuit) -> None:
    fail(circuit, at=10, times=2, unreachable=True)
    fail(circuit, at=11)
    circuit.on_reached(12)
    assert circuit.state(12) is State.OPEN
    fail(circuit, at=13, begun=9, unreachable=True)
    circuit.on_reached(14)
    assert circuit.state(14) is State.OPEN


def test_one_probe_that_did_not_get_through_opens(circuit: Circuit) -> None:
    circuit.on_lost(10, "no answer")
    assert (circuit.state(10), circuit.reason) == (State.OPEN, "no answer")
    assert circuit.retry_in(10) == OPEN_CAP_SECONDS
    circuit.on_reached(10)
    assert circuit.state(10) is State.CLOSED


def test_each_further_probe_that_did_not_get_through_keeps_it_open(circuit: Circuit) -> None:
    for at in (10, 15, 20):
        circuit.on_lost(at, "no answer")
    assert circuit.retry_in(20) == OPEN_CAP_SECONDS
    assert circuit.state(20 + OPEN_CAP_SECONDS) is State.HALF_OPEN
    fail(circuit, at=20 + OPEN_CAP_SECONDS)
    assert circuit.retry_in(20 + OPEN_CAP_SECONDS) == 2 * OPEN_BASE_SECONDS


def test_attempt_since_the_first_probe_that_was_lost_counts_however_many_are_lost_meanwhile(circuit: Circuit) -> None:
    for at in (10, 15, 20):
        circuit.on_lost(at, "no answer")
    circuit.on_success(begun=10 - A_MOMENT)
    assert circuit.state(20) is State.OPEN
    circuit.on_success(begun=10)
    assert circuit.state(20) is State.CLOSED


def test_lost_probe_shortens_nothing_and_excuses_no_bad_answers(opened: Circuit) -> None:
    fail(opened, at=HALF_OPEN_AT)
    fail(opened, at=HALF_OPEN_AT + 8)
    until = HALF_OPEN_AT + 8 + 12
    opened.on_lost(until - OPEN_CAP_SECONDS - 1, "no answer")
    assert (opened.retry_in(until - 12), opened.reason) == (12.0, "answered 500")
    opened.on_lost(until - 11, "no answer")
    assert opened.retry_in(until - 11) == OPEN_CAP_SECONDS
    opened.on_reached(until - 10)
    assert opened.state(until - 10) is State.OPEN


# -- notes -------------------------------------------------------------------------------------------------------------


def test_opening_travels_from_edge_to_edge(
    opened: Circuit,
) -> None:
    note = note_of(opened)
    assert note == CircuitNote(10, 1, OPEN_BASE_SECONDS, "answered 500")
    other = Circuit(lambda: 0.5)
    other.absorb(note, 11)
    assert (other.state(11), other.retry_in(11), other.reason) == (State.OPEN, 3.0, "answered 500")
    assert other.export() == note
    fail(other, at=HALF_OPEN_AT)
    assert other.retry_in(HALF_OPEN_AT) == 8.0


def test_closing_travels_from_edge_to_edge(opened: Circuit) -> None:
    other = Circuit(lambda: 0.5)
    other.absorb(note_of(opened), 11)
    other.on_success(begun=15)
    assert note_of(other) == CircuitNote(15)
    opened.absorb(CircuitNote(15), 16)
    assert (opened.state(16), opened.failures_in_a_row, opened.reason) == (State.CLOSED, 0, "")


def test_closing_elsewhere_leaves_the_reason_of_a_later_failure_here(opened: Circuit) -> None:
    fail(opened, at=12)
    opened.absorb(CircuitNote(11), 12)
    assert (opened.state(12), opened.reason) == (State.CLOSED, "answered 500")
    fail(opened, at=13, times=CONSECUTIVE_FAILURES)
    fail(opened, at=14)
    opened.absorb(CircuitNote(14), 14)
    assert (opened.state(14), opened.reason) == (State.CLOSED, "")


def test_older_news_is_no_news(opened: Circuit) -> None:
    opened.absorb(CircuitNote(10), 11)
    assert opened.state(11) is State.OPEN
    opened.on_success(begun=12)
    opened.absorb(CircuitNote(12, 5, 12.0), 12)
    assert opened.state(12) is State.CLOSED
    opened.absorb(CircuitNote(12 + A_MOMENT, 5, 12.0), 13)
    assert opened.state(13) is State.OPEN


def test_what_was_answered_here_since_speaks_against_an_opening_elsewhere(circuit: Circuit) -> None:
    circuit.on_success(begun=11)
    circuit.absorb(CircuitNote(11, 1, 4.0), 12)
    assert circuit.state(12) is State.CLOSED
    circuit.absorb(CircuitNote(11 + A_MOMENT, 1, 4.0), 12)
    assert circuit.state(12) is State.OPEN


def test_clock_that_is_wrong_by_minutes_locks_nobody_out(circuit: Circuit) -> None:
    circuit.absorb(CircuitNote(100 + SKEW_SECONDS + A_MOMENT, 1, 12.0), 100)
    assert circuit.state(101) is State.CLOSED
    circuit.absorb(CircuitNote(100 - 12 - LAPSE_SECONDS, 1, 12.0), 100)
    assert circuit.state(100) is State.CLOSED
    circuit.absorb(CircuitNote(100 - 12 - LAPSE_SECONDS + A_MOMENT, 1, 12.0), 100)
    assert circuit.state(100) is State.HALF_OPEN
    circuit.absorb(CircuitNote(100 + SKEW_SECONDS, 1, inf), 100)
    assert circuit.retry_in(100) == pytest.approx(SKEW_SECONDS + OPEN_CAP_SECONDS * (1 + JITTER))


def test_absorbed_opening_gives_a_trial_of_its_own(opened: Circuit) -> None:
    claim(opened, HALF_OPEN_AT)
    opened.absorb(CircuitNote(HALF_OPEN_AT + 1, 2, 8.0), HALF_OPEN_AT + 1)
    assert opened.lets_through(HALF_OPEN_AT + 1 + 8)


def test_absorbed_failure_to_reach_is_mended_by_a_way_through(circuit: Circuit) -> None:
    circuit.absorb(CircuitNote(10, 1, 4.0, "refused", unreachable=True), 10)
    assert note_of(circuit) == CircuitNote(10, 1, 4.0, "refused", unreachable=True)
    circuit.on_reached(10 - A_MOMENT)
    assert circuit.state(10) is State.OPEN
    circuit.on_reached(10)
    assert circuit.state(10) is State.CLOSED
