"""What an edge does from time to time, by itself or when its door lets it catch up."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from isochrone.chores import RETRY_SECONDS, Chore, Chores


class Work:
    """Counts how often it was done; fails while `broken`."""

    def __init__(self) -> None:
        self.done = 0
        self.broken = False
        self.thrice = asyncio.Event()

    async def do(self) -> None:
        self.done += 1
        if self.done == 3:
            self.thrice.set()
        if self.broken:
            raise RuntimeError("no")


@pytest.fixture
def work() -> Work:
    return Work()


async def test_chore_is_caught_up_on_at_once_and_then_once_an_interval(work: Work) -> None:
    chores = Chores([Chore("work", 60, work.do)])
    for second, done in ((0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (500, 3)):
        await chores.catch_up(second)
        assert work.done == done


async def test_chore_done_by_hand_waits_for_its_interval(work: Work) -> None:
    chore = Chore("work", 60, work.do)
    await chore.do_now()
    for second, done in ((100, 1), (159, 1), (160, 2)):
        await chore.catch_up(second)
        assert work.done == done


async def test_chore_that_failed_when_done_by_hand_is_tried_again_sooner(work: Work) -> None:
    chore = Chore("work", 300, work.do)
    work.broken = True
    await chore.do_now()
    await chore.catch_up(0)
    await chore.catch_up(RETRY_SECONDS)
    assert work.done == 2


async def test_chore_that_takes_its_callers_whole_time_does_not_take_the_next_ones_too() -> None:
    begun = 0

    async def hang() -> None:
        nonlocal begun
        begun += 1
        await asyncio.sleep(60)

    chore = Chore("hanging", 60, hang)
    for second in (0, 1, 59):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await chore.catch_up(second)
    assert begun == 1


async def test_chore_that_fails_is_logged_and_tried_again_sooner(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    work.broken = True
    chores = Chores([Chore("reading secrets", 300, work.do)])
    with caplog.at_level(logging.ERROR):
        await chores.catch_up(0)
    assert "reading secrets failed" in caplog.text
    work.broken = False
    await chores.catch_up(RETRY_SECONDS)
    await chores.catch_up(RETRY_SECONDS + 299)
    assert work.done == 2


async def test_started_chores_do_themselves_until_stopped(work: Work) -> None:
    chores = Chores([Chore("work", 0.001, work.do)])
    chores.start()
    await work.thrice.wait()
    await chores.stop()
    done = work.done
    await asyncio.sleep(0.01)
    assert work.done == done


async def test_chore_that_fails_does_not_end_the_others(work: Work) -> None:
    other = Work()
    work.broken = True
    chores = Chores([Chore("work", 60, work.do), Chore("other", 60, other.do)])
    await chores.catch_up(0)
    assert (work.done, other.done) == (1, 1)
