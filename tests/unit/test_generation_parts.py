"""What passes between the holder of a lease and those who follow it."""

from __future__ import annotations

import pytest

from isochrone.answers.flight_text import Cursor, FlightText
from isochrone.answers.generation_parts import Following, Part, Telling
from isochrone.answers.generations import Ended, Generations, Held, Lease, Outcome, Pace
from isochrone.stores.memory import MemoryFleetStore
from tests.flights import HEADERS, MARK, STREAM

PACE = Pace(silence=4.0, want=5.0)


class Scene:
    """A holder and a follower over one table; `now` is the time of all."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store = MemoryFleetStore(clock=lambda: self.now)
        self.generations = Generations(self.store, clock=lambda: self.now, pace=PACE._replace(alone=0))
        self.text = FlightText()
        self.headers: dict[str, str] | None = HEADERS

    async def begin(self) -> None:
        lease = await self.generations.take(MARK, seconds=60)
        assert isinstance(lease, Lease)
        self.lease = lease
        cursor = Cursor(self.text, usage=True)
        self.telling = Telling(self.generations, lease, cursor, lambda: self.headers, clock=lambda: self.now)
        self.following = Following(self.generations, Held(*lease), clock=lambda: self.now)

    async def heard(self) -> bytes:
        """Every part that is there."""
        said = b""
        while isinstance(part := await self.following.hear(), Part):
            said += part.said
        return said


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.begin()
    return scene


async def test_nothing_is_written_that_nobody_wants(scene: Scene) -> None:
    scene.text.say(STREAM[0])
    await scene.telling.go_on()
    assert (scene.telling.is_wanted, scene.telling.parts, await scene.heard()) == (False, 0, b"")


async def test_followers_hear_all_from_the_beginning_and_then_what_is_new(scene: Scene) -> None:
    scene.text.say(STREAM[0])
    await scene.telling.go_on()
    scene.text.say(STREAM[1])
    await scene.following.begin()
    await scene.telling.go_on()
    assert await scene.heard() == STREAM[0] + STREAM[1]
    scene.text.say(STREAM[2])
    await scene.telling.go_on()
    assert await scene.heard() == STREAM[2]


async def test_an_empty_part_shows_life_and_without_one_there_is_silence(scene: Scene) -> None:
    await scene.following.begin()
    for _ in range(5):
        scene.now += 3
        await scene.telling.go_on()
        assert await scene.heard() == b""
        assert not scene.following.is_silent
    scene.now += 4
    assert await scene.heard() == b""
    assert scene.following.is_silent


async def test_a_stream_is_heard_out_when_it_has_ended_and_all_its_parts_were_heard(scene: Scene) -> None:
    await scene.following.begin()
    scene.text.say(b"".join(STREAM))
    await scene.telling.go_on()
    await scene.generations.end(scene.lease, Outcome.UNKEPT, parts=scene.telling.parts)
    assert await scene.heard() == b"".join(STREAM)
    assert isinstance(await scene.following.hear(), Ended)
    assert scene.following.is_heard_out


async def test_a_body_is_never_heard_out(scene: Scene) -> None:
    """Its parts tell only that it is being generated: what a follower has heard before stays a beginning."""
    scene.headers = None
    await scene.following.begin()
    await scene.telling.go_on()
    await scene.generations.end(scene.lease, Outcome.UNKEPT, parts=scene.telling.parts)
    await scene.heard()
    assert isinstance(await scene.following.hear(), Ended)
    assert not scene.following.is_heard_out


async def test_parts_that_could_not_be_written_are_not_said_to_tell_all(scene: Scene) -> None:
    await scene.following.begin()
    scene.text.say(STREAM[0])
    await scene.telling.go_on()
    assert scene.telling.parts == 1
    scene.text.say(STREAM[1])
    assert scene.telling.parts == 0
    scene.store.failing = True
    await scene.telling.go_on()
    assert scene.telling.parts == 0
    scene.store.failing = False
    await scene.telling.go_on()
    assert scene.telling.parts == 3
    assert await scene.heard() == STREAM[0] + STREAM[1]


async def test_a_part_whose_writing_was_not_confirmed_is_told_once(scene: Scene) -> None:
    await scene.following.begin()
    scene.text.say(STREAM[0])
    await scene.telling.go_on()
    part = await scene.generations.part(Held(*scene.lease), 0)
    assert part and await scene.generations.publish(scene.lease, 0, part)
    assert await scene.heard() == STREAM[0]


async def test_who_no_longer_says_that_it_waits_has_left(scene: Scene) -> None:
    await scene.following.begin()
    await scene.telling.go_on(is_deserted=True)
    for _ in range(5):
        scene.now += PACE.want
        await scene.heard()
        await scene.telling.go_on(is_deserted=True)
        assert scene.telling.is_wanted
    scene.now += 3 * PACE.want
    await scene.telling.go_on(is_deserted=True)
    assert not scene.telling.is_wanted


async def test_a_follower_hears_who_has_taken_over(scene: Scene) -> None:
    taken = await scene.generations.take(MARK, seconds=60, turn=1, version=scene.lease.fence)
    assert isinstance(taken, Lease)
    assert await scene.following.hear() == Held(MARK, taken.fence, 1, 60)


async def test_an_end_that_another_version_wrote_is_one_of_which_nothing_is_to_be_had(scene: Scene) -> None:
    await scene.store.write(f"answer/{MARK}", {"ended": "sold"}, version=scene.lease.fence, expires=1000.0)
    ended = await scene.following.hear()
    assert isinstance(ended, Ended)
    assert (ended.outcome, ended.version) == (Outcome.LEFT, 2)
