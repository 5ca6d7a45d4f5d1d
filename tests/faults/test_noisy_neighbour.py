"""What a tenant notices of another one that asks for ten times what there is. In played time, so that a busy machine
changes nothing; `noisy_neighbour` measures the same in real time."""

from __future__ import annotations

from tests.faults import played_time
from tests.faults.noisy_neighbour import ANSWER_SECONDS, PLACES, Report, run


def played(arrangement: str) -> Report:
    return played_time.run(run(arrangement, 5.0))


def test_quiet_tenant_has_the_next_place_that_is_free_however_many_of_a_noisy_one_wait() -> None:
    alone, beside = played("alone"), played("beside")
    assert set(alone.statuses) == set(beside.statuses) == {200}
    assert beside.noisy[200] > 5 * PLACES
    assert beside.p50 <= 1.1 * alone.p50
    assert beside.p99 <= 1.2 * alone.p99  # a place may be free a while later where answers take long


def test_without_turns_a_quiet_tenant_would_wait_behind_all_of_the_noisy_ones_requests() -> None:
    """What the test before would miss if tenants did not take turns."""
    assert played("one line").p50 > 5 * ANSWER_SECONDS


def test_tenant_at_ten_times_its_limit_leaves_the_times_of_another_as_they_were() -> None:
    alone, limited = played("alone"), played("limited")
    assert set(limited.statuses) == {200}
    assert limited.noisy[429] > limited.noisy[200] > PLACES
    assert limited.p99 <= 1.1 * alone.p99
