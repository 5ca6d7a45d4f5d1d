from __future__ import annotations

import pytest

from isochrone.routing.health import PROBE_VERDICT_SECONDS, ProbeVerdict
from isochrone.routing.probe import Probe

A_MOMENT = 0.001


@pytest.fixture
def verdict() -> ProbeVerdict:
    return ProbeVerdict()


def lost(at: float) -> Probe:
    return Probe(at, reached=False, reason="no answer")


def reached(at: float) -> Probe:
    return Probe(at, reached=True)


def test_backend_that_no_probe_has_seen_is_trusted(verdict: ProbeVerdict) -> None:
    assert verdict.reached
    assert not verdict.is_there
    assert not verdict.is_against(0)


def test_probe_that_fails_is_decisive_and_so_is_the_next_that_does_not(verdict: ProbeVerdict) -> None:
    verdict.on_probe(lost(10))
    assert verdict.is_there
    assert verdict.is_against(10)
    assert verdict.last.reason == "no answer"
    verdict.on_probe(reached(15))
    assert not verdict.is_against(15)


def test_verdict_lapses_when_no_probe_confirms_it(verdict: ProbeVerdict) -> None:
    """A Lambda is frozen between requests, maybe for hours after its last probe."""
    verdict.on_probe(lost(100))
    assert verdict.is_against(100 + PROBE_VERDICT_SECONDS - A_MOMENT)
    assert not verdict.is_against(100 + PROBE_VERDICT_SECONDS)
    verdict.on_probe(lost(200))
    assert verdict.is_against(100 + PROBE_VERDICT_SECONDS)


def test_attempt_that_is_answered_proves_it_reachable(verdict: ProbeVerdict) -> None:
    verdict.on_probe(lost(10))
    verdict.on_connected(begun=10)
    assert verdict.reached


def test_attempt_from_before_a_probe_found_it_gone_proves_nothing(verdict: ProbeVerdict) -> None:
    verdict.on_probe(lost(10))
    verdict.on_connected(begun=10 - A_MOMENT)
    assert verdict.is_against(10)


def test_attempt_since_the_first_probe_that_failed_counts_however_many_fail_meanwhile(verdict: ProbeVerdict) -> None:
    for at in (10, 15, 20):
        verdict.on_probe(lost(at))
    verdict.on_connected(begun=10)
    assert verdict.reached


def test_verdict_after_one_that_lapsed_is_a_new_one(verdict: ProbeVerdict) -> None:
    verdict.on_probe(lost(100))
    later = 100 + PROBE_VERDICT_SECONDS
    verdict.on_probe(lost(later))
    verdict.on_connected(begun=later - A_MOMENT)
    assert verdict.is_against(later)
