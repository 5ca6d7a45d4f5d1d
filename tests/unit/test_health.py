from __future__ import annotations

import pytest

from isochrone.routing.health import PROBE_VERDICT_SECONDS, ProbeVerdict
from isochrone.routing.probe import Probe

A_MOMENT = 0.001


@pytest.fixture
def verdict() -> ProbeVerdict:
    return ProbeVerdict()


def test_backend_that_no_probe_has_seen_is_trusted(verdict: ProbeVerdict) -> None:
    assert not verdict.is_there
    assert not verdict.is_fresh(0)
    assert not verdict.is_against(0)


@pytest.mark.parametrize("reached", [True, False])
def test_last_probe_is_decisive(verdict: ProbeVerdict, reached: bool) -> None:
    verdict.last = Probe(10, reached=not reached)
    verdict.last = Probe(15, reached=reached)
    assert verdict.is_there
    assert verdict.is_against(15) is not reached


def test_word_of_a_probe_lapses_when_no_other_confirms_it(verdict: ProbeVerdict) -> None:
    """A Lambda is frozen between requests, maybe for hours after its last probe."""
    verdict.last = Probe(100, reached=False)
    assert verdict.is_against(100 + PROBE_VERDICT_SECONDS - A_MOMENT)
    assert not verdict.is_against(100 + PROBE_VERDICT_SECONDS)
