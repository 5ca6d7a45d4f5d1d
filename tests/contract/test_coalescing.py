"""Identical requests in several processes over one table: one generation, one successor, and no stale word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from isochrone.answers.completion import Answer
from isochrone.answers.generation_parts import PART_BYTES
from isochrone.answers.generations import Ended, Generations, Lease, Outcome, Pace
from isochrone.api.errors import ApiError, BadRequest, NothingAlive, UpstreamRefused
from isochrone.api.sse import DONE_EVENT
from isochrone.background import Background
from isochrone.stores.memory import MemoryFleetStore
from isochrone.stores.protocols import FleetStore
from tests.contract.conftest import Stores
from tests.flights import MARK, STREAM, WITHOUT_USAGE, Process, Source, answer, read, rest
from tests.tellings import text_of
from tests.upstream import TEXT, chunk, completion, words

PACE = Pace(patience=30.0, alone=0.0, look=0.05, part=0.05, poll=0.02, silence=1.0, want=0.2)
BODY = json.dumps(completion()).encode()


class Link:
    """One process's way to the table: while it is stopped, the process is as good as dead to all others."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store
        self.runs = asyncio.Event()
        self.runs.set()

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        await self.runs.wait()
        return await self._store.read(name, now=now)

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        await self.runs.wait()
        return await self._store.write(name, document, version=version, expires=expires)

    async def add(self, name: str, amounts: Mapping[str, float], *, expires: float) -> dict[str, float]:
        await self.runs.wait()
        return await self._store.add(name, amounts, expires=expires)


class Fleet:
    """Processes over one table, and an answers store that refuses what an older fence writes."""

    def __init__(self, store: FleetStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._links: dict[Process, Link] = {}
        self.kept: Answer | None = None
        self.fence = 0

    @property
    def generated(self) -> int:
        """How many generations there were."""
        return sum(len(process.sources) for process in self._links)

    def process(self, *, skew: float = 0.0) -> Process:
        """One more; its clock is wrong by `skew` seconds."""
        link = Link(self._store)
        generations = Generations(link, clock=lambda: self._clock() + skew, pace=PACE)
        process = Process(generations, recall=lambda: self.kept, keep=self._keep)
        self._links[process] = link
        return process

    def _keep(self, answer: Answer, fence: int | None) -> bool:
        assert fence, "nobody is alone here"
        if fence < self.fence:
            return False
        self.kept, self.fence = answer, fence
        return True

    def stop(self, process: Process) -> None:
        """As by SIGKILL or SIGSTOP."""
        self._links[process].runs.clear()

    async def settled(self) -> None:
        """Who was stopped wakes up, and all come to their end."""
        for process, link in self._links.items():
            link.runs.set()
            await process.background.finish()


@pytest.fixture
def fleet(stores: Stores) -> Fleet:
    return Fleet(stores.fleet, stores.clock)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)


async def asked(process: Process, source: Source, **more: Any) -> asyncio.Task[bytes]:
    """The process is generating."""
    asking = asyncio.create_task(process.ask(source, **more))
    await asyncio.wait_for(source.begun.wait(), 20)
    return asking


async def test_a_hundred_askers_in_four_processes_share_one_generation(fleet: Fleet) -> None:
    source = Source(*STREAM, None)
    processes = [fleet.process() for _ in range(4)]
    told = await asyncio.gather(*(process.ask(source) for process in processes for _ in range(25)))
    assert {text_of(one) for one in told} == {TEXT}
    assert fleet.generated == 1
    await fleet.settled()


async def test_followers_elsewhere_hear_a_stream_as_it_is_told_and_byte_by_byte(fleet: Fleet) -> None:
    source = Source(*STREAM[:3])
    holding = await asked(fleet.process(), source)
    process = fleet.process()
    reply = await process.flights.share(process.asker())
    assert reply.stream
    assert (reply.headers["x-isochrone-cache"], reply.headers["x-isochrone-backend"]) == ("coalesced", "pool")
    heard = await anext(aiter(reply.stream))
    assert heard == b"".join(STREAM[:3])
    source.say(*STREAM[3:], None)
    assert heard + await read(reply) == await holding == WITHOUT_USAGE
    assert fleet.generated == 1
    await fleet.settled()


async def test_followers_elsewhere_get_a_body_when_it_is_kept(fleet: Fleet) -> None:
    source = Source(stream=False)
    holding = await asked(fleet.process(), source, stream=False)
    bodies = [asyncio.create_task(fleet.process().ask(stream=False)) for _ in range(2)]
    stream = asyncio.create_task(fleet.process().ask())
    await asyncio.sleep(0.2)
    source.say(BODY)
    assert await holding == BODY
    assert [json.loads(body)["choices"] for body in await asyncio.gather(*bodies)] == [completion()["choices"]] * 2
    assert text_of(await stream) == TEXT
    assert fleet.generated == 1
    await fleet.settled()


async def test_an_event_larger_than_an_item_passes_between_processes(fleet: Fleet) -> None:
    said = [chunk({"content": "x" * (2 * PART_BYTES)}), *STREAM]
    source = Source(said[0])
    holding = await asked(fleet.process(), source)
    following = asyncio.create_task(fleet.process().ask(include_usage=True))
    await asyncio.sleep(0.2)
    source.say(*said[1:], None)
    assert await following == b"".join(said)
    await holding
    await fleet.settled()


async def test_an_answer_that_is_not_kept_is_heard_by_streams_and_asked_for_anew_by_bodies(fleet: Fleet) -> None:
    source = Source(*STREAM[:3], kept=False)
    holding = await asked(fleet.process(), source)
    stream = asyncio.create_task(fleet.process().ask())
    await asyncio.sleep(0.2)
    own = [Source(BODY, stream=False, kept=False) for _ in range(2)]
    bodies = [asyncio.create_task(fleet.process().ask(one, stream=False)) for one in own]
    await asyncio.sleep(0.2)
    source.say(*STREAM[3:], None)
    assert [await holding, await stream] == [WITHOUT_USAGE] * 2
    assert await asyncio.gather(*bodies) == [BODY] * 2
    assert fleet.generated == 3
    await fleet.settled()


async def test_one_who_comes_when_it_was_kept_a_moment_ago_generates_nothing(fleet: Fleet) -> None:
    """Its look into the store was before that, and the lease is free again."""
    await fleet.process().ask(Source(*STREAM, None))
    await fleet.settled()
    assert text_of(await fleet.process().ask()) == TEXT
    assert fleet.generated == 1


async def test_an_answer_that_has_gone_from_the_store_is_generated_again_with_a_higher_fence(fleet: Fleet) -> None:
    for fence in (1, 3):
        assert text_of(await fleet.process().ask(Source(*STREAM, None))) == TEXT
        await fleet.settled()
        assert fleet.fence >= fence
        fleet.kept = None
    assert fleet.generated == 2


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_refusal_is_shared_with_other_processes(fleet: Fleet) -> None:
    source = Source()
    holding = await asked(fleet.process(), source)
    following = [asyncio.create_task(fleet.process().ask()) for _ in range(3)]
    await asyncio.sleep(0.2)
    source.say(BadRequest("no such thing", param="messages"))
    told = await asyncio.gather(holding, *following, return_exceptions=True)
    assert all(isinstance(one, ApiError) for one in told)
    assert {one.body() for one in told if isinstance(one, ApiError)} == {
        BadRequest("no such thing", param="messages").body()
    }
    assert [one.refused_status for one in told if isinstance(one, UpstreamRefused)] == [400] * 3
    assert fleet.generated == 1
    await fleet.settled()


@pytest.mark.parametrize("after", [0.0, 0.2])
async def test_after_a_failure_exactly_one_of_all_processes_generates(fleet: Fleet, after: float) -> None:
    source, heir = Source(), Source(*STREAM, None)
    first = fleet.process()
    holding = await asked(first, source)
    following = [asyncio.create_task(process.ask(heir)) for process in [first, *(fleet.process() for _ in range(3))]]
    await rest()
    await asyncio.sleep(after)
    source.say(NothingAlive("dead"))
    assert [text_of(told) for told in await asyncio.gather(*following)] == [TEXT] * 4
    assert isinstance((await asyncio.gather(holding, return_exceptions=True))[0], NothingAlive)
    assert fleet.generated == 2
    await fleet.settled()


async def test_when_the_successor_fails_too_its_error_is_shared_and_nobody_asks_a_third_time(fleet: Fleet) -> None:
    source, heir = Source(), Source(NothingAlive("still dead"))
    first = fleet.process()
    holding = await asked(first, source)
    following = [asyncio.create_task(process.ask(heir)) for process in [first, *(fleet.process() for _ in range(3))]]
    await asyncio.sleep(0.2)
    source.say(NothingAlive("dead"))
    told = await asyncio.gather(*following, return_exceptions=True)
    assert all(isinstance(one, ApiError) and b"still dead" in one.body() for one in told), told
    await asyncio.gather(holding, return_exceptions=True)
    assert fleet.generated == 2
    await fleet.settled()


async def test_one_who_would_succeed_a_failed_holder_hears_when_another_successor_has_failed_already(
    stores: Stores,
) -> None:
    one, other = (Generations(stores.fleet, clock=stores.clock, pace=PACE) for _ in range(2))
    first = await one.take("ab", seconds=60)
    assert isinstance(first, Lease)
    await one.end(first, Outcome.FAILED)
    second = await other.take("ab", seconds=60, turn=1)
    assert isinstance(second, Lease)
    await other.end(second, Outcome.FAILED, error={"status": 503})
    late = await one.take("ab", seconds=60, turn=1)
    assert isinstance(late, Ended)
    assert (late.outcome, late.turn, late.error) == (Outcome.FAILED, 1, {"status": 503})
    assert isinstance(await one.take("ab", seconds=60), Lease), "who did not follow them begins anew"


async def test_one_who_comes_after_a_failure_begins_anew(fleet: Fleet) -> None:
    with pytest.raises(NothingAlive):
        await fleet.process().ask(Source(NothingAlive("dead")))
    await fleet.settled()
    assert text_of(await fleet.process().ask(Source(*STREAM, None))) == TEXT
    await fleet.settled()


async def test_who_waits_for_nothing_does_not_follow_a_generation_elsewhere(fleet: Fleet, stores: Stores) -> None:
    source, process = Source(*STREAM[:2]), fleet.process()
    holding = await asked(fleet.process(), source)
    with pytest.raises(NothingAlive):
        await process.ask(stream=False, waits=False)
    assert await stores.fleet.read(f"answer/{MARK}/1/wanted", now=stores.clock()) == (None, 0)
    source.say(*STREAM[2:], None)
    assert await holding == WITHOUT_USAGE
    await fleet.settled()


# -- death and sleep ---------------------------------------------------------------------------------------------------


async def test_exactly_one_goes_on_when_the_holder_dies_before_its_first_word(fleet: Fleet) -> None:
    source, heir, holder = Source(), Source(*STREAM, None), fleet.process()
    holding = await asked(holder, source)
    following = [asyncio.create_task(fleet.process().ask(heir)) for _ in range(3)]
    await asyncio.sleep(0.2)
    fleet.stop(holder)
    assert [text_of(told) for told in await asyncio.gather(*following)] == [TEXT] * 3
    assert fleet.generated == 2
    source.say(*STREAM, None)
    assert await holding == WITHOUT_USAGE
    await fleet.settled()


async def test_what_was_heard_of_a_dead_holder_is_gone_on_with_by_one_and_for_all(fleet: Fleet) -> None:
    source, heir, holder = Source(*STREAM[:4]), Source(*STREAM, None), fleet.process()
    holding = await asked(holder, source)
    replies = []
    for _ in range(3):
        process = fleet.process()
        replies.append(await process.flights.share(process.asker(heir)))
    heard = [await anext(aiter(reply.stream)) for reply in replies if reply.stream]
    assert heard == [b"".join(STREAM[:4])] * 3
    fleet.stop(holder)
    rests = await asyncio.gather(*(read(reply) for reply in replies))
    whole = [beginning + end for beginning, end in zip(heard, rests, strict=True)]
    assert [text_of(told) for told in whole] == [TEXT] * 3
    assert [(told.endswith(DONE_EVENT), told.count(DONE_EVENT)) for told in whole] == [(True, 1)] * 3
    assert fleet.generated == 2
    source.say(*STREAM[4:], None)
    assert await holding == WITHOUT_USAGE
    await fleet.settled()


async def test_an_answer_that_its_successor_tells_otherwise_ends_with_one_error(fleet: Fleet) -> None:
    other = [*words(("Quite ", "another.")), *STREAM[-3:]]
    source, holder, process = Source(*STREAM[:4]), fleet.process(), fleet.process()
    holding = await asked(holder, source)
    reply = await process.flights.share(process.asker(Source(*other, None)))
    assert reply.stream
    heard = await anext(aiter(reply.stream))
    fleet.stop(holder)
    told = heard + await read(reply)
    assert told.startswith(b"".join(STREAM[:4]))
    assert b"stream_incomplete" in told
    assert DONE_EVENT not in told
    source.say(*STREAM[4:], None)
    await holding
    await fleet.settled()


async def test_a_lease_is_given_back_also_where_what_is_known_by_then_says_something_else(
    fleet: Fleet, stores: Stores
) -> None:
    source, holder, process = Source(*STREAM[:4]), fleet.process(), fleet.process()
    holding = await asked(holder, source)
    reply = await process.flights.share(process.asker())
    assert reply.stream
    heard = await anext(aiter(reply.stream))
    fleet.kept = answer("Quite another.")
    fleet.stop(holder)
    told = heard + await read(reply)
    assert b"stream_incomplete" in told and DONE_EVENT not in told
    await process.background.finish()
    held, _ = await stores.fleet.read(f"answer/{MARK}", now=stores.clock())
    assert held is None or "ended" in held
    source.say(*STREAM[4:], None)
    await holding
    await fleet.settled()


async def test_a_holder_that_wakes_finds_itself_fenced_and_its_own_readers_get_their_answer(fleet: Fleet) -> None:
    source, heir, holder = Source(*STREAM[:2]), Source(*STREAM, None), fleet.process()
    holding = await asked(holder, source)
    following = asyncio.create_task(fleet.process().ask(heir))
    await asyncio.sleep(0.2)
    fleet.stop(holder)
    assert text_of(await following) == TEXT
    source.say(*STREAM[2:], None)
    assert await holding == WITHOUT_USAGE
    await fleet.settled()
    old, new = source.fences[0], heir.fences[0]
    assert old and new and old < new
    assert fleet.fence == new


async def test_two_deaths_in_a_row_end_the_chain(fleet: Fleet) -> None:
    holder, others = fleet.process(), [fleet.process(), fleet.process()]
    holding = await asked(holder, Source())
    heirs = [Source(), Source()]
    following = [asyncio.create_task(process.ask(heir)) for process, heir in zip(others, heirs, strict=True)]
    await asyncio.sleep(0.2)
    fleet.stop(holder)
    await until(lambda: any(process.sources for process in others))
    heir = next(process for process in others if process.sources)
    fleet.stop(heir)
    last = following[1 - others.index(heir)]
    with pytest.raises(NothingAlive, match="died"):
        await last
    assert fleet.generated == 2
    for task in (holding, *following):
        task.cancel()
    await asyncio.gather(holding, *following, return_exceptions=True)
    await fleet.settled()


@pytest.mark.parametrize("skew", [-90.0, 90.0])
async def test_clocks_that_are_wrong_by_a_minute_and_a_half_change_nothing(fleet: Fleet, skew: float) -> None:
    source, heir, holder = Source(*STREAM[:3]), Source(*STREAM, None), fleet.process(skew=skew)
    holding = await asked(holder, source)
    following = asyncio.create_task(fleet.process().ask())
    await asyncio.sleep(2 * PACE.silence)
    source.say(*STREAM[3:], None)
    assert [await holding, await following] == [WITHOUT_USAGE] * 2
    await fleet.settled()
    fleet.kept = None
    assert text_of(await fleet.process().ask(heir)) == TEXT
    assert fleet.generated == 2
    await fleet.settled()


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_a_generation_that_is_wanted_elsewhere_goes_on_when_its_own_readers_have_left(fleet: Fleet) -> None:
    source = Source(*STREAM[:3])
    holding = await asked(fleet.process(), source)
    following = asyncio.create_task(fleet.process().ask())
    await asyncio.sleep(0.3)
    holding.cancel()
    await asyncio.sleep(0.3)
    source.say(*STREAM[3:], None)
    assert await following == WITHOUT_USAGE
    assert fleet.generated == 1
    await fleet.settled()


async def test_a_generation_that_nobody_wants_is_called_off_and_the_next_one_begins_at_once(fleet: Fleet) -> None:
    source = Source(*STREAM[:3])
    holding = await asked(fleet.process(), source)
    holding.cancel()
    await asyncio.wait_for(source.closed.wait(), 20)
    await fleet.settled()
    assert text_of(await fleet.process().ask(Source(*STREAM, None))) == TEXT
    await fleet.settled()


async def test_followers_of_a_process_that_is_closed_go_on_with_one_generation(fleet: Fleet) -> None:
    source, heir, holder = Source(), Source(*STREAM, None), fleet.process()
    holding = await asked(holder, source)
    following = [asyncio.create_task(fleet.process().ask(heir)) for _ in range(2)]
    await asyncio.sleep(0.2)
    holder.flights.call_off()
    assert [text_of(told) for told in await asyncio.gather(*following)] == [TEXT] * 2
    await asyncio.gather(holding, return_exceptions=True)
    assert fleet.generated == 2
    await fleet.settled()


async def test_a_generation_whose_last_follower_elsewhere_has_left_is_called_off_too(fleet: Fleet) -> None:
    source = Source(*STREAM[:3])
    holding = await asked(fleet.process(), source)
    following = asyncio.create_task(fleet.process().ask())
    await asyncio.sleep(0.3)
    holding.cancel()
    following.cancel()
    await asyncio.wait_for(source.closed.wait(), 20)
    await fleet.settled()


# -- a table that is gone ----------------------------------------------------------------------------------------------


async def test_without_the_table_every_process_shares_what_it_can_by_itself() -> None:
    store = MemoryFleetStore(clock=lambda: 1.0)
    store.failing = True
    processes = [Process(Generations(store, clock=lambda: 1.0)) for _ in range(2)]
    sources = [Source(*STREAM, None), Source(*STREAM, None)]
    asking = [process.ask(one) for process, one in zip(processes, sources, strict=True) for _ in range(5)]
    assert set(await asyncio.gather(*asking)) == {WITHOUT_USAGE}
    assert [process.sources for process in processes] == [[one] for one in sources]
    assert [one.fences for one in sources] == [[None], [None]]


async def test_a_table_that_hangs_costs_its_patience_once_and_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(MemoryFleetStore(clock=lambda: 1.0))
    link.runs.clear()
    asked_for: list[str] = []
    process = Process(Generations(link, clock=lambda: 1.0, pace=Pace(patience=0.01)))

    async def hang(name: str, *_: object, **__: object) -> int:
        asked_for.append(name)
        await link.runs.wait()
        return 0

    monkeypatch.setattr(link, "write", hang)
    for mark in ("aa", "bb", "cc"):
        assert await process.ask(Source(*STREAM, None), mark=mark) == WITHOUT_USAGE
    assert asked_for == ["answer/aa"]


async def test_nobody_waits_for_a_table_that_hangs_when_the_answer_is_there() -> None:
    link = Link(MemoryFleetStore(clock=lambda: 1.0))
    process, source = Process(Generations(link, clock=lambda: 1.0, pace=PACE)), Source(STREAM[0])
    asking = await asked(process, source)
    link.runs.clear()
    await asyncio.sleep(3 * PACE.look)
    source.say(*STREAM[1:], None)
    assert await asyncio.wait_for(asking, 2) == WITHOUT_USAGE
    assert len(process.background) == 1
    link.runs.set()
    await process.background.finish()


async def test_a_lease_that_comes_too_late_makes_nobody_wait() -> None:
    store = MemoryFleetStore(clock=lambda: 1.0)
    link = Link(store)
    link.runs.clear()
    slow = Process(Generations(link, clock=lambda: 1.0, pace=PACE._replace(patience=0.01)))
    assert await slow.ask(Source(*STREAM, None)) == WITHOUT_USAGE
    assert await store.read(f"answer/{MARK}", now=1.0) == (None, 0)
    link.runs.set()
    await asyncio.sleep(0.05)
    quick = Process(Generations(store, clock=lambda: 1.0))
    source = Source(*STREAM, None)
    assert await asyncio.wait_for(quick.ask(source), 1.0) == WITHOUT_USAGE
    await quick.background.finish()
    assert source.fences == [3], "the first two were those of the late one, and its end"


async def test_a_table_that_goes_while_others_are_followed_makes_nobody_wait_longer_than_for_the_dead() -> None:
    store = MemoryFleetStore(clock=lambda: 1.0)
    pace = PACE._replace(silence=0.2)
    one, other = (Process(Generations(store, clock=lambda: 1.0, pace=pace)) for _ in range(2))
    source, own = Source(), Source(*STREAM, None)
    holding = await asked(one, source)
    following = asyncio.create_task(other.ask(own))
    await asyncio.sleep(0.1)
    store.failing = True
    assert await following == WITHOUT_USAGE
    source.say(*STREAM, None)
    assert await holding == WITHOUT_USAGE


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["too late", "called off"])
async def test_a_lease_that_nobody_waited_for_is_given_back_before_the_edge_ends(is_cancelled: bool) -> None:
    store, background = MemoryFleetStore(clock=lambda: 1.0), Background()
    link = Link(store)
    link.runs.clear()
    patience = 60.0 if is_cancelled else 0.01
    slow = Generations(link, clock=lambda: 1.0, pace=PACE._replace(patience=patience), background=background)
    taking = asyncio.create_task(slow.take(MARK, seconds=60.0))
    await asyncio.sleep(0.02)
    taking.cancel()
    await asyncio.wait([taking])
    link.runs.set()
    await background.finish()
    assert isinstance(await Generations(store, clock=lambda: 1.0, pace=PACE).take(MARK, seconds=60.0), Lease)
