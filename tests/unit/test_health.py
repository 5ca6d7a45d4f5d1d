from __future__ import annotations

import pytest

from isochrone.routing.health import (
    CONSECUTIVE_FAILURES,
    DOUBT_SECONDS,
    EJECTION_BASE_SECONDS,
    EJECTION_CAP_SECONDS,
    PROBE_VERDICT_SECONDS,
    Health,
    Standing,
)


@pytest.fixture
def health() -> Health:
    return Health()


def fail(health: Health, *, at: float, begun: float | None = None, times: int = 1, unreachable: bool = False) -> None:
    for _ in range(times):
        health.on_failure(at, "answered 500", unreachable=unreachable, begun=at if begun is None else begun)


def test_new_backend_is_trusted(health: Health) -> None:
    assert health.standing(0) is Standing.HEALTHY
    assert (health.doubts(0), health.retry_in(0)) == (0, 0)


def test_third_failure_in_a_row_ejects(health: Health) -> None:
    fail(health, at=0, times=CONSECUTIVE_FAILURES - 1)
    assert health.standing(0) is Standing.HEALTHY
    fail(health, at=0)
    assert health.standing(0) is Standing.EJECTED
    assert health.retry_in(0) == EJECTION_BASE_SECONDS
    assert health.reason == "answered 500"


def test_success_between_failures_starts_the_count_anew(health: Health) -> None:
    for _ in range(10):
        fail(health, at=0, times=CONSECUTIVE_FAILURES - 1)
        health.on_success(begun=0)
    assert health.standing(0) is Standing.HEALTHY
    assert health.reason == ""


def test_ejection_ends_in_a_trial_whose_success_heals(health: Health) -> None:
    fail(health, at=0, times=3)
    assert health.standing(EJECTION_BASE_SECONDS - 0.01) is Standing.EJECTED
    assert health.standing(EJECTION_BASE_SECONDS) is Standing.TRIAL
    health.on_success(begun=EJECTION_BASE_SECONDS)
    assert health.standing(EJECTION_BASE_SECONDS) is Standing.HEALTHY


def test_trial_that_fails_ejects_for_longer_each_time_up_to_the_cap(health: Health) -> None:
    fail(health, at=0, times=3)
    now, lasted = 0.0, []
    for _ in range(20):
        lasted.append(health.retry_in(now))
        now += health.retry_in(now)
        fail(health, at=now)
    assert lasted[:3] == [5.0, 10.0, 15.0]
    assert lasted[-1] == EJECTION_CAP_SECONDS
    assert lasted == sorted(lasted)


def test_failures_during_an_ejection_do_not_lengthen_it(health: Health) -> None:
    fail(health, at=0, times=3)
    fail(health, at=1, times=50)
    assert health.retry_in(1) == EJECTION_BASE_SECONDS - 1


def test_doubts_expire_so_that_a_backend_gets_its_turn_again(health: Health) -> None:
    fail(health, at=10, times=2)
    assert health.doubts(10) == 2
    assert health.doubts(10 + DOUBT_SECONDS - 0.01) == 2
    assert health.doubts(10 + DOUBT_SECONDS) == 0


def test_ejection_leaves_no_doubts_beside_it(health: Health) -> None:
    fail(health, at=0, times=3)
    assert health.doubts(0) == 0


def test_probe_that_fails_is_decisive_and_so_is_the_next_that_does_not(health: Health) -> None:
    health.on_probe(0, reached=False, reason="cannot be reached")
    assert health.standing(0) is Standing.UNREACHABLE
    assert health.reason == "cannot be reached"
    health.on_probe(0, reached=True)
    assert health.standing(0) is Standing.HEALTHY
    assert health.reason == ""


def test_verdict_of_a_probe_lapses_when_no_probe_confirms_it(health: Health) -> None:
    """A Lambda is frozen between requests, maybe for hours after its last probe."""
    health.on_probe(100, reached=False, reason="gone")
    assert health.standing(99 + PROBE_VERDICT_SECONDS) is Standing.UNREACHABLE
    assert health.standing(100 + PROBE_VERDICT_SECONDS) is Standing.HEALTHY
    health.on_probe(200, reached=False, reason="gone")
    assert health.standing(100 + PROBE_VERDICT_SECONDS) is Standing.UNREACHABLE


def test_verdict_after_one_that_lapsed_is_a_new_one(health: Health) -> None:
    health.on_probe(100, reached=False, reason="gone")
    later = 100 + PROBE_VERDICT_SECONDS
    health.on_probe(later, reached=False, reason="gone")
    health.on_success(begun=later - 1)
    assert health.standing(later) is Standing.UNREACHABLE


def test_probe_ends_an_ejection_for_unreachability_because_it_tested_just_that(health: Health) -> None:
    fail(health, at=0, times=3, unreachable=True)
    assert health.standing(0) is Standing.EJECTED
    health.on_probe(0, reached=True)
    assert health.standing(0) is Standing.HEALTHY


def test_probe_does_not_end_an_ejection_for_bad_answers(health: Health) -> None:
    fail(health, at=0, times=3, unreachable=False)
    health.on_probe(0, reached=True)
    assert health.standing(0) is Standing.EJECTED


def test_answered_attempt_proves_an_unreachable_backend_reachable(health: Health) -> None:
    health.on_probe(0, reached=False, reason="cannot be reached")
    health.on_success(begun=0)
    assert health.standing(0) is Standing.HEALTHY


def test_answer_that_began_before_an_ejection_does_not_end_it(health: Health) -> None:
    fail(health, at=10, times=3)
    health.on_success(begun=9)
    assert health.standing(10) is Standing.EJECTED
    health.on_success(begun=11)
    assert health.standing(11) is Standing.HEALTHY


def test_answer_that_began_before_an_ejection_does_not_end_the_trial_after_it(health: Health) -> None:
    fail(health, at=10, times=3)
    health.on_success(begun=9)
    assert health.standing(10 + EJECTION_BASE_SECONDS) is Standing.TRIAL


def test_answer_that_began_before_a_probe_found_it_gone_does_not_prove_it_reachable(health: Health) -> None:
    health.on_probe(10, reached=False, reason="gone")
    health.on_success(begun=9)
    assert (health.standing(10), health.reason) == (Standing.UNREACHABLE, "gone")


def test_answer_that_began_while_it_was_unreachable_counts_however_many_probes_fail_meanwhile(health: Health) -> None:
    for at in (10, 15, 20):
        health.on_probe(at, reached=False, reason="gone")
    health.on_success(begun=12)
    assert health.standing(20) is Standing.HEALTHY


def test_failure_that_began_before_an_ejection_is_no_failed_trial(health: Health) -> None:
    fail(health, at=10, times=3)
    over = 10 + EJECTION_BASE_SECONDS
    fail(health, at=over + 1, begun=9)
    fail(health, at=over + 1, begun=11)
    assert health.standing(over + 1) is Standing.TRIAL
    fail(health, at=over + 2, begun=over)
    assert health.retry_in(over + 2) == 2 * EJECTION_BASE_SECONDS


def test_failures_that_began_before_an_ejection_do_not_eject_a_backend_that_has_recovered(health: Health) -> None:
    fail(health, at=10, times=3)
    health.on_success(begun=16)
    fail(health, at=17, begun=9, times=CONSECUTIVE_FAILURES)
    assert (health.standing(17), health.doubts(17)) == (Standing.HEALTHY, 0)


def test_connection_that_failed_before_an_ejection_for_bad_answers_does_not_let_a_probe_end_it(health: Health) -> None:
    fail(health, at=10, times=3)
    fail(health, at=11, begun=9, unreachable=True)
    health.on_probe(12, reached=True)
    assert health.standing(12) is Standing.EJECTED


def test_answer_that_began_before_a_row_of_failures_leaves_the_doubt_and_the_row(health: Health) -> None:
    """A sick engine may still finish what it has; that must not draw the next request to it."""
    fail(health, at=10, times=2)
    health.on_success(begun=9)
    assert (health.doubts(10), health.reason) == (2, "answered 500")
    fail(health, at=11)
    assert health.standing(11) is Standing.EJECTED


def test_backend_that_fails_all_new_requests_is_ejected_while_old_streams_end_well(health: Health) -> None:
    for number in range(CONSECUTIVE_FAILURES):
        fail(health, at=1000 + 4 * number)
        health.on_success(begun=990 + number)
    assert health.standing(1000 + 4 * number) is Standing.EJECTED


def test_old_answer_breaks_the_row_where_a_younger_attempt_has_been_heard(health: Health) -> None:
    """Streams last long: of a pool that fails now and then, only first tokens tell soon enough that it still works."""
    fail(health, at=10, times=2)
    health.on_first_token(begun=11)
    health.on_success(begun=9)
    fail(health, at=12)
    assert health.standing(12) is Standing.HEALTHY


def test_first_token_alone_breaks_no_row(health: Health) -> None:
    for at in (10, 11, 12):
        health.on_first_token(begun=at)
        fail(health, at=at)
    assert health.standing(12) is Standing.EJECTED


def test_answer_that_began_within_a_row_of_failures_breaks_it_and_leaves_the_doubt(health: Health) -> None:
    fail(health, at=10)
    fail(health, at=12)
    health.on_success(begun=11)
    health.on_probe(12, reached=True)
    assert (health.doubts(12), health.reason) == (2, "")
    fail(health, at=13)
    assert health.standing(13) is Standing.HEALTHY
    health.on_success(begun=14)
    assert (health.doubts(14), health.reason) == (0, "")


def test_stale_doubts_do_not_add_to_a_new_one(health: Health) -> None:
    fail(health, at=0)
    fail(health, at=DOUBT_SECONDS)
    assert health.doubts(DOUBT_SECONDS) == 1
