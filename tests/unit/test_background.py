from __future__ import annotations

import asyncio
import logging

import pytest

from isochrone.background import Background


async def test_finish_waits_for_all_that_was_started_also_meanwhile() -> None:
    background, done = Background(), []

    async def work(name: str, *, more: bool) -> None:
        await asyncio.sleep(0)
        done.append(name)
        if more:
            background.start(work(name + "'s child", more=False))

    background.start(work("a", more=True))
    background.start(work("b", more=False))
    assert len(background) == 2
    await background.finish()
    assert sorted(done) == ["a", "a's child", "b"]
    assert len(background) == 0


async def test_mistake_in_the_background_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    background = Background()

    async def fail() -> None:
        raise RuntimeError("in the background")

    with caplog.at_level(logging.ERROR, logger="isochrone"):
        background.start(fail())
        await background.finish()
    assert "in the background" in caplog.text
    assert len(background) == 0


async def test_nothing_started_is_finished_at_once() -> None:
    await Background().finish()
