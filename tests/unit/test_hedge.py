from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from isochrone.upstream.hedge import race

LATER = 30.0
Runner = Coroutine[Any, Any, str | None]


class Track:
    """Runners that end when they are told how; `left` are those called off, `discarded` the answers nobody took."""

    def __init__(self) -> None:
        self.ends: dict[str, asyncio.Future[str | None]] = {}
        self.running: set[str] = set()
        self.left: list[str] = []
        self.discarded: list[str | None] = []
        self.rivals = 0

    async def run(self, name: str) -> str | None:
        self.ends[name] = asyncio.get_running_loop().create_future()
        self.running.add(name)
        try:
            return await self.ends[name]
        except asyncio.CancelledError:
            self.left.append(name)
            raise
        finally:
            self.running.remove(name)

    def rival(self) -> Runner:
        self.rivals += 1
        return self.run("second")

    async def discard(self, answer: str | None) -> None:
        self.discarded.append(answer)

    def race(self, *, after: float) -> asyncio.Task[str | None]:
        return asyncio.create_task(race(self.run("first"), self.rival, after=after, discard=self.discard))

    async def both(self) -> asyncio.Task[str | None]:
        """Both on their way."""
        racing = self.race(after=0.0)
        await turns(until=lambda: self.running == {"first", "second"})
        return racing

    def end(self, name: str, outcome: str | Exception | None) -> None:
        if isinstance(outcome, Exception):
            self.ends[name].set_exception(outcome)
        else:
            self.ends[name].set_result(outcome)


async def turns(*, until: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not until():  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0)


@pytest.fixture
def track() -> Track:
    return Track()


async def test_quick_answer_needs_no_rival(track: Track) -> None:
    racing = track.race(after=LATER)
    await turns(until=lambda: track.running == {"first"})
    track.end("first", "answer")
    assert await racing == "answer"
    assert track.rivals == 0


async def test_quick_failure_needs_no_rival_either(track: Track) -> None:
    racing = track.race(after=LATER)
    await turns(until=lambda: track.running == {"first"})
    track.end("first", None)
    assert await racing is None
    assert track.rivals == 0


@pytest.mark.parametrize(("faster", "slower"), [("first", "second"), ("second", "first")])
async def test_faster_one_wins_and_the_other_is_called_off(track: Track, faster: str, slower: str) -> None:
    racing = await track.both()
    track.end(faster, faster)
    assert await racing == faster
    assert (track.left, track.running, track.discarded) == ([slower], set(), [])


async def test_race_is_over_when_the_loser_has_cleaned_up(track: Track) -> None:
    cleaned_up = False

    async def loser() -> str | None:
        nonlocal cleaned_up
        try:
            return await track.run("first")
        finally:
            await turns(until=lambda: "second" not in track.running)
            await asyncio.sleep(0.01)
            cleaned_up = True

    racing = asyncio.create_task(race(loser(), track.rival, after=0.0, discard=track.discard))
    await turns(until=lambda: track.running == {"first", "second"})
    track.end("second", "answer")
    assert await racing == "answer"
    assert cleaned_up


@pytest.mark.parametrize(("failing", "other"), [("first", "second"), ("second", "first")])
async def test_failure_of_one_leaves_the_other_its_time(track: Track, failing: str, other: str) -> None:
    racing = await track.both()
    track.end(failing, None)
    await turns(until=lambda: track.running == {other})
    assert not racing.done()
    track.end(other, "answer")
    assert await racing == "answer"
    assert track.left == []


async def test_failure_of_both_is_nothing(track: Track) -> None:
    racing = await track.both()
    track.end("first", None)
    track.end("second", None)
    assert await racing is None


async def test_what_one_raises_ends_the_race(track: Track) -> None:
    racing = await track.both()
    track.end("second", ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await racing
    assert (track.left, track.running) == (["first"], set())


async def test_answer_counts_more_than_what_the_other_raises_at_the_same_moment(track: Track) -> None:
    racing = await track.both()
    track.end("first", ValueError("refused"))
    track.end("second", "answer")
    assert await racing == "answer"


async def test_of_two_answers_at_the_same_moment_one_is_discarded(track: Track) -> None:
    racing = await track.both()
    track.end("first", "a")
    track.end("second", "b")
    won = await racing
    assert {won, *track.discarded} == {"a", "b"}


@pytest.mark.parametrize("number", range(1, 16))
@pytest.mark.parametrize("answers", [("first",), ("second",), ("first", "second")])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_cancelling_at_any_moment_leaves_no_task_and_no_answer_behind(
    track: Track, number: int, answers: tuple[str, ...], again: bool
) -> None:
    known = asyncio.all_tasks()
    racing = track.race(after=0.0)
    answered: list[str] = []
    for turn in range(number):
        if turn >= 7:
            for name in answers:
                if name in track.running and not track.ends[name].done():
                    track.end(name, name)
                    answered.append(name)
        await asyncio.sleep(0)
    racing.cancel()
    if again:
        await asyncio.sleep(0)
        racing.cancel()
    outcome = (await asyncio.gather(racing, return_exceptions=True))[0]
    await asyncio.sleep(0)
    taken = [outcome] if isinstance(outcome, str) else []
    heard = [name for name in answered if name not in track.left]
    assert set(heard) == {*taken, *track.discarded}
    assert (track.running, asyncio.all_tasks()) == (set(), known)
