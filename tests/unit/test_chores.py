"""What an edge does from time to time, by itself or when its door lets it catch up."""

from __future__ import annotations

import asyncio
import logging

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


async def test_chore_done_at_start_waits_for_its_interval(work: Work) -> None:
    chores = Chores([Chore("work", 60, work.do, done_at_start=True)])
    for second, done in ((100, 0), (159, 0), (160, 1)):
        await chores.catch_up(second)
        assert work.done == done


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
