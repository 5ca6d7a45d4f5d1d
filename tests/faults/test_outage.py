"""A short outage of the nearest pool under load; `python -m tests.faults.outage` makes the long one."""

from __future__ import annotations

import pytest

from tests.faults.outage import WAYS, suffer


@pytest.mark.parametrize("how", WAYS)
async def test_outage_of_the_nearest_pool_costs_no_answer_and_little_load(how: str) -> None:
    deadlines = {"connect": 0.5, "first_token": 0.4, "stall": 0.4, "total": 10.0}
    report = await suffer(how, clients=40, seconds=3.0, before=1.0, after=10.0, deadlines=deadlines)
    assert report.failures == []
    assert report.requests > 300
    assert report.attempts_per_request <= 1.2
    assert report.back_after_s is not None
