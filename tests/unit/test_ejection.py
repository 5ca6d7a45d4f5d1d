from __future__ import annotations

from math import inf

import pytest

from isochrone.routing.circuit import JITTER, LAPSE_SECONDS, SKEW_SECONDS
from isochrone.routing.ejection import (
    CONNECTION_FAILURES,
    DECAY_SECONDS,
    EJECTION_BASE_SECONDS,
    EJECTION_CAP_SECONDS,
    OUTCOMES,
    WINDOW_SECONDS,
    Ejection,
    EjectionNote,
    may_eject,
    panics,
)
from isochrone.routing.health import Fault

A_MOMENT = 0.001


@pytest.fixture
def ejection() -> Ejection:
    return Ejection(lambda: 0.5)


def tell(ejection: Ejection, *, at: float, successes: int = 0, failures: int = 0, fault: Fault = Fault.ANSWER) -> None:
    for _ in range(successes):
        ejection.on_success(at, begun=at)
    for _ in range(failures):
        ejection.on_failure(at, begun=at, fault=fault)


def note_of(ejection: Ejection) -> EjectionNote:
    note = ejection.export()
    assert note is not None
    return note


# -- when it is due ----------------------------------------------------------------------------------------------------


def test_new_backend_is_trusted(ejection: Ejection) -> None:
    assert (ejection.due(), ejection.holds(0), ejection.retry_in(0), ejection.reason) == ("", False, 0, "")
    assert ejection.export() is None


def test_less_than_four_fifths_of_twenty_outcomes_are_too_few(ejection: Ejection) -> None:
    tell(ejection, at=10, successes=15, failures=4)
    assert ejection.due() == ""
    tell(ejection, at=10, failures=1)
    assert ejection.due() == "failed 5 of its last 20 requests"


def test_four_fifths_are_enough(ejection: Ejection) -> None:
    tell(ejection, at=10, successes=16, failures=4)
    assert ejection.due() == ""
    for _ in range(200):  # 28 of 35 among them, where floats would err
        tell(ejection, at=10, successes=4, failures=1)
        assert ejection.due() == ""


def test_a_little_less_than_four_fifths_are_too_few(ejection: Ejection) -> None:
    tell(ejection, at=10, successes=159, failures=40)
    assert ejection.due() == "failed 40 of its last 199 requests"
    tell(ejection, at=10, successes=1)
    assert ejection.due() == ""


def test_nineteen_outcomes_say_too_little(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=OUTCOMES - 1)
    assert ejection.due() == ""
    tell(ejection, at=10, failures=1)
    assert ejection.due() == "failed 20 of its last 20 requests"


def test_outcomes_count_for_half_a_minute(ejection: Ejection) -> None:
    tell(ejection, at=100, failures=OUTCOMES - 1)
    tell(ejection, at=100 + WINDOW_SECONDS - A_MOMENT, successes=1)
    assert ejection.due()
    ejection = Ejection(lambda: 0.5)
    tell(ejection, at=100, failures=OUTCOMES - 1)
    tell(ejection, at=100 + WINDOW_SECONDS, successes=1)
    assert ejection.due() == ""


def test_successes_leave_the_window_as_failures_do(ejection: Ejection) -> None:
    tell(ejection, at=100, successes=1000)
    tell(ejection, at=110, failures=10)
    tell(ejection, at=120, failures=10)
    assert ejection.due() == ""
    tell(ejection, at=100 + WINDOW_SECONDS, failures=1)
    assert ejection.due() == "failed 21 of its last 21 requests"


def test_memory_is_bounded_however_much_is_told(ejection: Ejection) -> None:
    for at in range(1000):
        tell(ejection, at=at, successes=3, failures=1)
    outcomes = ejection.outcomes
    assert len(outcomes._buckets) <= WINDOW_SECONDS / 2
    assert outcomes.successes + outcomes.failures == 4 * WINDOW_SECONDS


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.DROPPED])
def test_fifth_lost_connection_in_a_row_is_too_many(ejection: Ejection, fault: Fault) -> None:
    tell(ejection, at=10, failures=CONNECTION_FAILURES - 1, fault=fault)
    assert ejection.due() == ""
    tell(ejection, at=11, failures=1, fault=fault)
    assert ejection.due() == "lost 5 connections in a row"


def test_bad_answers_in_a_row_are_for_the_circuit_to_judge(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=OUTCOMES - 1)
    assert ejection.due() == ""


@pytest.mark.parametrize("lost_at_the_end", [CONNECTION_FAILURES - 1, CONNECTION_FAILURES])
def test_attempt_that_came_through_breaks_the_row_of_lost_connections(ejection: Ejection, lost_at_the_end: int) -> None:
    tell(ejection, at=10, failures=4, fault=Fault.DROPPED)
    ejection.on_connected(begun=10)
    tell(ejection, at=11, failures=lost_at_the_end, fault=Fault.DROPPED)
    assert bool(ejection.due()) == (lost_at_the_end == CONNECTION_FAILURES)


def test_attempt_that_began_between_lost_connections_breaks_their_row(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=2, fault=Fault.DROPPED)
    tell(ejection, at=12, failures=2, fault=Fault.DROPPED)
    ejection.on_connected(begun=11)
    tell(ejection, at=13, failures=1, fault=Fault.DROPPED)
    assert ejection.due() == ""


def test_bad_answer_breaks_the_row_of_lost_connections(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=4, fault=Fault.DROPPED)
    tell(ejection, at=10, failures=1)
    tell(ejection, at=10, failures=4, fault=Fault.DROPPED)
    assert ejection.due() == ""


def test_connection_from_before_the_first_that_was_lost_breaks_no_row(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=4, fault=Fault.DROPPED)
    ejection.on_connected(begun=10 - A_MOMENT)
    tell(ejection, at=11, failures=1, fault=Fault.DROPPED)
    assert ejection.due()


# -- while it lasts ----------------------------------------------------------------------------------------------------


def test_ejection_ends_by_itself(ejection: Ejection) -> None:
    ejection.eject(10, "failed too often")
    assert ejection.reason == "failed too often"
    assert ejection.holds(10)
    assert ejection.retry_in(12) == EJECTION_BASE_SECONDS - 2
    assert ejection.holds(10 + EJECTION_BASE_SECONDS - A_MOMENT)
    assert not ejection.holds(10 + EJECTION_BASE_SECONDS)
    assert ejection.retry_in(100) == 0


def test_each_ejection_is_longer_up_to_the_cap(ejection: Ejection) -> None:
    now, lasted = 10.0, []
    for _ in range(5):
        ejection.eject(now, "why")
        lasted.append(ejection.retry_in(now))
        now += ejection.retry_in(now)
    assert lasted == [10.0, 20.0, 25.0, 25.0, 25.0]
    assert EJECTION_CAP_SECONDS * (1 + JITTER) < 30


def test_calm_half_minute_takes_back_one_step(ejection: Ejection) -> None:
    ejection.eject(100, "why")
    ejection.eject(110, "why")
    assert ejection.retry_in(110) == 20.0
    ejection.eject(130 + DECAY_SECONDS - A_MOMENT, "why")
    assert ejection.retry_in(130 + DECAY_SECONDS - A_MOMENT) == 25.0
    over = 130 + DECAY_SECONDS - A_MOMENT + 25
    ejection.eject(over + DECAY_SECONDS, "why")
    assert note_of(ejection).times == 3
    over = over + DECAY_SECONDS + 25
    ejection.eject(over + 100 * DECAY_SECONDS, "why")
    assert note_of(ejection).times == 1
    assert note_of(ejection).seconds == pytest.approx(10.0)


def test_ejections_are_varied_by_chance() -> None:
    ejection = Ejection(lambda: 0.0)
    ejection.eject(0, "why")
    assert ejection.retry_in(0) == pytest.approx(EJECTION_BASE_SECONDS * (1 - JITTER))


def test_what_was_counted_before_an_ejection_is_settled_by_it(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=OUTCOMES, fault=Fault.DROPPED)
    ejection.eject(10, ejection.due())
    assert ejection.due() == ""
    tell(ejection, at=20, failures=CONNECTION_FAILURES - 1, fault=Fault.DROPPED)
    assert ejection.due() == ""


def test_what_began_before_an_ejection_was_over_is_not_counted(ejection: Ejection) -> None:
    ejection.eject(10, "why")
    for _ in range(OUTCOMES):
        ejection.on_failure(21, begun=20 - A_MOMENT, fault=Fault.DROPPED)
        ejection.on_success(21, begun=20 - A_MOMENT)
    assert (ejection.due(), ejection.outcomes.successes) == ("", 0)
    ejection.on_success(21, begun=20)
    for _ in range(OUTCOMES - 1):
        ejection.on_failure(21, begun=20, fault=Fault.ANSWER)
    assert ejection.due() == "failed 19 of its last 20 requests"


def test_way_through_ends_an_ejection_for_being_out_of_reach(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=CONNECTION_FAILURES, fault=Fault.UNREACHABLE)
    ejection.eject(10, "why")
    ejection.on_reached(10 - A_MOMENT)
    assert ejection.holds(10)
    ejection.on_reached(10)
    assert not ejection.holds(10)
    ejection.on_reached(30)
    assert note_of(ejection).seconds == 0


@pytest.mark.parametrize("fault", [Fault.DROPPED, Fault.ANSWER])
def test_way_through_does_not_end_other_ejections(ejection: Ejection, fault: Fault) -> None:
    tell(ejection, at=10, failures=1, fault=Fault.UNREACHABLE)
    tell(ejection, at=10, failures=OUTCOMES, fault=fault)
    ejection.eject(10, "why")
    ejection.on_reached(11)
    assert ejection.holds(11)


# -- notes -------------------------------------------------------------------------------------------------------------


def test_ejection_travels_from_edge_to_edge(ejection: Ejection) -> None:
    tell(ejection, at=10, failures=CONNECTION_FAILURES, fault=Fault.UNREACHABLE)
    ejection.eject(10, "lost")
    note = note_of(ejection)
    assert note == EjectionNote(10, 1, EJECTION_BASE_SECONDS, "lost", unreachable=True)
    other = Ejection(lambda: 0.5)
    other.absorb(note, 11)
    assert (other.retry_in(11), other.reason) == (9.0, "lost")
    assert note_of(other) == note
    other.on_reached(12)
    other.eject(13, "again")
    assert other.retry_in(13) == 20.0


def test_older_news_is_no_news(ejection: Ejection) -> None:
    ejection.eject(10, "here")
    ejection.absorb(EjectionNote(10, 5, 25.0, "there"), 11)
    assert ejection.reason == "here"
    ejection.absorb(EjectionNote(10 + A_MOMENT, 5, 25.0, "there"), 11)
    assert ejection.reason == "there"


def test_clock_that_is_wrong_by_minutes_locks_nobody_out(ejection: Ejection) -> None:
    ejection.absorb(EjectionNote(100 + SKEW_SECONDS + A_MOMENT, 1, 10.0, "ahead"), 100)
    ejection.absorb(EjectionNote(100 - 10 - LAPSE_SECONDS, 1, 10.0, "long over"), 100)
    assert ejection.export() is None
    ejection.absorb(EjectionNote(100 - 10 - LAPSE_SECONDS + A_MOMENT, 1, 10.0, "not so long over"), 100)
    assert ejection.export() is not None
    ejection.absorb(EjectionNote(100, 1, inf, "for ever"), 100)
    assert ejection.retry_in(100) == pytest.approx(EJECTION_CAP_SECONDS * (1 + JITTER))


# -- how many ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choices", "at_most"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (20, 10)])
def test_never_more_than_half_of_the_choices_are_ejected_and_never_the_only_one(choices: int, at_most: int) -> None:
    ejected = 0
    while may_eject(ejected, choices):
        ejected += 1
    assert ejected == at_most


@pytest.mark.parametrize(
    ("refusing", "choices", "panic"), [(0, 1, False), (1, 1, True), (1, 2, False), (2, 3, True), (2, 4, False)]
)
def test_panic_begins_when_more_than_half_refuse(refusing: int, choices: int, panic: bool) -> None:
    assert panics(refusing, choices) is panic
