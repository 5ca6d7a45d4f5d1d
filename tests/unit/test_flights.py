"""Identical requests in one process: one generation, and for each of them a reply as if it were its own."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from isochrone.answers.flight_broadcast import AHEAD_BYTES
from isochrone.api.errors import ApiError, BadRequest, DeadlinePassed, NothingAlive
from isochrone.api.sse import DONE_EVENT
from tests.flights import STREAM, WITHOUT_USAGE, Process, Source, read, rest
from tests.tellings import text_of
from tests.upstream import TEXT, chunk, completion

BODY = json.dumps(completion()).encode()


@pytest.fixture
async def process() -> Process:
    return Process()


def content(body: bytes) -> str:
    told: str = json.loads(body)["choices"][0]["message"]["content"]
    return told


async def test_a_hundred_askers_share_one_generation_and_each_hears_every_byte(process: Process) -> None:
    source = Source()
    asking = [asyncio.create_task(process.ask(source)) for _ in range(100)]
    await rest()
    source.say(*STREAM, None)
    assert {*await asyncio.gather(*asking)} == {WITHOUT_USAGE}
    assert len(process.sources) == 1


async def test_the_first_asker_is_a_miss_and_the_others_are_coalesced(process: Process) -> None:
    source = Source(*STREAM, None)
    one, other = await asyncio.gather(*(process.flights.share(process.asker(source)) for _ in range(2)))
    assert [reply.headers["x-isochrone-cache"] for reply in (one, other)] == ["miss", "coalesced"]
    assert one.headers["x-isochrone-backend"] == other.headers["x-isochrone-backend"] == "pool"
    assert one.headers is not other.headers
    await asyncio.gather(read(one), read(other))


async def test_one_who_comes_in_the_middle_hears_the_beginning_at_once_and_the_rest_as_it_comes(
    process: Process,
) -> None:
    source = Source(*STREAM[:4])
    early = await process.flights.share(process.asker(source))
    await rest()
    late = await process.flights.share(process.asker())
    assert late.stream
    heard = [await anext(aiter(late.stream)) for _ in range(4)]
    assert heard == STREAM[:4]
    source.say(*STREAM[4:], None)
    assert b"".join(heard) + await read(late) == await read(early) == WITHOUT_USAGE


async def test_only_those_who_asked_for_usage_hear_of_it(process: Process) -> None:
    source = Source(*STREAM, None)
    silent, told = await asyncio.gather(process.ask(source), process.ask(source, include_usage=True))
    assert (silent, told) == (WITHOUT_USAGE, b"".join(STREAM))


async def test_usage_is_left_out_also_where_it_comes_with_the_last_word(process: Process) -> None:
    together = b"".join(STREAM[-3:])
    heard = await process.ask(Source(*STREAM[:-3], together, None))
    assert heard == WITHOUT_USAGE


async def test_a_body_is_shared_byte_by_byte(process: Process) -> None:
    source = Source(stream=False)
    asking = [asyncio.create_task(process.ask(source, stream=False)) for _ in range(3)]
    await rest()
    source.say(BODY)
    assert await asyncio.gather(*asking) == [BODY] * 3
    assert len(process.sources) == 1


async def test_each_gets_the_form_it_asked_for_of_the_one_answer(process: Process) -> None:
    source = Source(*STREAM)
    stream = asyncio.create_task(process.ask(source))
    await rest()
    body = asyncio.create_task(process.ask(stream=False))
    await rest()
    assert not body.done()
    source.say(None)
    assert (text_of(await stream), content(await body)) == (TEXT, TEXT)


async def test_a_stream_is_made_of_a_body_for_one_who_wants_that(process: Process) -> None:
    source = Source(stream=False)
    body = asyncio.create_task(process.ask(source, stream=False))
    await rest()
    stream = asyncio.create_task(process.ask())
    await rest()
    source.say(BODY)
    assert (content(await body), text_of(await stream)) == (TEXT, TEXT)
    assert (await stream).endswith(DONE_EVENT)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_flight_that_is_over_is_not_left_to_the_garbage_collector(process: Process, stream: bool) -> None:
    source = Source(*STREAM, None) if stream else Source(BODY, stream=False)
    gc.collect()
    gc.disable()
    try:
        await process.ask(source, stream=stream)
        await process.background.finish()
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_a_leaving_first_asker_changes_nothing_for_the_others(process: Process) -> None:
    source = Source(*STREAM[:3])
    first = await process.flights.share(process.asker(source))
    other = await process.flights.share(process.asker())
    assert first.stream
    await anext(aiter(first.stream))
    await first.stream.aclose()
    source.say(*STREAM[3:], None)
    assert await read(other) == WITHOUT_USAGE


async def test_a_first_asker_that_leaves_before_the_first_word_changes_nothing_either(process: Process) -> None:
    source = Source()
    first = asyncio.create_task(process.ask(source))
    await rest()
    other = asyncio.create_task(process.ask())
    await rest()
    first.cancel()
    await rest()
    source.say(*STREAM, None)
    assert await other == WITHOUT_USAGE


@pytest.mark.parametrize("said", [[], STREAM[:3]])
async def test_when_the_last_one_has_left_the_generation_is_closed(process: Process, said: list[bytes]) -> None:
    source = Source(*said)
    asking = [asyncio.create_task(process.ask(source)) for _ in range(2)]
    await rest()
    asking[0].cancel()
    await rest()
    assert not source.closed.is_set()
    asking[1].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.wait_for(source.closed.wait(), 1)
    await process.background.finish()
    assert len(process.flights) == 0


async def test_reply_that_was_never_read_is_let_go_when_it_is_closed(process: Process) -> None:
    source = Source(*STREAM[:2])
    reply = await process.flights.share(process.asker(source))
    assert reply.stream
    await reply.stream.aclose()
    await asyncio.wait_for(source.closed.wait(), 1)
    await process.background.finish()


async def test_what_comes_after_the_end_but_before_it_is_kept_is_answered_too(process: Process) -> None:
    source, keeping = Source(*STREAM[:2]), asyncio.Event()
    reply = await process.flights.share(process.asker(source))
    assert source.generation

    async def slowly(_: int | None) -> bool:
        await keeping.wait()
        return True

    settle = source.generation.settle
    source.generation.settle = lambda answer, keep: settle(answer, slowly)  # type: ignore[method-assign]
    source.say(*STREAM[2:], None)
    assert await read(reply) == WITHOUT_USAGE
    assert await process.ask() == WITHOUT_USAGE
    assert content(await process.ask(stream=False)) == TEXT
    keeping.set()
    await process.background.finish()
    assert len(process.flights) == 0


async def test_the_answer_is_kept_once(process: Process) -> None:
    source = Source(*STREAM, None)
    await asyncio.gather(*(process.ask(source) for _ in range(5)))
    await process.background.finish()
    assert source.fences == [None]


# -- failures ----------------------------------------------------------------------------------------------------------


async def outcomes(process: Process, *sources: Source | None, **more: Any) -> list[object]:
    asking = [asyncio.create_task(process.ask(source, **more)) for source in sources]
    return await asyncio.gather(*asking, return_exceptions=True)


async def test_a_final_refusal_is_shared(process: Process) -> None:
    told = await outcomes(process, Source(BadRequest("no")), None, None)
    assert [type(one) for one in told] == [BadRequest] * 3
    assert len(process.sources) == 1


@pytest.mark.parametrize("failure", [NothingAlive("dead"), DeadlinePassed("late"), RuntimeError("a bug")])
async def test_after_any_other_failure_exactly_one_follower_generates_for_the_rest(
    process: Process, failure: Exception
) -> None:
    heir = Source(*STREAM, None)
    told = await outcomes(process, Source(failure), *[heir] * 20)
    assert told == [failure, *[WITHOUT_USAGE] * 20]
    assert len(process.sources) == 2


async def test_the_successor_is_the_one_with_the_most_time(process: Process) -> None:
    short, long = Source(*STREAM, None), Source(*STREAM, None)
    asking = [
        asyncio.create_task(process.ask(source, seconds=seconds))
        for source, seconds in ((Source(NothingAlive("dead")), 60), (short, 50), (long, 90), (short, 50))
    ]
    await asyncio.gather(*asking, return_exceptions=True)
    assert process.sources[1:] == [long]


async def test_when_the_successor_fails_too_everybody_hears_its_error_and_nobody_asks_again(process: Process) -> None:
    heir = Source(NothingAlive("still dead"))
    told = await outcomes(process, Source(NothingAlive("dead")), *[heir] * 20)
    assert [str(one) for one in told] == ["dead", *["still dead"] * 20]
    assert len(process.sources) == 2


async def test_a_failed_flight_takes_nobody_on_board_any_more(process: Process) -> None:
    with pytest.raises(NothingAlive):
        await process.ask(Source(NothingAlive("dead")))
    assert await process.ask(Source(*STREAM, None)) == WITHOUT_USAGE


async def test_a_stream_that_breaks_ends_for_all_with_what_it_says_itself(process: Process) -> None:
    broken = b'data: {"error":{"message":"cut"}}\n\n'
    source = Source(*STREAM[:4])
    streams = [asyncio.create_task(process.ask(source)) for _ in range(2)]
    await rest()
    body = asyncio.create_task(process.ask(Source(BODY, stream=False), stream=False))
    await rest()
    assert source.generation
    source.generation.broke()
    source.generation.settle = lambda *_: None  # type: ignore[method-assign]
    source.say(broken, None)
    assert await asyncio.gather(*streams) == [b"".join(STREAM[:4]) + broken] * 2
    assert await body == BODY, "who has heard nothing of it asks anew"


async def test_an_answer_that_cannot_be_stored_is_no_answer_for_who_wants_it_in_the_other_form(
    process: Process,
) -> None:
    source = Source(*STREAM)
    stream = asyncio.create_task(process.ask(source))
    await rest()
    bodies = [asyncio.create_task(process.ask(Source(BODY, stream=False), stream=False)) for _ in range(5)]
    await rest()
    assert source.generation
    source.generation.settle = lambda *_: None  # type: ignore[method-assign]
    source.say(None)
    assert await asyncio.gather(stream, *bodies) == [WITHOUT_USAGE, *[BODY] * 5]
    assert len(process.sources) == 2


async def test_one_for_whom_the_second_flight_has_nothing_either_gets_its_own_generation_as_it_wants_it(
    process: Process,
) -> None:
    first, second, own = Source(), Source(stream=False), Source(*STREAM, None)
    lead = asyncio.create_task(process.ask(first))
    await rest()
    body = asyncio.create_task(process.ask(second, stream=False, seconds=90))
    stream = asyncio.create_task(process.ask(own))
    await rest()
    first.say(NothingAlive("dead"))
    await asyncio.wait_for(second.begun.wait(), 5)
    assert second.generation
    second.generation.settle = lambda *_: None  # type: ignore[method-assign]
    second.say(BODY)
    assert [await body, await stream] == [BODY, WITHOUT_USAGE]
    await asyncio.gather(lead, return_exceptions=True)
    await process.background.finish()
    assert own.fences == [None]


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_follower_is_told_when_its_own_time_is_over_and_the_others_go_on(process: Process) -> None:
    source = Source(*STREAM[:3])
    lead = await process.flights.share(process.asker(source))
    hasty = await process.ask(seconds=0.05)
    assert hasty.startswith(b"".join(STREAM[:3]))
    assert b"deadline_passed" in hasty
    assert not hasty.endswith(DONE_EVENT)
    source.say(*STREAM[3:], None)
    assert await read(lead) == WITHOUT_USAGE


async def test_who_lags_behind_gets_no_longer_time_than_it_has(process: Process) -> None:
    source = Source(*STREAM[:4])
    lead = await process.flights.share(process.asker(source))
    lagging = await process.flights.share(process.asker(seconds=0.05))
    await rest()
    assert lagging.stream
    heard = await anext(aiter(lagging.stream))
    await asyncio.sleep(0.1)
    told = heard + await read(lagging)
    assert told.startswith(STREAM[0] + b'data: {"error"')
    assert b"deadline_passed" in told
    source.say(*STREAM[4:], None)
    assert await read(lead) == WITHOUT_USAGE


async def test_who_lags_behind_a_whole_answer_gets_all_of_it(process: Process) -> None:
    source = Source(*STREAM[:4])
    lead = await process.flights.share(process.asker(source))
    lagging = await process.flights.share(process.asker(seconds=0.05))
    source.say(*STREAM[4:], None)
    assert await read(lead) == WITHOUT_USAGE
    await asyncio.sleep(0.1)
    assert await read(lagging) == WITHOUT_USAGE


async def test_followers_that_were_shown_nothing_in_half_of_their_time_share_a_generation_of_their_own(
    process: Process,
) -> None:
    slow, quick = Source(), Source(*STREAM, None)
    lead = asyncio.create_task(process.ask(slow))
    await rest()
    assert await asyncio.gather(*(process.ask(quick, seconds=0.2) for _ in range(20))) == [WITHOUT_USAGE] * 20
    assert process.sources == [slow, quick]
    slow.say(*STREAM, None)
    assert await lead == WITHOUT_USAGE


async def test_nobody_gives_up_on_a_stream_that_tells(process: Process) -> None:
    source = Source(*STREAM[:2])
    lead = asyncio.create_task(process.ask(source))
    await rest()
    follower = asyncio.create_task(process.ask(seconds=0.2))
    await asyncio.sleep(0.15)
    source.say(*STREAM[2:], None)
    assert [await lead, await follower] == [WITHOUT_USAGE] * 2


async def test_no_follower_waits_past_its_own_deadline(process: Process) -> None:
    stuck = Source()
    lead = asyncio.create_task(process.ask(stuck))
    await rest()
    followers = await outcomes(process, *[Source()] * 10, seconds=0.1)
    assert [type(one) for one in followers] == [DeadlinePassed] * 10
    assert len(process.sources) == 2
    lead.cancel()
    await asyncio.gather(lead, return_exceptions=True)
    await process.background.finish()


async def test_who_has_much_more_time_does_not_rely_on_one_with_little(process: Process) -> None:
    hasty, patient = Source(), Source()
    asking = [
        asyncio.create_task(process.ask(source, seconds=seconds))
        for source, seconds in ((hasty, 10), (patient, 60), (None, 60), (None, 50))
    ]
    await rest()
    assert process.sources == [hasty, patient]
    for source in (hasty, patient):
        source.say(*STREAM, None)
    assert await asyncio.gather(*asking) == [WITHOUT_USAGE] * 4


async def test_who_is_urgent_does_not_wait_behind_one_that_can_wait(process: Process) -> None:
    idle, urgent = Source(), Source(*STREAM, None)
    waiting = asyncio.create_task(process.ask(idle, priority=1))
    await rest()
    assert await process.ask(urgent, priority=9) == WITHOUT_USAGE
    idle.say(*STREAM, None)
    await waiting


# -- speed -------------------------------------------------------------------------------------------------------------

LONG = [chunk({"content": f"{number:05d} " * 20}) for number in range(4000)]


async def test_a_generation_is_not_far_ahead_of_the_fastest_who_reads(process: Process) -> None:
    source = Source(*LONG, None)
    reply = await process.flights.share(process.asker(source))
    for _ in range(2 * len(LONG)):
        await asyncio.sleep(0)
    said = len(LONG) - source.unsaid
    assert 0 < said * len(LONG[0]) <= AHEAD_BYTES + 2 * len(LONG[0])
    assert text_of(await read(reply)) == text_of(b"".join(LONG))


async def test_a_slow_reader_keeps_nobody_waiting_and_misses_nothing(process: Process) -> None:
    source = Source(*LONG, None)
    fast, slow = [await process.flights.share(process.asker(one)) for one in (source, None)]
    assert slow.stream
    heard = [await anext(aiter(slow.stream)) for _ in range(3)]
    assert await read(fast) == b"".join(LONG)
    assert b"".join(heard) + await read(slow) == b"".join(LONG)


async def test_one_who_waits_for_the_whole_is_not_kept_waiting_by_a_slow_reader(process: Process) -> None:
    source = Source(*LONG, None)
    slow = await process.flights.share(process.asker(source))
    assert content(await process.ask(stream=False)) == TEXT
    assert await read(slow) == b"".join(LONG)


async def test_a_fast_reader_that_leaves_does_not_stop_the_rest(process: Process) -> None:
    source = Source(*LONG, None)
    fast, slow = [await process.flights.share(process.asker(one)) for one in (source, None)]
    assert fast.stream
    for _ in range(1000):
        await anext(aiter(fast.stream))
    await fast.stream.aclose()
    assert await read(slow) == b"".join(LONG)


async def test_requests_that_are_not_the_same_share_nothing(process: Process) -> None:
    one, other = Source(*STREAM, None), Source(*STREAM, None)
    await asyncio.gather(process.ask(one), process.ask(other, mark="cd" * 32))
    assert process.sources == [one, other]


async def test_a_call_off_ends_what_flies(process: Process) -> None:
    source = Source()
    asking = asyncio.create_task(process.ask(source))
    await rest()
    process.flights.call_off()
    await asyncio.wait_for(source.closed.wait(), 1)
    with pytest.raises(ApiError):
        await asking


async def test_a_call_off_ends_also_what_nobody_boards_any_more(process: Process) -> None:
    hasty, patient = Source(), Source()
    asking = [
        asyncio.create_task(process.ask(source, seconds=seconds)) for source, seconds in ((hasty, 10), (patient, 60))
    ]
    await asyncio.gather(hasty.begun.wait(), patient.begun.wait())
    process.flights.call_off()
    await asyncio.wait_for(asyncio.gather(hasty.closed.wait(), patient.closed.wait()), 1)
    assert [type(one) for one in await asyncio.gather(*asking, return_exceptions=True)] == [NothingAlive] * 2
