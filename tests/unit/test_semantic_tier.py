"""The semantic tier with a scripted judge and embedder: what it asks of whom, what it learns, what it does without."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from isochrone.answers.completion import Answer
from isochrone.answers.desk import NOTHING_FOUND, Found
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.answers.semantic.decision import Experience, Judge, Lessons, Verdict, Weighed
from isochrone.answers.semantic.embedder import Embedder
from isochrone.answers.semantic.embeddings import Embeddings
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.pending import Pending
from isochrone.answers.semantic.standing import Standings
from isochrone.answers.semantic.tier import Candidate, SemanticTier
from isochrone.answers.semantic.vectors import DIMENSIONS, cosine, pack
from isochrone.api.controls import CacheMode
from isochrone.settings import Semantic
from isochrone.stores.entries import Neighbour
from isochrone.stores.memory import MemoryAnswerStore, MemoryFleetStore
from tests.inquiries import chat, inquiry

NOW = 1000.0
KNOWN = "How do I reset my password?"
ASKED = "What is the way to reset my password?"
SAID = "Open the settings, choose security, and follow the link."
FEATURES = (1.0,) * 12
HIT = Weighed(Verdict.HIT, 0.999, "similar", FEATURES, "en")
AUDIT = Weighed(Verdict.EXPLORE, 0.999, "audit", FEATURES, "en", audit=True)
DOUBT = Weighed(Verdict.EXPLORE, 0.8, "doubt", FEATURES, "en")
UNLIKELY = Weighed(Verdict.EXPLORE, 0.01, "doubt", FEATURES, "en")


class ScriptedJudge(Judge):
    """Says `verdict` of every pair that no guard objects to, and remembers what it was told of whom at the last; of
    the best case, which it is asked about before anything is embedded, it says `at_best`."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.verdict = HIT
        self.at_best = HIT
        self.told: list[tuple[str, str, float | None, Lessons]] = []

    def weigh(
        self,
        asked: str,
        known: str,
        cosine: float | None,
        *,
        rivals: Sequence[float] = (),
        lessons: Lessons,
        experience: Experience,
        chance: float,
    ) -> Weighed:
        if reason := objection(asked, known):
            return Weighed(Verdict.MISS, 0.0, reason)
        if chance == 1.0:
            return self.at_best
        self.told.append((asked, known, cosine, lessons))
        return self.verdict


class CountingEmbedder:
    """Texts of one length have one embedding."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[bytes]:
        self.texts += texts
        return [pack([1.0, *[0.0] * (DIMENSIONS - 1)]) for _ in texts]


class WatchedStore(MemoryAnswerStore):
    """Counts searches and can be made to hang."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW)
        self.searches = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        self.searches += 1
        await self.gate.wait()
        return await super().search(scope, vector, limit=limit, now=now)


class Room:
    """A tier over stores in memory, and all that its parts were told."""

    def __init__(
        self,
        settings: Semantic | None = None,
        *,
        fleet: MemoryFleetStore | None = None,
        embedder: Embedder | None = None,
        pending: Pending | None = None,
    ) -> None:
        self.store = WatchedStore()
        self.library = Library(self.store, MemoryTier(max_bytes=100_000, ttl=300), chance=lambda: 0.5)
        self.embed = CountingEmbedder()
        self.judge = ScriptedJudge()
        self.standings = Standings(fleet)
        self.chance = 0.9
        self.counts: list[str] = []
        self.tier = SemanticTier(
            self.store,
            self.library,
            Embeddings(embedder or Embedder(lambda: self.embed), count=self.counts.append),
            self.judge,
            self.standings,
            settings=settings or Semantic(shadow=0.1),
            chance=lambda: self.chance,
            pending=pending,
            patience=0.05,
            count=self.counts.append,
        )

    async def know(self, text: str = KNOWN, said: str = SAID, *, mark: str = "a" * 64, ttl: float = 3600.0) -> None:
        """Keep an answer to this question, as the desk does."""
        known = asking(text, mark, ttl=ttl)
        await self.library.keep(known, answer(said), entry=self.tier.entry_of(known))

    async def ask(self, text: str = ASKED, *, now: float = NOW, **more: Any) -> Found:
        return await self.tier.look_up(asking(text, **more), now=now)

    async def candidate(self) -> Candidate:
        """One that was not trusted."""
        self.judge.verdict = DOUBT
        found = (await self.ask()).candidate
        assert isinstance(found, Candidate)
        return found

    async def entry(self) -> Neighbour:
        """The one known question, as the store has it now."""
        asked = self.tier.entry_of(asking(KNOWN))
        assert asked is not None
        (found,) = await self.store.search(asked.scope, asked.vector, limit=8, now=NOW)
        return found


def asking(text: str, mark: str = "b" * 64, *, semantic: bool = True, **more: Any) -> Inquiry:
    asked = inquiry(mark, ask=chat(text), **more)
    return asked._replace(terms=asked.terms._replace(semantic=semantic))


def answer(said: str, created: float = NOW) -> Answer:
    body = {"choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]}
    return Answer(operation="chat", backend="pool", created=created, body=body)


@pytest.fixture
def room() -> Room:
    return Room()


async def test_a_hit_is_the_answer_of_the_known_question_and_says_how_sure_it_is(room: Room) -> None:
    await room.know()
    found = await room.ask()
    assert found.known is not None
    assert (found.known.tier, found.known.mark, found.candidate) == ("semantic", "a" * 64, None)
    assert found.known.answer.body == answer(SAID).body
    assert "0.9990" in found.known.why


async def test_nothing_similar_is_known_costs_no_embedding(room: Room) -> None:
    await room.know("Which trains go to Vienna on sundays?")
    assert await room.ask() == NOTHING_FOUND
    assert room.embed.texts == []


async def test_a_question_is_embedded_once_and_what_it_meets_too(room: Room) -> None:
    await room.know()
    for _ in range(3):
        await room.ask()
    assert sorted(room.embed.texts) == sorted([ASKED, KNOWN])


async def test_an_entry_brings_its_embedding_along_where_there_is_one(room: Room) -> None:
    await room.know()
    await room.ask()
    entry = room.tier.entry_of(asking(ASKED))
    assert entry is not None
    assert cosine(entry.embedding, entry.embedding) == 1.0


async def test_one_known_question_at_most_is_embedded_in_a_look_up(room: Room) -> None:
    for n, mark in enumerate("cdefgh"):
        await room.know(KNOWN + " thanks" * n, mark=mark * 64)
    await room.ask()
    assert len(room.embed.texts) == 2
    assert {known for _, known, _, _ in room.judge.told} == set(room.embed.texts) - {ASKED}


async def test_the_same_words_need_no_embedding(room: Room) -> None:
    await room.know()
    assert (await room.ask("how do I reset my  password")).known
    assert room.embed.texts == []


async def test_a_guard_rules_out_before_anything_is_embedded_and_is_counted(room: Room) -> None:
    await room.know("How do I increase my limit?")
    assert await room.ask("How do I decrease my limit?") == Found(why_not="similar question known, refused: opposites")
    assert (room.embed.texts, room.judge.told) == ([], [])
    assert room.counts == ["semantic_refused_opposites"]


async def test_what_could_not_be_trusted_even_if_it_were_as_near_as_can_be_is_not_embedded(room: Room) -> None:
    await room.know()
    room.judge.at_best = UNLIKELY
    assert await room.ask() == NOTHING_FOUND
    assert (room.embed.texts, room.judge.told) == ([], [])


async def test_an_answer_that_is_gone_or_past_its_time_is_not_given(room: Room) -> None:
    await room.know(ttl=100.0)
    assert (await room.ask(now=NOW + 80)).known
    assert await room.ask(now=NOW + 200) == NOTHING_FOUND
    await room.library.forget("a" * 64)
    assert await room.ask() == NOTHING_FOUND


async def test_an_answer_that_serves_only_while_it_is_renewed_is_not_given_to_others(room: Room) -> None:
    known = asking(KNOWN, "a" * 64, ttl=100.0, revalidate=1000.0)
    await room.library.keep(known, answer(SAID), entry=room.tier.entry_of(known))
    assert await room.ask(now=NOW + 200, ttl=100.0, revalidate=1000.0) == NOTHING_FOUND


async def test_an_answer_that_is_past_its_time_for_who_asks_is_not_given(room: Room) -> None:
    await room.know()
    assert await room.ask(now=NOW + 200, ttl=100.0, revalidate=1000.0) == NOTHING_FOUND


@pytest.mark.parametrize("asked", [{"semantic": False}, {"tenant": "other"}], ids=["not wanted", "other tenant"])
async def test_who_may_not_have_it_finds_nothing(room: Room, asked: dict[str, Any]) -> None:
    await room.know()
    assert await room.ask(**asked) == NOTHING_FOUND


async def test_a_doubt_is_a_candidate_and_no_answer(room: Room) -> None:
    await room.know()
    room.judge.verdict = DOUBT
    found = await room.ask()
    assert found.known is None
    assert found.candidate is not None
    assert found.why_not == "similar question known, 0.8000 sure, not sure enough"


async def test_a_hit_that_is_held_back_to_learn_says_so(room: Room) -> None:
    await room.know()
    room.judge.verdict = AUDIT
    assert (await room.ask()).why_not == "similar question known, 0.9990 sure, asked again to learn"


async def test_a_hit_says_nothing_against_itself(room: Room) -> None:
    await room.know()
    assert (await room.ask()).why_not == ""


async def test_a_similar_question_that_cannot_be_weighed_for_want_of_the_model_says_so(room: Room) -> None:
    await room.know()
    room.judge.verdict = Weighed(Verdict.MISS, 0.0, "no embedding")
    assert await room.ask() == Found(why_not="similar question known, refused: no embedding")


async def test_what_is_hardly_ever_the_same_is_not_even_compared(room: Room) -> None:
    await room.know()
    room.judge.verdict = UNLIKELY
    assert await room.ask() == NOTHING_FOUND


@pytest.mark.parametrize(
    ("said", "counted", "same", "different"),
    [
        (SAID, "semantic_explored_same", 1, 0),
        ("No, that is impossible.", "semantic_explored_different", 0, 1),
    ],
)
async def test_two_answers_teach_the_entry_and_the_standing(
    room: Room, said: str, counted: str, same: int, different: int
) -> None:
    await room.know()
    await room.tier.settle(await room.candidate(), answer(said))
    await room.ask()
    lessons = room.judge.told[-1][3]
    assert (lessons.same, lessons.different) == (same, different)
    assert (await room.standings.of("t", "m", now=NOW)).experience.learned == 1
    assert counted in room.counts


async def test_with_the_first_lesson_an_entry_gets_its_embedding(room: Room) -> None:
    await room.know()
    assert (await room.entry()).embedding == b""
    await room.tier.settle(await room.candidate(), answer(SAID))
    assert cosine((await room.entry()).embedding, pack([1.0, *[0.0] * (DIMENSIONS - 1)])) == 1.0


async def test_nothing_is_learned_from_an_answer_that_is_gone(room: Room) -> None:
    await room.know()
    candidate = await room.candidate()
    await room.library.forget("a" * 64)
    await room.tier.settle(candidate, answer(SAID))
    assert room.counts[-1] == "semantic_explored_unclear"
    assert (await room.standings.of("t", "m", now=NOW)).experience.learned == 0


async def test_lessons_that_nobody_can_read_are_forgotten(room: Room) -> None:
    await room.know()
    assert await room.store.learn("a" * 64, b"\xff", before=b"")
    await room.ask()
    assert room.judge.told[-1][3] == Lessons()


async def test_a_share_of_the_hits_is_checked(room: Room) -> None:
    await room.know()
    room.chance = 0.09
    found = await room.ask()
    assert found.known is not None
    assert isinstance(found.candidate, Candidate)
    assert found.candidate.shadow


async def test_hits_that_were_wrong_switch_semantic_answers_off_for_this_tenant_and_model_only(room: Room) -> None:
    await room.know()
    room.chance = 0.0
    for _ in range(3):
        found = await room.ask()
        assert found.candidate is not None
        await room.tier.settle(found.candidate, answer("No, that is impossible."))
    searches = room.store.searches
    assert await room.ask() == NOTHING_FOUND
    assert room.store.searches == searches
    assert not (await room.standings.of("other", "m", now=NOW)).watch.is_off(NOW)
    assert (await room.ask(now=NOW + 3600, ttl=7200.0)) == NOTHING_FOUND  # its own time is over by then
    assert room.store.searches == searches + 1


async def test_a_checked_hit_counts_as_an_audit(room: Room) -> None:
    await room.know()
    room.chance = 0.0
    found = await room.ask()
    assert found.candidate is not None
    await room.tier.settle(found.candidate, answer(SAID))
    standing = await room.standings.of("t", "m", now=NOW)
    assert (standing.experience.audited, standing.watch.same) == (1, 1)


async def test_a_store_that_is_gone_is_a_miss_and_no_error(room: Room) -> None:
    await room.know()
    candidate = await room.candidate()
    room.store.failing = True
    assert await room.ask() == NOTHING_FOUND
    assert room.counts[-1] == "semantic_unavailable"
    await room.tier.settle(candidate, answer(SAID))


async def test_a_store_that_hangs_costs_no_more_than_the_patience(room: Room) -> None:
    await room.know()
    room.store.gate.clear()
    async with asyncio.timeout(5):
        assert await room.ask() == NOTHING_FOUND


async def test_without_the_model_only_equal_words_are_known(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> CountingEmbedder:
        raise OSError("no such file")

    room = Room(embedder=Embedder(load))
    room.judge.verdict = DOUBT
    await room.know()
    await room.ask()
    await room.ask("Please, how do I reset my password?")
    assert {similarity for _, _, similarity, _ in room.judge.told} == {None}
    assert [record.message for record in caplog.records if "embedder cannot be loaded" in record.message] == [
        "semantic answers: the embedder cannot be loaded, so only equal words are known: no such file"
    ]


@pytest.mark.parametrize(
    "text", ["x" * 201, "How do I\0 reset it?", "Wie geht das denn?", ""], ids=["long", "NUL", "German", "empty"]
)
async def test_what_is_no_question_for_it_has_no_entry_and_no_search(room: Room, text: str) -> None:
    assert room.tier.entry_of(asking(text)) is None
    assert await room.ask(text) == NOTHING_FOUND
    assert room.store.searches == 0


def scope(room: Room, asked: Inquiry) -> str:
    entry = room.tier.entry_of(asked)
    assert entry is not None
    return entry.scope


async def test_the_scope_is_all_of_a_request_but_the_text(room: Room) -> None:
    base = asking(KNOWN)
    assert scope(room, base) == scope(room, asking(ASKED, "c" * 64))
    system = {"role": "system", "content": "Be brief."}
    fields = base.ask.fields
    others = [
        base._replace(tenant="other"),
        base._replace(revision="2"),
        base._replace(regions=frozenset({"eu-west-1"})),
        base._replace(ask=chat(KNOWN, temperature=0.5)),
        base._replace(ask=chat(KNOWN, nobody_knows_this=1)),
        base._replace(ask=base.ask._replace(fields={**fields, "messages": [system, *fields["messages"]]})),
        base._replace(ask=base.ask._replace(fields={**fields, "model": "other"})),
    ]
    scopes = {scope(room, other) for other in others} | {scope(room, base)}
    assert len(scopes) == len(others) + 1


async def test_edges_of_a_region_learn_together() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    here, there = Room(fleet=fleet), Room(fleet=fleet)
    await here.know()
    await here.tier.settle(await here.candidate(), answer(SAID))
    assert (await there.standings.of("t", "m", now=NOW)).experience.learned == 1


async def test_lessons_of_two_edges_at_once_are_all_kept() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    edges = [Standings(fleet) for _ in range(4)]

    def lesson(standing: Any) -> None:
        standing.watch.same += 1

    await asyncio.gather(*(edge.teach("t", "m", lesson, now=NOW, at_once=True) for edge in edges[:3]))
    assert (await edges[3].of("t", "m", now=NOW)).watch.same == 3


async def test_lessons_wait_for_each_other_and_are_told_together() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    here, there = Standings(fleet), Standings(fleet)

    def lesson(standing: Any) -> None:
        standing.watch.same += 1

    for moment in (0.0, 1.0, 2.0):
        await here.teach("t", "m", lesson, now=NOW + moment)
    assert (await here.of("t", "m", now=NOW + 12)).watch.same == 3
    assert (await there.of("t", "m", now=NOW + 12)).watch.same == 1
    await here.teach("t", "m", lesson, now=NOW + 13)
    assert (await there.of("t", "m", now=NOW + 23)).watch.same == 4


async def test_without_the_fleet_table_an_edge_goes_on_with_what_it_knew() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    standings = Standings(fleet)

    def lesson(standing: Any) -> None:
        standing.watch.same += 1

    await standings.teach("t", "m", lesson, now=NOW)
    fleet.failing = True
    await standings.teach("t", "m", lesson, now=NOW + 20)
    assert (await standings.of("t", "m", now=NOW + 40)).watch.same == 2
    fleet.failing = False
    await standings.teach("t", "m", lesson, now=NOW + 60)
    assert (await Standings(fleet).of("t", "m", now=NOW + 60)).watch.same == 3


async def test_tenants_and_models_with_slashes_do_not_learn_from_each_other() -> None:
    def lesson(standing: Any) -> None:
        standing.watch.same += 1

    standings = Standings(MemoryFleetStore(clock=lambda: NOW))
    await standings.teach("a/b", "c", lesson, now=NOW)
    assert math.isclose((await standings.of("a", "b/c", now=NOW)).watch.same, 0.0)


async def test_a_document_of_another_version_is_begun_anew() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    await fleet.write("semantic/t:m", {"experience": "?"}, version=0, expires=NOW + 100)
    assert math.isclose((await Standings(fleet).of("t", "m", now=NOW)).watch.same, 0.0)


def merging(fleet: MemoryFleetStore | None = None, window: float = 30.0) -> Room:
    return Room(fleet=fleet, pending=Pending(fleet, window=window))


async def test_a_similar_question_follows_the_one_that_is_being_answered() -> None:
    room = merging()
    assert await room.ask(KNOWN, mark="a" * 64) == NOTHING_FOUND
    assert (await room.ask()).follow == "a" * 64


async def test_it_follows_in_another_process_too() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    await merging(fleet).ask(KNOWN, mark="a" * 64)
    assert (await merging(fleet).ask()).follow == "a" * 64


async def test_an_answer_that_came_meanwhile_is_given_at_once_although_no_search_finds_it_yet() -> None:
    room = merging()
    await room.ask(KNOWN, mark="a" * 64)
    await room.library.keep(asking(KNOWN, "a" * 64), answer(SAID), entry=None)
    found = await room.ask()
    assert found.follow is None
    assert found.known is not None
    assert (found.known.tier, found.known.mark) == ("semantic", "a" * 64)


async def test_nobody_follows_after_the_window_or_in_doubt_or_what_a_guard_rules_out() -> None:
    room = merging(window=30.0)
    await room.ask("How do I increase my limit?", mark="a" * 64)
    assert (await room.ask("How do I decrease my limit?", mark="c" * 64)).follow is None
    assert (await room.ask("How can I increase my limit?", mark="d" * 64, now=NOW + 30)).follow is None
    room.judge.verdict = DOUBT
    assert (await room.ask("What would increase my limit?", mark="e" * 64)).follow is None


async def test_nobody_follows_in_another_scope_or_without_a_window() -> None:
    room = merging()
    await room.ask(KNOWN, mark="a" * 64)
    assert (await room.ask(tenant="other")).follow is None
    plain = Room()
    await plain.ask(KNOWN, mark="a" * 64)
    assert (await plain.ask()).follow is None


async def test_who_wants_an_answer_of_its_own_neither_follows_nor_is_followed() -> None:
    room = merging()
    await room.ask(KNOWN, mark="a" * 64, mode=CacheMode.NO_CACHE)
    assert (await room.ask()).follow is None
    assert (await room.ask("How can I reset my password?", mark="c" * 64, mode=CacheMode.ONLY)).follow is None


async def test_of_many_questions_at_once_the_newest_can_be_followed() -> None:
    pending = Pending(None, window=30.0)
    for n in range(40):
        await pending.begin("s", f"mark-{n}", f"question {n}", now=NOW + n / 10)
    underway = await pending.of("s", now=NOW + 4)
    assert [one.mark for one in underway] == [f"mark-{n}" for n in range(24, 40)]


async def test_without_the_fleet_table_nobody_is_followed_and_nothing_fails() -> None:
    fleet = MemoryFleetStore(clock=lambda: NOW)
    room = merging(fleet)
    await room.ask(KNOWN, mark="a" * 64)
    fleet.failing = True
    assert await room.ask() == NOTHING_FOUND
    assert room.counts[-1] == "semantic_unavailable"
