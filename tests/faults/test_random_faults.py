"""A short run of random faults; `python -m tests.faults.chaos` runs as many as one likes."""

from __future__ import annotations

import pytest

from tests.faults.chaos import run


@pytest.mark.parametrize("kills", [False, True], ids=["failing", "dying"])
async def test_random_faults_make_no_lie_no_hang_and_no_leak(kills: bool) -> None:
    tally = await run(seed=7, runs=400, minutes=0, concurrency=20, kills=kills, progress=lambda _: None)
    assert tally.lies == []
    assert tally.hangs == 0
    assert tally.is_clean, tally.left_over
    assert tally.outcomes["whole stream"] > 50
    assert tally.outcomes["whole body"] > 20
