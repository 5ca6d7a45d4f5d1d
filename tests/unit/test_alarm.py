"""One timer for many waits keeps the promises of asyncio.timeout_at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from isochrone.upstream.alarm import Alarm


class Timers:
    """Counts the timers that the running loop is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        loop = asyncio.get_running_loop()
        self._call_at = loop.call_at
        monkeypatch.setattr(loop, "call_at", self._counted)

    def _counted(self, when: float, call: Callable[..., Any], *args: Any, **more: Any) -> asyncio.TimerHandle:
        self.count += 1
        return self._call_at(when, call, *args, **more)


def _soon(seconds: float = 0.02) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _never() -> None:
    await asyncio.Event().wait()


async def _word(text: str = "word") -> str:
    await asyncio.sleep(0)
    return text


async def test_what_comes_in_time_is_given() -> None:
    alarm = Alarm()
    assert await alarm.wait(_word(), _soon(60)) == "word"
    alarm.stop()


async def test_a_wait_ends_when_its_time_is_over() -> None:
    alarm, until = Alarm(), _soon()
    with pytest.raises(TimeoutError):
        await alarm.wait(_never(), until)
    assert asyncio.get_running_loop().time() >= until


async def test_a_time_that_has_passed_ends_a_wait_at_once() -> None:
    with pytest.raises(TimeoutError):
        await Alarm().wait(_never(), _soon(-1))


async def test_a_task_that_waited_in_vain_is_not_being_cancelled() -> None:
    alarm, task = Alarm(), asyncio.current_task()
    assert task
    with pytest.raises(TimeoutError):
        await alarm.wait(_never(), _soon())
    assert not task.cancelling()
    assert await alarm.wait(_word(), _soon(60)) == "word"
    alarm.stop()


async def test_many_short_waits_need_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, alarm = Timers(monkeypatch), Alarm()
    for _ in range(100):
        await alarm.wait(_word(), _soon(60))
    assert timers.count == 1
    alarm.stop()


async def test_an_earlier_end_than_that_of_the_wait_before_is_kept() -> None:
    alarm = Alarm()
    await alarm.wait(_word(), _soon(60))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await alarm.wait(_never(), until := _soon())
    assert asyncio.get_running_loop().time() < until + 5


async def test_a_later_end_than_that_of_the_wait_before_is_kept() -> None:
    alarm, first = Alarm(), _soon(0.01)
    await alarm.wait(_word(), first)
    with pytest.raises(TimeoutError):
        await alarm.wait(_never(), later := _soon(0.05))
    assert asyncio.get_running_loop().time() >= later > first


async def test_it_does_not_ring_for_a_task_that_has_stopped_waiting() -> None:
    alarm = Alarm()
    await alarm.wait(_word(), _soon(0.01))
    await asyncio.sleep(0.03)
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_a_caller_that_leaves_is_no_timeout() -> None:
    waiting = asyncio.create_task(Alarm().wait(_never(), _soon(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_caller_that_leaves_as_it_rings_is_no_timeout() -> None:
    alarm = Alarm()
    waiting = asyncio.create_task(alarm.wait(_never(), _soon(60)))
    await asyncio.sleep(0)
    alarm._until = 0.0
    alarm._ring()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()


async def test_an_error_that_comes_as_it_rings_passes_and_leaves_the_task_alone() -> None:
    async def fail() -> None:
        try:
            await _never()
        finally:
            raise ConnectionError

    alarm, task = Alarm(), asyncio.current_task()
    assert task
    with pytest.raises(ConnectionError):
        await alarm.wait(fail(), _soon())
    assert not task.cancelling()


async def test_one_task_may_wait_after_another() -> None:
    alarm = Alarm()
    await asyncio.create_task(alarm.wait(_word(), _soon(0.02)))
    with pytest.raises(TimeoutError):
        await asyncio.create_task(alarm.wait(_never(), _soon(0.04)))


async def test_a_stopped_alarm_leaves_no_timer() -> None:
    alarm = Alarm()
    await alarm.wait(_word(), _soon(60))
    timer = alarm._timer
    alarm.stop()
    assert timer
    assert timer.cancelled()
