"""A small herd at edges that are killed and paused; `python -m tests.faults.herd` makes the large one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest

from tests.faults import herd as herds
from tests.faults.herd import Herd, herd_of

pytestmark = pytest.mark.cloud


@pytest.fixture(scope="module")
async def herd(ministack: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Herd]:
    async with herd_of(3, ministack, tmp_path_factory.mktemp("herd")) as herd:
        yield herd


async def test_a_herd_over_several_processes_makes_one_call(herd: Herd) -> None:
    report = await herds.at_once(herd, 60)
    assert report.faults == []
    assert set(report.caches) <= {"miss", "coalesced", "hit"}
    assert report.caches["miss"] == 1


async def test_a_holder_that_fails_at_once_has_one_successor(herd: Herd) -> None:
    assert (await herds.failing(herd)).faults == []


async def test_who_leaves_changes_nothing_and_the_last_one_lets_the_backend_go(herd: Herd) -> None:
    assert (await herds.leaving(herd)).faults == []


async def test_a_holder_that_sleeps_past_its_lease_overwrites_nothing(herd: Herd) -> None:
    assert (await herds.pause(herd)).faults == []


async def test_killed_holders_have_one_successor_each_and_their_followers_the_whole_answer(herd: Herd) -> None:
    report = await herds.kill(herd, 4, Random(2))
    assert report.faults == []
    assert report.requests == 4 * 4
