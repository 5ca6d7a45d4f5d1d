"""Slots and the waiting room beside their promises, for any order of events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isochrone.routing.line import Line
from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares
from isochrone.routing.slots import FULL_SECONDS, LEASE_SECONDS, Slots
from isochrone.routing.waiting import WaitingRoom
from isochrone.stores.memory import MemoryFleetStore

T = TypeVar("T")
WHO = (0, 1, 2)
who = st.sampled_from(WHO)
priorities = st.sampled_from(Priority)


# -- slots -------------------------------------------------------------------------------------------------------------


class Table(MemoryFleetStore):
    """Lets somebody else act between the reading and the writing of a document, and after the writing."""

    between: Callable[[], Awaitable[Any]] | None = None
    after: Callable[[], Awaitable[Any]] | None = None

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        found = await super().read(name, now=now)
        if between := self.between:
            self.between = None
            await between()
        return found

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        written = await super().write(name, document, version=version, expires=expires)
        if after := self.after:
            self.after = None
            await after()
        return written


class SlotsMachine(RuleBasedStateMachine):
    """The model: what each edge that can still act believes to hold. Their clocks agree in nothing but their pace."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1_000_000.0
        self.reading = self.now
        self.table = Table(clock=lambda: self.reading)
        self.births = 0

    @initialize(capacity=st.integers(1, 12), skews=st.tuples(*(st.integers(-90, 90) for _ in WHO)))
    def edges_begin(self, capacity: int, skews: tuple[int, ...]) -> None:
        self.capacity, self.skews = capacity, skews
        self.edges = [self._born(at) for at in WHO]

    def _born(self, at: int) -> Slots:
        self.births += 1
        booted = self.now - 7 * self.births

        def wall() -> float:
            self.reading = self.now + self.skews[at]
            return self.reading

        return Slots(
            "pool", self.capacity, holder=f"edge-{self.births}", store=self.table,
            clock=lambda: self.now - booted, wall=wall,
        )  # fmt: skip

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run_until_complete(awaited())

    def teardown(self) -> None:
        if hasattr(self, "edges"):
            self.nothing_is_lost_for_good()
        self.loop.close()

    def nothing_is_lost_for_good(self) -> None:
        self.table.failing = False
        survivor = self._born(0)
        self.run(survivor.take(Priority.HIGH))
        self.now += LEASE_SECONDS
        taken = 0
        while self.run(survivor.take(Priority.HIGH)):
            taken += 1
        assert survivor.used == self.capacity
        assert taken >= self.capacity - 1

    @rule(seconds=st.sampled_from([0.1, FULL_SECONDS, 1.0, 2.5, 4.9, LEASE_SECONDS, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=who, priority=priorities, times=st.integers(1, 5))
    def requests_come(self, at: int, priority: Priority, times: int) -> None:
        for _ in range(times):
            self._take(at, priority)

    def _take(self, at: int, priority: Priority) -> None:
        edge = self.edges[at]
        others = sum(other.leased for other in self._holders() if other is not edge)
        if self.run(edge.take(priority)) and not self._is_alone(edge):
            assert edge.used <= edge.leased
            assert edge.used + others <= self.capacity

    @rule(at=who, rival=who, priority=priorities)
    def two_exchange_at_once(self, at: int, rival: int, priority: Priority) -> None:
        if at != rival:
            self.table.between = lambda: self.edges[rival].take(Priority.HIGH)
        self.run(self.edges[at].take(priority))
        self.table.between = None

    @rule(at=who, written=st.booleans(), settles=st.booleans())
    def exchange_is_cut_off(self, at: int, written: bool, settles: bool) -> None:
        """As when the client leaves, or the reply is lost."""

        async def cut() -> None:
            raise asyncio.CancelledError

        setattr(self.table, "after" if written else "between", cut)
        edge = self.edges[at]
        with suppress(asyncio.CancelledError):
            self.run(edge.settle() if settles else edge.take(Priority.HIGH))
        self.table.after = self.table.between = None

    @rule(at=who, times=st.integers(1, 5))
    def requests_end(self, at: int, times: int) -> None:
        for _ in range(min(times, self.edges[at].used)):
            self.edges[at].give_back()

    @rule(at=who)
    def edge_looks_after_its_leases(self, at: int) -> None:
        if self.edges[at].is_held:
            self.run(self.edges[at].keep())

    @rule(at=who)
    def edge_is_frozen(self, at: int) -> None:
        self.run(self.edges[at].settle())
        edge = self.edges[at]
        assert self._is_alone(edge) or edge.leased <= edge.used

    @rule(at=who)
    def request_comes_while_slots_are_given_back(self, at: int) -> None:
        edge = self.edges[at]
        if self._is_alone(edge) or not edge.used <= edge.leased or edge not in self._holders():
            return

        async def come() -> None:
            edge.take_at_hand(Priority.HIGH)

        self.table.between = come
        self.run(edge.settle())
        self.table.between = None
        assert self._is_alone(edge) or edge.used <= edge.leased

    @rule(at=who)
    def edge_dies(self, at: int) -> None:
        self.edges[at] = self._born(at)

    @rule()
    def table_goes(self) -> None:
        self.table.failing = True

    @rule()
    def table_returns(self) -> None:
        self.table.failing = False

    def _holders(self) -> list[Slots]:
        return [edge for edge in self.edges if edge._clock() < edge._until]

    def _is_alone(self, edge: Slots) -> bool:
        return edge._is_alone

    @invariant()
    def leases_never_exceed_the_backend(self) -> None:
        if hasattr(self, "edges"):
            assert sum(edge.leased for edge in self._holders()) <= self.capacity

    @invariant()
    def nobody_alone_uses_more_than_the_backend_takes(self) -> None:
        if hasattr(self, "edges"):
            assert all(0 <= edge.used <= self.capacity for edge in self.edges)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- the order in a line -----------------------------------------------------------------------------------------------


class LineMachine(RuleBasedStateMachine):
    """The model: who waits, in the order of arrival, and how many were served since a class had its last turn."""

    def __init__(self) -> None:
        super().__init__()
        self.line: Line[int] = Line(Shares())
        self.model: dict[Priority, list[int]] = {priority: [] for priority in Priority}
        self.passed_over = Counter[Priority]()
        self.arrivals = 0

    @rule(priority=priorities)
    def somebody_comes(self, priority: Priority) -> None:
        self.arrivals += 1
        self.line.join(self.arrivals, priority, "acme")
        self.model[priority].append(self.arrivals)

    @rule(priority=priorities, choice=st.integers(0, 100))
    def somebody_leaves(self, priority: Priority, choice: int) -> None:
        waiting = self.model[priority]
        if waiting:
            self.line.leave(waiting.pop(choice % len(waiting)), priority)
            self._forget_empty_classes()

    @rule(times=st.integers(1, 12))
    def places_are_freed(self, times: int) -> None:
        for _ in range(times):
            turn = self.line.next()
            assert (turn is None) == (not any(self.model.values()))
            if turn is None:
                return
            assert turn.who == self.model[turn.priority].pop(0)
            highest = max(one for one in Priority if self.model[one] or one is turn.priority)
            assert turn.right is (Priority.HIGH if highest > turn.priority else turn.priority)
            self.line.serve(turn.who, turn.priority)
            self._count(turn.priority)

    def _count(self, served: Priority) -> None:
        for priority in Priority:
            if priority is served:
                self.passed_over[priority] = 0
            elif self.model[priority]:
                self.passed_over[priority] += 1
        self._forget_empty_classes()

    def _forget_empty_classes(self) -> None:
        for priority in Priority:
            if not self.model[priority]:
                self.passed_over[priority] = 0

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.line) == sum(map(len, self.model.values()))

    @invariant()
    def no_class_is_starved(self) -> None:
        """Twelve turns make a round; a class may just have missed its own."""
        assert all(passed <= 2 * 12 for passed in self.passed_over.values())


TestLine = LineMachine.TestCase
TestLine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# -- the waiting room --------------------------------------------------------------------------------------------------


class Ticket:
    """A place of the pool below."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.is_out = True

    def give_back(self) -> None:
        assert self.is_out
        self.is_out = False
        self.pool.free += 1
        self.pool.room.places_freed()


class Pool:
    """Places, and the room in front of them."""

    def __init__(self, places: int, capacity: int) -> None:
        self.now = 0.0
        self.free = places
        self.room: WaitingRoom[Ticket] = WaitingRoom(lambda: self.now, capacity=capacity)
        self.tasks: list[asyncio.Task[Ticket | None]] = []
        self.untils: list[float] = []
        self.served: dict[int, Ticket] = {}
        self.expired: set[int] = set()

    def come(self, priority: Priority, seconds: float) -> None:
        number = len(self.tasks)
        self.untils.append(self.now + 1000 + seconds)  # far off for the loop's real clock
        self.tasks.append(asyncio.create_task(self._wait(number, priority)))

    async def _wait(self, number: int, priority: Priority) -> Ticket | None:
        async def take(_: Priority) -> Ticket | None:
            assert self.now < self.untils[number], "somebody whose time was over had a turn"
            await asyncio.sleep(0)
            if not self.free:
                return None
            self.free -= 1
            return Ticket(self)

        until, tenant = self.untils[number], str(number % 3)
        ticket = await self.room.wait(number % 2, take, priority=priority, until=until, tenant=tenant)
        if ticket:
            self.served[number] = ticket
        return ticket

    def end_one(self, choice: int) -> None:
        if self.served:
            self.served.pop(sorted(self.served)[choice % len(self.served)]).give_back()

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)


events = st.one_of(
    st.tuples(st.just("come"), priorities, st.integers(0, 60)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("end"), st.integers(0, 50)),
    st.tuples(st.just("pass"), st.sampled_from([10, 1030])),
    st.tuples(st.just("settle")),
)


async def play(script: list[tuple[Any, ...]], places: int, capacity: int) -> None:
    pool = Pool(places, capacity)
    for what, *how in script:
        if what == "come":
            pool.come(*how)
        elif what == "cancel" and pool.tasks:
            pool.tasks[how[0] % len(pool.tasks)].cancel()
        elif what == "end":
            pool.end_one(how[0])
        elif what == "pass":
            pool.now += how[0]
        else:
            await pool.settle()
        assert len(pool.room) <= capacity
    await drain(pool)
    assert (pool.free, len(pool.room)) == (places, 0)


async def drain(pool: Pool) -> None:
    """All who still wait get a place; then all places are back."""
    for _ in range(2 * len(pool.tasks) + 2):
        await pool.settle()
        pool.end_one(0)
    assert all(task.done() for task in pool.tasks)
    await pool.room.close()


@given(st.lists(events, max_size=40), st.integers(1, 3), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_waiting_room_loses_nobody_and_no_place(script: list[tuple[Any, ...]], places: int, capacity: int) -> None:
    asyncio.run(play(script, places, capacity))
