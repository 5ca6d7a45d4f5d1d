from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest

from isochrone.answers.codec import from_bytes
from isochrone.answers.completion import Answer
from isochrone.answers.known import Known
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.stores.entries import DIMENSIONS, Entry
from isochrone.stores.memory import MemoryAnswerStore
from tests.inquiries import chat, inquiry

NOW = 1000.0
BODY: dict[str, Any] = {"choices": [{"message": {"content": "Not far."}, "finish_reason": "stop"}]}
CALL: dict[str, Any] = {
    "choices": [
        {"message": {"content": None, "tool_calls": [{"id": "c", "function": {}}]}, "finish_reason": "tool_calls"}
    ]
}
ASKED = inquiry()


def answer(body: dict[str, Any] | None = None, created: float = NOW) -> Answer:
    return Answer(operation="chat", backend="pool-eu", created=created, body=body or BODY)


class WatchedStore(MemoryAnswerStore):
    """Counts reads, remembers which were consistent, and lets a test hold them up."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW)
        self.reads = 0
        self.consistent: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, fingerprint: str, *, now: float, consistent: bool = False) -> bytes | None:
        self.reads += 1
        self.consistent.append(consistent)
        await asyncio.sleep(0)
        await self.gate.wait()
        return await super().get(fingerprint, now=now, consistent=consistent)


class Shelves:
    """Two tiers that a test can look into; `other()` is another process with the same store."""

    def __init__(self) -> None:
        self.store = WatchedStore()
        self.memory = MemoryTier(max_bytes=100_000, ttl=300)
        self.counts: list[str] = []
        self.chances = 0.5
        self.library = self.other(self.memory)

    def other(self, memory: MemoryTier | None = None, also: tuple[str, ...] = ()) -> Library:
        memory = memory or MemoryTier(max_bytes=100_000, ttl=300)
        return Library(self.store, memory, chance=lambda: self.chances, also=also, count=self.counts.append)


@pytest.fixture
def shelves() -> Shelves:
    return Shelves()


def said(known: Known | None) -> Any:
    return known and known.answer.body


async def test_kept_answer_is_found_here_and_in_another_process(shelves: Shelves) -> None:
    assert await shelves.library.keep(ASKED, answer())
    here, there = [await library.look_up(ASKED, now=NOW) for library in (shelves.library, shelves.other())]
    assert (said(here), said(there)) == (BODY, BODY)
    assert here and there
    assert (here.tier, there.tier, here.mark, here.stale_for) == ("memory", "store", "f", 0.0)
    assert await shelves.library.look_up(inquiry("g"), now=NOW) is None


async def test_request_without_a_fingerprint_is_neither_looked_up_nor_kept(shelves: Shelves) -> None:
    assert not await shelves.library.keep(inquiry(None), answer())
    assert await shelves.library.look_up(inquiry(None), now=NOW) is None
    assert (shelves.store.reads, len(shelves.store)) == (0, 0)


async def test_answer_that_may_not_be_kept_for_any_time_is_not(shelves: Shelves) -> None:
    assert not await shelves.library.keep(inquiry(ttl=0), answer())
    assert (len(shelves.memory.values), len(shelves.store)) == (0, 0)


async def test_answer_from_the_store_stays_in_memory(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    other = shelves.other()
    await other.look_up(ASKED, now=NOW)
    shelves.store.failing = True
    assert said(await other.look_up(ASKED, now=NOW)) == BODY


@pytest.mark.parametrize("seconds", [3600, 3601, 1e6])
async def test_answer_past_its_time_is_a_miss_in_both_tiers(shelves: Shelves, seconds: float) -> None:
    await shelves.library.keep(ASKED, answer())
    assert await shelves.library.look_up(ASKED, now=NOW + seconds) is None
    assert await shelves.other().look_up(ASKED, now=NOW + seconds) is None


async def test_late_look_up_does_not_lengthen_an_answers_life(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    other = shelves.other()
    assert said(await other.look_up(ASKED, now=NOW + 3599)) == BODY
    assert await other.look_up(ASKED, now=NOW + 3600) is None


async def test_time_counts_from_when_the_answer_was_made(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer(created=NOW - 1000))
    assert said(await shelves.library.look_up(ASKED, now=NOW + 2599)) == BODY
    assert await shelves.library.look_up(ASKED, now=NOW + 2600) is None


async def test_answer_for_ever_has_no_end_in_either_tier(shelves: Shelves) -> None:
    for_ever = inquiry(ttl=inf)
    await shelves.library.keep(for_ever, answer())
    assert said(await shelves.library.look_up(for_ever, now=NOW + 1e10)) == BODY
    assert said(await shelves.other().look_up(for_ever, now=NOW + 1e10)) == BODY


@pytest.mark.parametrize(("chance", "life"), [(0.0, 3240.0), (0.25, 3420.0), (0.5, 3600.0), (1.0, 3960.0)])
async def test_answers_kept_at_one_moment_end_within_a_tenth_of_their_time_of_each_other(
    shelves: Shelves, chance: float, life: float
) -> None:
    shelves.chances = chance
    await shelves.library.keep(ASKED, answer())
    assert said(await shelves.library.look_up(ASKED, now=NOW + life - 1)) == BODY
    assert await shelves.library.look_up(ASKED, now=NOW + life + 1) is None


@pytest.mark.parametrize("terms", [{"revalidate": 60.0}, {"on_error": 60.0}])
async def test_answer_past_its_time_is_known_as_stale_for_as_long_as_the_terms_allow(
    shelves: Shelves, terms: dict[str, Any]
) -> None:
    patient = inquiry(**terms)
    await shelves.library.keep(patient, answer())
    both = (shelves.library, shelves.other())
    stale = [await library.look_up(patient, now=NOW + 3650) for library in both]
    assert [known and known.stale_for for known in stale] == [50.0, 50.0]
    assert [await library.look_up(patient, now=NOW + 3660) for library in both] == [None, None]


async def test_stale_answer_is_not_known_to_who_wants_none(shelves: Shelves) -> None:
    await shelves.library.keep(inquiry(on_error=60), answer())
    assert await shelves.library.look_up(ASKED, now=NOW + 3650) is None


async def test_terms_of_who_asks_count_even_if_it_was_kept_on_longer_ones(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    hasty = inquiry(ttl=60)
    assert await shelves.library.look_up(hasty, now=NOW + 67) is None
    assert said(await shelves.library.look_up(hasty, now=NOW + 65)) == BODY
    assert said(await shelves.library.look_up(ASKED, now=NOW + 67)) == BODY


async def test_store_that_is_gone_is_a_miss_and_never_an_error(shelves: Shelves) -> None:
    shelves.store.failing = True
    assert await shelves.library.look_up(ASKED, now=NOW) is None
    assert not await shelves.library.keep(ASKED, answer())
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == BODY


async def test_hot_answer_is_read_from_the_store_once_in_the_time_that_memory_is_believed(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    for second in range(600):
        assert said(await shelves.library.look_up(ASKED, now=NOW + second)) == BODY
    assert shelves.store.reads == 1


async def test_answer_that_is_gone_from_the_store_is_gone_from_memory_when_that_asks_again(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    await shelves.store.delete("f")
    assert said(await shelves.library.look_up(ASKED, now=NOW + 299)) == BODY
    assert await shelves.library.look_up(ASKED, now=NOW + 300) is None
    assert len(shelves.memory.values) == 0


async def test_memory_goes_on_alone_while_the_store_is_gone_and_asks_it_seldom(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    shelves.store.failing = True
    for tenth in range(100):
        assert said(await shelves.library.look_up(ASKED, now=NOW + 300 + tenth / 10)) == BODY
    assert shelves.store.reads == 2


async def test_newer_answer_of_another_process_is_seen_soon_after_the_own_one_is_past_its_time(
    shelves: Shelves,
) -> None:
    patient = inquiry(revalidate=600)
    newer = {"choices": [{"message": {"content": "Nearer."}, "finish_reason": "stop"}]}
    await shelves.library.keep(patient, answer())
    stale = await shelves.library.look_up(patient, now=NOW + 3601)
    assert stale
    assert stale.stale_for == 1.0
    await shelves.other().keep(patient, answer(newer, created=NOW + 3601))
    assert said(await shelves.library.look_up(patient, now=NOW + 3602)) == newer


async def test_only_one_asks_the_store_while_others_take_what_memory_has(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    shelves.store.gate.clear()
    first = asyncio.create_task(shelves.library.look_up(ASKED, now=NOW + 300))
    await asyncio.sleep(0)
    others = [await shelves.library.look_up(ASKED, now=NOW + 300) for _ in range(20)]
    shelves.store.gate.set()
    assert [said(known) for known in [*others, await first]] == [BODY] * 21
    assert shelves.store.reads == 1


async def test_many_who_miss_at_once_read_the_store_once(shelves: Shelves) -> None:
    await shelves.other().keep(ASKED, answer())
    found = await asyncio.gather(*(shelves.library.look_up(ASKED, now=NOW) for _ in range(50)))
    assert [said(known) for known in found] == [BODY] * 50
    assert shelves.store.reads == 1


async def test_when_the_one_who_reads_is_called_off_another_reads(shelves: Shelves) -> None:
    await shelves.other().keep(ASKED, answer())
    shelves.store.gate.clear()
    first, *others = (asyncio.create_task(shelves.library.look_up(ASKED, now=NOW)) for _ in range(5))
    await asyncio.sleep(0)
    first.cancel()
    shelves.store.gate.set()
    assert [said(known) for known in await asyncio.gather(*others)] == [BODY] * 4
    assert first.cancelled()
    assert shelves.store.reads == 2


async def test_answer_kept_while_the_store_is_being_asked_is_not_lost(shelves: Shelves) -> None:
    shelves.store.gate.clear()
    looking = asyncio.create_task(shelves.library.look_up(ASKED, now=NOW))
    await asyncio.sleep(0)
    shelves.store.failing = True
    await shelves.library.keep(ASKED, answer())
    shelves.store.failing = False
    shelves.store.gate.set()
    assert said(await looking) == BODY
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == BODY


async def test_consistent_look_up_asks_the_store_although_memory_has_an_answer(shelves: Shelves) -> None:
    newer = {"choices": [{"message": {"content": "Nearer."}, "finish_reason": "stop"}]}
    await shelves.library.keep(ASKED, answer())
    await shelves.other().keep(ASKED, answer(newer))
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == BODY
    assert said(await shelves.library.look_up(ASKED, now=NOW, consistent=True)) == newer
    assert shelves.store.consistent == [True]


async def test_incomplete_answer_is_kept_nowhere(shelves: Shelves) -> None:
    cut: dict[str, Any] = {"choices": [{"message": {"content": "Not"}, "finish_reason": "length"}]}
    assert not await shelves.library.keep(ASKED, answer(cut))
    assert (len(shelves.memory.values), len(shelves.store)) == (0, 0)


async def test_calls_of_tools_are_kept_only_where_the_operator_says_so(shelves: Shelves) -> None:
    assert not await shelves.library.keep(ASKED, answer(CALL))
    assert await shelves.other(also=("tools",)).keep(ASKED, answer(CALL))


async def test_answer_with_fewer_choices_than_asked_for_is_not_kept(shelves: Shelves) -> None:
    library = shelves.other(also=("choices",))
    assert not await library.keep(inquiry(ask=chat(n=2)), answer())
    assert await library.keep(inquiry(ask=chat(n=2)), answer({"choices": BODY["choices"] * 2}))


async def test_answer_too_large_for_the_store_is_kept_in_memory_only_and_counted(shelves: Shelves) -> None:
    shelves.store.max_bytes = 1000
    noise = "".join(chr(0x4E00 + i * i % 20_000) for i in range(5000))
    large: dict[str, Any] = {"choices": [{"message": {"content": noise}, "finish_reason": "stop"}]}
    assert not await shelves.library.keep(ASKED, answer(large))
    assert (len(shelves.memory.values), len(shelves.store)) == (1, 0)
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == large
    assert shelves.counts == ["answers_too_large"]


@pytest.mark.parametrize("value", [2**64, "\ud800"], ids=["a number of 65 bits", "half a character"])
async def test_answer_that_cannot_be_packed_is_counted_and_no_error(shelves: Shelves, value: Any) -> None:
    assert not await shelves.library.keep(ASKED, answer({**BODY, "x": value}))
    assert shelves.counts == ["answers_unpackable"]


@pytest.mark.parametrize("value", [b"", b"\xc1", b"another version"])
async def test_value_that_cannot_be_read_is_a_miss(shelves: Shelves, value: bytes) -> None:
    await shelves.store.put("f", value, tenant="t", expires=NOW + 10)
    assert await shelves.library.look_up(ASKED, now=NOW) is None
    assert await shelves.library.keep(ASKED, answer())
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == BODY


async def test_holder_who_was_overtaken_overwrites_nothing_and_keeps_nothing_in_memory(shelves: Shelves) -> None:
    late = {"choices": [{"message": {"content": "Old news."}, "finish_reason": "stop"}]}
    assert await shelves.other().keep(ASKED, answer(), fence=2)
    assert not await shelves.library.keep(ASKED, answer(late), fence=1)
    assert shelves.counts == ["answers_fenced_off"]
    assert said(await shelves.library.look_up(ASKED, now=NOW)) == BODY


async def test_forgotten_answer_is_gone_from_both_tiers(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    assert await shelves.library.forget("f")
    assert await shelves.library.look_up(ASKED, now=NOW) is None
    assert len(shelves.store) == 0


async def test_store_that_cannot_be_told_to_forget_is_said_so(shelves: Shelves) -> None:
    await shelves.library.keep(ASKED, answer())
    shelves.store.failing = True
    assert not await shelves.library.forget("f")
    assert len(shelves.memory.values) == 0


async def test_entry_goes_with_the_answer_to_who_searches(shelves: Shelves) -> None:
    entry = Entry("scope", "How far?", [1.0] + [0.0] * (DIMENSIONS - 1))
    await shelves.library.keep(ASKED, answer(), entry=entry)
    (found,) = await shelves.store.search("scope", entry.vector, limit=3, now=NOW)
    assert (found.fingerprint, found.question, found.fresh_until) == ("f", "How far?", NOW + 3600)


async def test_stored_answer_says_until_when_it_is_true(shelves: Shelves) -> None:
    await shelves.library.keep(inquiry(on_error=60), answer())
    value = await shelves.store.get("f", now=NOW + 3659)
    stored = from_bytes(value) if value else None
    assert stored
    assert stored.fresh_until == NOW + 3600
