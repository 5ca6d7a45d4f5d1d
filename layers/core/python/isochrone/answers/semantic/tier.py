"""Answers to questions that mean the same, from the cheap to the dear, and never without being sure enough:

    question -> neighbours by a cheap vector -> guards -> embedding -> decision -> the answer, or a candidate

A candidate is a known answer that was not trusted, or one whose trust is to be checked (a shadow). The answer that is
generated anyway is compared with it, and that teaches the entry and the standing of the tenant and model.

Whatever is missing here (index, table, embedder, time) makes a miss. A look-up waits `patience` seconds for the table,
and for the embedding a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from isochrone.answers.completion import Answer
from isochrone.answers.desk import NOTHING_FOUND, Found
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.library import Library
from isochrone.answers.semantic.agreement import agree
from isochrone.answers.semantic.decision import Judge, Lessons, Verdict, Weighed
from isochrone.answers.semantic.embedder import Embedder
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.question import Question, question_of
from isochrone.answers.semantic.standing import Standing, Standings
from isochrone.answers.semantic.vectors import cosine
from isochrone.answers.semantic.words import normalised, sketch
from isochrone.settings import Semantic
from isochrone.stores.entries import Entry, Neighbour
from isochrone.stores.protocols import AnswerStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

_NEIGHBOURS = 8
# So many of them are embedded in one look-up where nobody has done it before; each costs as much as the question.
_EMBEDDED_AT_ONCE = 2
_EMBEDDINGS_HELD = 2_048
_EMBED_SECONDS = 1.0
# What is hardly ever the same teaches hardly anything, and each lesson is two writes.
_WORTH_COMPARING = 0.05
PATIENCE = 0.25
# An emulator looks at every item of the table for each search.
EMULATOR_PATIENCE = 1.0


class Candidate(NamedTuple):
    """A known answer to a similar question, what was thought of it, and the inquiry that met it.

    `shadow`: it was given, and is checked now.
    """

    inquiry: Inquiry
    neighbour: Neighbour
    weighed: Weighed
    shadow: bool = False


def _count_nothing(name: str) -> None:
    pass


class SemanticTier:
    """`chance` gives numbers from 0 to 1; `count` is told of each event: `semantic_explored`, `semantic_refused_WHY`,
    `semantic_same`, `semantic_different`, `semantic_untold`, `semantic_shadow_same`, `semantic_shadow_different`,
    `semantic_switched_off`, `semantic_embedded`, `semantic_unavailable`."""

    def __init__(
        self,
        store: AnswerStore,
        library: Library,
        embedder: Embedder,
        judge: Judge,
        standings: Standings,
        *,
        settings: Semantic,
        chance: Callable[[], float],
        patience: float = PATIENCE,
        count: Callable[[str], object] = _count_nothing,
    ) -> None:
        self._store = store
        self._library = library
        self._embedder = embedder
        self._judge = judge
        self._standings = standings
        self._settings = settings
        self._chance = chance
        self._patience = patience
        self._count = count
        self._embeddings: OrderedDict[str, bytes] = OrderedDict()

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Found:
        """The answer to a similar question, or a candidate, or neither. Never raises but for a request that no
        fingerprint can be made of (BadRequest)."""
        question = question_of(inquiry, max_chars=self._settings.max_chars)
        if question is None:
            return NOTHING_FOUND
        try:
            async with asyncio.timeout(self._patience):
                standing, neighbours = await self._read(inquiry, question, now)
            candidate = await self._best(inquiry, question, self._promising(question, neighbours), standing)
        except (StoreUnavailable, TimeoutError) as error:
            self._count("semantic_unavailable")
            log.warning("semantic answers: going on without them: %s", error or "no answer in time")
            return NOTHING_FOUND
        return await self._found(candidate, now) if candidate else NOTHING_FOUND

    def entry_of(self, inquiry: Inquiry) -> Entry | None:
        """By what similar questions will find the answer to this one; None where only the same request may."""
        question = question_of(inquiry, max_chars=self._settings.max_chars)
        if question is None:
            return None
        embedding = self._embeddings.get(question.text, b"")
        return Entry(question.scope, question.text, sketch(question.text), embedding)

    async def settle(self, candidate: object, answer: Answer) -> None:
        """Compare the candidate's answer with the one that was generated for the question itself, and learn from it."""
        assert isinstance(candidate, Candidate)
        inquiry, neighbour = candidate.inquiry, candidate.neighbour
        known = await self._library.look_up(inquiry._replace(mark=neighbour.fingerprint), now=answer.created)
        same = agree(_said(known.answer), _said(answer)) if known else None
        if same is None:
            self._count("semantic_untold")
            return
        self._count(f"semantic_{'shadow_' if candidate.shadow else ''}{'same' if same else 'different'}")
        await self._teach_entry(neighbour, candidate.weighed, same)
        await self._teach_standing(candidate, same, answer.created)

    async def _read(self, inquiry: Inquiry, question: Question, now: float) -> tuple[Standing, list[Neighbour]]:
        standing = await self._standings.of(inquiry.tenant, inquiry.ask.model, now=now)
        if standing.watch.is_off(now):
            return standing, []
        found = await self._store.search(question.scope, sketch(question.text), limit=_NEIGHBOURS, now=now)
        return standing, [neighbour for neighbour in found if neighbour.fresh_until > now]

    def _promising(self, question: Question, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
        """Those that nothing speaks against, as far as can be told without an embedding."""
        promising = []
        for neighbour in neighbours:
            if self._judge.is_hopeless(neighbour.score):
                continue
            if reason := objection(question.text, neighbour.question):
                self._count(f"semantic_refused_{reason.replace(' ', '_')}")
            else:
                promising.append(neighbour)
        return promising

    async def _best(
        self, inquiry: Inquiry, question: Question, promising: Sequence[Neighbour], standing: Standing
    ) -> Candidate | None:
        cosines = await self._cosines(question, promising)
        chance = self._chance()

        def weigh(neighbour: Neighbour) -> Weighed:
            mark = neighbour.fingerprint
            return self._judge.weigh(
                question.text,
                neighbour.question,
                cosines[mark],
                rivals=[other for rival, other in cosines.items() if rival != mark and other is not None],
                lessons=_lessons_of(neighbour),
                experience=standing.experience,
                chance=chance,
            )

        candidates = [Candidate(inquiry, one, weigh(one)) for one in promising if one.fingerprint in cosines]
        best = max(candidates, key=lambda candidate: candidate.weighed.probability, default=None)
        return best if best and best.weighed.probability >= _WORTH_COMPARING else None

    async def _cosines(self, question: Question, promising: Sequence[Neighbour]) -> dict[str, float | None]:
        """By fingerprint, of as many as may be embedded; None where there is no embedder. Equal words need none."""
        asked = normalised(question.text)
        worded_alike = [one.fingerprint for one in promising if normalised(one.question) == asked]
        if worded_alike or not promising:
            return dict.fromkeys(worded_alike, 1.0)
        for neighbour in promising:
            if neighbour.embedding:
                self._hold(neighbour.question, neighbour.embedding)
        missing = [one.question for one in promising if one.question not in self._embeddings]
        await self._embed(question.text, *missing[:_EMBEDDED_AT_ONCE])
        mine = self._embeddings.get(question.text, b"")
        return {
            one.fingerprint: cosine(mine, self._embeddings[one.question])
            for one in promising
            if one.question in self._embeddings
        }

    async def _embed(self, *texts: str) -> None:
        texts = tuple(text for text in dict.fromkeys(texts) if text not in self._embeddings)
        if not texts:
            return
        async with asyncio.timeout(_EMBED_SECONDS):
            embeddings = await self._embedder.embed(texts)
        for text, embedding in zip(texts, embeddings, strict=True):
            self._count("semantic_embedded")
            self._hold(text, embedding)

    def _hold(self, text: str, embedding: bytes) -> None:
        self._embeddings[text] = embedding
        self._embeddings.move_to_end(text)
        while len(self._embeddings) > _EMBEDDINGS_HELD:
            self._embeddings.popitem(last=False)

    async def _found(self, candidate: Candidate, now: float) -> Found:
        weighed, mark = candidate.weighed, candidate.neighbour.fingerprint
        if weighed.verdict is not Verdict.HIT:
            if weighed.verdict is Verdict.EXPLORE:
                self._count("semantic_explored")
            return Found(None, candidate)
        known = await self._library.look_up(candidate.inquiry._replace(mark=mark), now=now)
        if known is None or known.stale_for:
            return NOTHING_FOUND
        checked = self._chance() < self._settings.shadow
        why = f"{weighed.reason} question known, {weighed.probability:.4f} sure"
        return Found(known._replace(tier="semantic", why=why), candidate._replace(shadow=True) if checked else None)

    async def _teach_entry(self, neighbour: Neighbour, weighed: Weighed, same: bool) -> None:
        lessons = _lessons_of(neighbour)
        lessons.learn(weighed, same)
        embedding = b"" if neighbour.embedding else self._embeddings.get(neighbour.question, b"")
        try:
            await self._store.learn(
                neighbour.fingerprint, _packed(lessons), before=neighbour.lessons, embedding=embedding
            )
        except StoreUnavailable as error:
            log.warning("answers store unavailable, a lesson is lost: %s", error)

    async def _teach_standing(self, candidate: Candidate, same: bool, now: float) -> None:
        def lesson(standing: Standing) -> None:
            # A hit that is checked is an audit like one that was held back for it.
            audited = candidate.weighed.audit or candidate.shadow
            standing.experience.learn(candidate.weighed._replace(audit=audited), same)
            if candidate.shadow:
                standing.watch.saw(same, bound=self._settings.max_error, now=now)

        inquiry = candidate.inquiry
        await self._standings.teach(inquiry.tenant, inquiry.ask.model, lesson, now=now, at_once=candidate.shadow)


def _lessons_of(neighbour: Neighbour) -> Lessons:
    """What another version of this program learned, and this one cannot read, is forgotten."""
    try:
        return _unpack(neighbour.lessons) if neighbour.lessons else Lessons()
    except msgspec.MsgspecError:
        return Lessons()


_unpack = msgspec.msgpack.Decoder(Lessons).decode
_packed = msgspec.msgpack.Encoder().encode


def _said(answer: Answer) -> str:
    """The text of an answer, as far as it has one."""
    choice: dict[str, Any] = next(iter(answer.body.get("choices") or ()), {})
    message = choice.get("message") or {}
    return str(message.get("content") or choice.get("text") or "")
