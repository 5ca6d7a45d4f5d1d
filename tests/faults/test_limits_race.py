"""A short race for a limit; `python -m tests.faults.limits_race` runs the long one."""

from __future__ import annotations

import pytest

from tests.faults.limits_race import Race, race_in_memory, race_on


@pytest.mark.cloud
@pytest.mark.parametrize("kill", [False, True], ids=["", "one is killed"])
async def test_two_hundred_callers_in_four_processes_never_get_more_than_the_limit(ministack: str, kill: bool) -> None:
    report = await race_on(Race(endpoint=ministack, requests=300, tokens=20_000, seconds=3), kill=kill)
    assert report.faults == []
    assert report.admitted >= 100
    assert report.calls * 10 <= report.admitted + report.refused


async def test_lost_replies_cost_quota_and_never_make_more_of_it() -> None:
    report = await race_in_memory(Race(requests=300, tokens=20_000, seconds=1.5))
    assert report.faults == []
    assert report.admitted >= 50
