from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from isochrone.routing.priority import Priority
from isochrone.routing.waiting import WaitingRoom, retry_after

HIGH, STANDARD, LOW = Priority.HIGH, Priority.STANDARD, Priority.LOW
SOON = 1000.0


# -- Retry-After -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "rate", "seconds"), [(0, 2.0, 1), (9, 2.0, 5), (10, 2.0, 6), (1000, 1.0, 60), (3, 0.0, 5)]
)
def test_retry_after_is_the_time_until_a_place_is_free(ahead: int, rate: float, seconds: int) -> None:
    assert retry_after(ahead, rate) == seconds


# -- the room ----------------------------------------------------------------------------------------------------------


class Ticket:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def give_back(self) -> None:
        self.scene.free += 1
        self.scene.room.places_freed()


class Scene:
    """A room before `free` places. `gate` closed holds up whoever has a turn."""

    def __init__(self, capacity: int = 10) -> None:
        self.now = 0.0
        self.free = 0
        self.room: WaitingRoom[Ticket] = WaitingRoom(lambda: self.now, capacity=capacity)
        self.gate = asyncio.Event()
        self.gate.set()
        self.turns: list[str] = []
        self.reserved = 0

    def come(self, name: str, *, until: float = SOON, key: str = "", tenant: str = "") -> asyncio.Task[Ticket | None]:
        async def take(right: Priority) -> Ticket | None:
            self.turns.append(name)
            if name == "broken":
                raise ValueError(name)
            await self.gate.wait()
            if self.free <= (0 if right is HIGH else self.reserved):
                return None
            self.free -= 1
            return Ticket(self)

        priority = {"h": HIGH, "s": STANDARD, "l": LOW}.get(name[0], STANDARD)
        return asyncio.create_task(self.room.wait(key, take, priority=priority, until=until, tenant=tenant))

    async def free_one(self) -> None:
        self.free += 1
        self.room.places_freed()
        await settled()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene(capacity=100)
    yield scene
    await scene.room.close()
    await settled()
    assert len(scene.room) == 0


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def come(scene: Scene, *names: str) -> list[asyncio.Task[Ticket | None]]:
    tasks = [scene.come(name) for name in names]
    await settled()
    return tasks


async def test_place_that_is_free_needs_no_waiting(scene: Scene) -> None:
    scene.free = 1
    assert await scene.come("s")
    assert (scene.free, len(scene.room)) == (0, 0)


async def test_freed_place_goes_to_whoever_came_first(scene: Scene) -> None:
    first, second = await come(scene, "s1", "s2")
    await scene.free_one()
    assert (first.done(), second.done()) == (True, False)
    await scene.free_one()
    assert second.done()


async def test_freed_place_goes_to_the_urgent_before_the_others(scene: Scene) -> None:
    low, high = await come(scene, "l", "h")
    await scene.free_one()
    assert (low.done(), high.done()) == (False, True)


async def test_low_one_is_served_in_its_turn_with_the_right_of_the_high_ones(scene: Scene) -> None:
    scene.reserved = 1
    (low,) = await come(scene, "l")
    await scene.free_one()
    assert not low.done()
    scene.free = 0
    for i in range(9):
        await come(scene, f"h{i}")
        await scene.free_one()
    assert low.done()


async def test_place_freed_elsewhere_is_found_by_asking_again(scene: Scene) -> None:
    (waiting,) = await come(scene, "s")
    scene.free = 1  # nobody tells the room
    assert await waiting


async def test_one_line_does_not_hold_up_another(scene: Scene) -> None:
    scene.gate.clear()
    stuck = scene.come("s", key="a")
    await settled()
    scene.gate = asyncio.Event()
    scene.gate.set()
    scene.free = 1
    assert await scene.come("s", key="b")
    assert not stuck.done()
    stuck.cancel()


async def test_lines_that_seek_the_same_places_are_served_by_turns(scene: Scene) -> None:
    """Two models at one backend are two lines."""
    first, second = ([scene.come(f"s{i}", key=key) for i in range(6)] for key in ("one", "two"))
    await settled()
    for _ in range(6):
        await scene.free_one()
    assert [sum(task.done() for task in line) for line in (first, second)] == [3, 3]
    assert first[0].done()


async def test_places_freed_at_once_are_shared_between_lines(scene: Scene) -> None:
    first, second = ([scene.come(f"s{i}", key=key) for i in range(6)] for key in ("one", "two"))
    await settled()
    scene.free = 5
    await scene.free_one()
    assert [sum(task.done() for task in line) for line in (first, second)] == [3, 3]


async def test_urgent_line_has_more_turns_but_not_all(scene: Scene) -> None:
    scene.reserved = 1  # the low line is let through only before a higher one, with its right
    low, high = ([scene.come(f"{name}{i}", key=name) for i in range(40)] for name in ("l", "h"))
    await settled()
    for _ in range(18):
        await scene.free_one()
    assert [sum(task.done() for task in line) for line in (low, high)] == [2, 16]


async def test_line_that_found_no_place_for_long_is_owed_one_turn(scene: Scene) -> None:
    """Its backend was full all the time while the other line had its turns elsewhere."""
    stuck_at_first = False

    async def elsewhere(right: Priority) -> Ticket | None:
        return await ticket(right) if stuck_at_first else None

    async def ticket(_: Priority) -> Ticket | None:
        if not scene.free:
            return None
        scene.free -= 1
        return Ticket(scene)

    late = [asyncio.create_task(scene.room.wait("late", elsewhere, priority=STANDARD, until=SOON)) for _ in range(4)]
    busy = [scene.come(f"s{i}", key="busy") for i in range(6)]
    await settled()
    for _ in range(3):
        await scene.free_one()
    stuck_at_first = True
    for _ in range(3):
        await scene.free_one()
    assert [sum(task.done() for task in line) for line in (late, busy)] == [2, 4]
    for task in late:
        task.cancel()


async def test_whoever_waits_too_long_goes_without(scene: Scene) -> None:
    assert await scene.come("s", until=0.01) is None


async def test_whoever_has_no_time_has_no_turn(scene: Scene) -> None:
    scene.free = 1
    assert await scene.come("s", until=0.0) is None
    assert scene.turns == []


async def test_expired_one_is_passed_over_for_the_next(scene: Scene) -> None:
    late = scene.come("s1", until=500.0)
    (next_one,) = await come(scene, "s2")
    scene.turns.clear()
    scene.now = 500.0
    await scene.free_one()
    assert (late.result(), next_one.done(), scene.turns) == (None, True, ["s2"])


async def test_whoever_leaves_frees_the_way_for_the_next(scene: Scene) -> None:
    first, second = await come(scene, "s1", "s2")
    first.cancel()
    await settled()
    await scene.free_one()
    assert second.done()
    assert scene.free == 0


async def test_place_won_while_leaving_goes_to_the_next(scene: Scene) -> None:
    first, second = await come(scene, "s1", "s2")
    scene.gate.clear()
    await scene.free_one()
    first.cancel()
    await settled()
    scene.gate.set()
    await settled()
    assert first.cancelled()
    assert second.done()
    assert scene.free == 0


async def test_place_won_in_the_moment_of_leaving_is_given_back(scene: Scene) -> None:
    (waiting,) = await come(scene, "s1")
    waiter = next(iter(scene.room._present))
    waiter.end(Ticket(scene))
    waiting.cancel()
    await settled()
    assert waiting.cancelled()
    assert scene.free == 1


async def test_full_room_sends_the_last_of_the_lowest_class_away() -> None:
    scene = Scene(capacity=3)
    low_1, low_2, _ = await come(scene, "l1", "l2", "s1")
    (high,) = await come(scene, "h1")
    assert (low_1.done(), low_2.done(), high.done()) == (False, True, False)
    assert low_2.result() is None
    await scene.room.close()


async def test_full_room_sends_another_one_away_for_each_who_is_more_urgent() -> None:
    scene = Scene(capacity=2)
    low_1, low_2 = await come(scene, "l1", "l2")
    urgent = await come(scene, "h1", "h2")
    assert (low_1.result(), low_2.result(), len(scene.room)) == (None, None, 2)
    assert not any(task.done() for task in urgent)
    await scene.room.close()


async def test_tenant_that_fills_the_room_makes_way_for_one_that_has_less_there() -> None:
    scene = Scene(capacity=4)
    noisy = [scene.come(f"s{i}", tenant="noisy") for i in range(4)]
    await settled()
    quiet = [scene.come("s", tenant="quiet") for _ in range(4)]
    await settled()
    assert [task.done() for task in noisy] == [False, False, True, True]
    assert [task.done() for task in quiet] == [False, False, True, True]
    await scene.room.close()


async def test_tenant_that_asks_in_many_ways_has_no_more_turns_for_it(scene: Scene) -> None:
    """Each model or region that it names puts it in another line before the same places."""
    noisy = [scene.come("s", key=str(i % 5), tenant="noisy") for i in range(40)]
    quiet = [scene.come("s", key="quiet", tenant="quiet") for _ in range(40)]
    await settled()
    for _ in range(20):
        await scene.free_one()
    assert abs(sum(task.done() for task in noisy) - sum(task.done() for task in quiet)) <= 2


async def test_line_of_many_tenants_has_as_many_turns_as_they_would_have_alone(scene: Scene) -> None:
    crowded = [scene.come("s", key="crowded", tenant=str(i % 4)) for i in range(40)]
    lonely = [scene.come("s", key="lonely", tenant="lonely") for _ in range(40)]
    await settled()
    for _ in range(20):
        await scene.free_one()
    assert [sum(task.done() for task in line) for line in (crowded, lonely)] == [16, 4]


@pytest.mark.parametrize("newcomer", ["l2", "s2"])
async def test_full_room_lets_nobody_in_who_is_no_more_urgent_than_the_least(newcomer: str) -> None:
    scene = Scene(capacity=2)
    await come(scene, "s1", "h1")
    assert await scene.come(newcomer) is None
    assert len(scene.room) == 2
    await scene.room.close()


async def test_error_in_asking_is_that_ones_alone(scene: Scene) -> None:
    scene.reserved = -1
    broken, fine = await come(scene, "broken", "s")
    with pytest.raises(ValueError, match="broken"):
        await broken
    assert fine.done()


async def test_closing_sends_everybody_away(scene: Scene) -> None:
    tasks = [*await come(scene, "s1", "h1"), scene.come("s2", key="other")]
    await settled()
    await scene.room.close()
    assert await asyncio.gather(*tasks) == [None] * 3


async def test_room_that_is_empty_keeps_nothing(scene: Scene) -> None:
    scene.free = 2
    await asyncio.gather(scene.come("s1", key="a"), scene.come("s2", key="b"))
    scene.room.places_freed()
    await settled()
    assert scene.room._lines == {}
    assert "waiting room" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_whoever_comes_while_a_line_is_empty_joins_that_line(scene: Scene) -> None:
    (gone,) = await come(scene, "s1")
    gone.cancel()
    await asyncio.sleep(0)  # it has left, and the line is about to notice
    newcomer = scene.come("s2")
    await settled()
    assert [task.get_name() for task in asyncio.all_tasks()].count("waiting room") == 1
    await scene.free_one()
    assert await newcomer
