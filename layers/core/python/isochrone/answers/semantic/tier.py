"""Answers to questions that mean the same, from the cheap to the dear, and never without being sure enough:

    question -> neighbours by a cheap vector -> guards -> embedding -> decision -> the answer, or a candidate

A candidate is a known answer that was not trusted, or one whose trust is to be checked (a shadow). The answer that is
generated anyway is compared with it, and that teaches the entry and the standing of the tenant and model. A question
that is being answered just now may be followed by a similar one, where `pending` keeps track of them.

Whatever is missing here (index, table, embedder, time) makes a miss. A look-up waits `patience` seconds for each table,
and a second for the embedding.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from operator import mul
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from isochrone.answers.completion import Answer
from isochrone.answers.desk import NOTHING_FOUND, Found
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.library import Library
from isochrone.answers.semantic.agreement import agree
from isochrone.answers.semantic.decision import Judge, Lessons, Verdict, Weighed
from isochrone.answers.semantic.embeddings import Embeddings
from isochrone.answers.semantic.pending import Pending, Underway
from isochrone.answers.semantic.question import Question, question_of
from isochrone.answers.semantic.standing import Standing, Standings
from isochrone.answers.semantic.thrift import likely_cosine
from isochrone.answers.semantic.words import sketch
from isochrone.settings import Semantic
from isochrone.stores.entries import Entry, Neighbour
from isochrone.stores.protocols import AnswerStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

PATIENCE = 0.25
# An emulator looks at every item of the table for each search.
EMULATOR_PATIENCE = 1.0
_NEIGHBOURS = 8
# What is hardly ever the same teaches hardly anything, and each lesson is two writes.
_WORTH_COMPARING = 0.05


class Candidate(NamedTuple):
    """A known answer to a similar question, what was thought of it, and the inquiry that met it.

    `shadow`: it was given, and is checked now.
    """

    inquiry: Inquiry
    neighbour: Neighbour
    weighed: Weighed
    shadow: bool = False


class _Asked(NamedTuple):
    inquiry: Inquiry
    question: Question
    vector: Sequence[float]
    standing: Standing
    now: float


Said = Literal["same", "different", "unclear"]


class Checked(Protocol):
    """Is told what came of each hit that was checked; `now` is epoch seconds."""

    def __call__(self, tenant: str, verdict: Said, *, now: float) -> None: ...


def _count_nothing(name: str) -> None:
    pass


def _check_nothing(tenant: str, verdict: Said, *, now: float) -> None:
    pass


class SemanticTier:
    """`chance` gives numbers from 0 to 1. `count` is told of each event: `semantic_refused_WHY` (a guard),
    `semantic_explored_VERDICT` and `semantic_checked_VERDICT` (two answers were compared: same, different, unclear),
    `semantic_switched_off`, `semantic_unavailable`."""

    def __init__(
        self,
        store: AnswerStore,
        library: Library,
        embeddings: Embeddings,
        judge: Judge,
        standings: Standings,
        *,
        settings: Semantic,
        chance: Callable[[], float],
        pending: Pending | None = None,
        patience: float = PATIENCE,
        count: Callable[[str], object] = _count_nothing,
        checked: Checked = _check_nothing,
    ) -> None:
        self._store = store
        self._library = library
        self._embeddings = embeddings
        self._judge = judge
        self._standings = standings
        self._settings = settings
        self._chance = chance
        self._pending = pending
        self._patience = patience
        self._count = count
        self._checked = checked

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Found:
        """The answer to a similar question, a candidate, one to follow, or nothing.

        Never raises but for a request that no fingerprint can be made of (BadRequest).
        """
        question = question_of(inquiry, max_chars=self._settings.max_chars)
        if question is None:
            return NOTHING_FOUND
        try:
            return await self._look_up(inquiry, question, now)
        except (StoreUnavailable, TimeoutError) as error:
            self._count("semantic_unavailable")
            log.warning("semantic answers: going on without them: %s", str(error) or "no answer in time")
            return NOTHING_FOUND

    def entry_of(self, inquiry: Inquiry) -> Entry | None:
        """By what similar questions will find the answer to this one; None where only the same request may."""
        question = question_of(inquiry, max_chars=self._settings.max_chars)
        if question is None:
            return None
        return Entry(question.scope, question.text, sketch(question.text), self._embeddings.get(question.text))

    def report(self, tenant: str | None) -> list[dict[str, Any]]:
        """How it stands with each model of this tenant, or of all (None), for people."""
        return self._standings.report(tenant)

    async def settle(self, candidate: object, answer: Answer) -> None:
        """Compare the candidate's answer with the one that was generated for the question itself, and learn from it."""
        assert isinstance(candidate, Candidate)
        inquiry, neighbour = candidate.inquiry, candidate.neighbour
        known = await self._library.look_up(inquiry._replace(mark=neighbour.fingerprint), now=answer.created)
        same = agree(_said(known.answer), _said(answer)) if known else None
        verdict: Said = "unclear" if same is None else "same" if same else "different"
        self._count(f"semantic_{'checked' if candidate.shadow else 'explored'}_{verdict}")
        if candidate.shadow:
            self._checked(inquiry.tenant, verdict, now=answer.created)
        if same is None:
            return
        await self._teach_entry(neighbour, candidate.weighed, same)
        await self._teach_standing(candidate, same, answer.created)

    async def _look_up(self, inquiry: Inquiry, question: Question, now: float) -> Found:
        vector = sketch(question.text)
        async with asyncio.timeout(self._patience):
            standing = await self._standings.of(inquiry.tenant, inquiry.ask.model, now=now)
            if standing.watch.is_off(now):
                return NOTHING_FOUND
            neighbours = await self._store.search(question.scope, vector, limit=_NEIGHBOURS, now=now)
        asked = _Asked(inquiry, question, vector, standing, now)
        candidate = await self._best(asked, [neighbour for neighbour in neighbours if neighbour.fresh_until > now])
        found = await self._found(candidate, now) if candidate else NOTHING_FOUND
        if found.known or self._pending is None or not inquiry.may_share:
            return found
        return await self._merged(asked, found, self._pending)

    async def _best(self, asked: _Asked, neighbours: Sequence[Neighbour]) -> Candidate | None:
        """The most probable one, if it is worth to be looked at; else one that is refused, if any is."""
        at_best = {
            one: self._weigh(asked, one, likely_cosine(one.score), chance=1.0)
            for one in neighbours
            if self._is_near(one)
        }
        promising = [one for one, weighed in at_best.items() if self._is_no_other(weighed)]
        promising.sort(key=lambda neighbour: -at_best[neighbour].probability)
        hope = at_best[promising[0]].probability if promising else 0.0
        cosines = await self._embeddings.cosines(asked.question.text, promising, hope=hope)
        chance = self._chance()

        def candidate(neighbour: Neighbour) -> Candidate:
            mine = cosines[neighbour.fingerprint]
            rivals = [one for mark, one in cosines.items() if mark != neighbour.fingerprint and one is not None]
            return Candidate(asked.inquiry, neighbour, self._weigh(asked, neighbour, mine, chance, rivals))

        candidates = [candidate(neighbour) for neighbour in promising if neighbour.fingerprint in cosines]
        best = max(candidates, key=lambda candidate: candidate.weighed.probability, default=None)
        if best and best.weighed.probability >= _WORTH_COMPARING:
            return best
        refused = (Candidate(asked.inquiry, *pair) for pair in at_best.items())
        return next((one for one in (*candidates, *refused) if one.weighed.verdict is Verdict.MISS), None)

    def _is_near(self, neighbour: Neighbour) -> bool:
        return not self._judge.is_hopeless(neighbour.score)

    def _is_no_other(self, weighed: Weighed) -> bool:
        """Does no guard say that it asks for something else?"""
        if weighed.verdict is Verdict.MISS:
            self._count(f"semantic_refused_{weighed.reason.replace(' ', '_')}")
        return weighed.verdict is not Verdict.MISS

    def _weigh(
        self, asked: _Asked, neighbour: Neighbour, cosine: float | None, chance: float, rivals: Sequence[float] = ()
    ) -> Weighed:
        return self._judge.weigh(
            asked.question.text,
            neighbour.question,
            cosine,
            rivals=rivals,
            lessons=_lessons_of(neighbour),
            experience=asked.standing.experience,
            chance=chance,
        )

    async def _found(self, candidate: Candidate, now: float) -> Found:
        weighed, mark = candidate.weighed, candidate.neighbour.fingerprint
        if weighed.verdict is Verdict.MISS:
            return Found(why_not=f"similar question known, refused: {weighed.reason}")
        if weighed.verdict is Verdict.EXPLORE:
            why_not = "asked again to learn" if weighed.audit else "not sure enough"
            return Found(None, candidate, why_not=f"similar question known, {weighed.probability:.4f} sure, {why_not}")
        known = await self._library.look_up(candidate.inquiry._replace(mark=mark), now=now)
        if known is None or known.stale_for:
            return NOTHING_FOUND
        checked = self._chance() < self._settings.shadow
        why = f"{weighed.reason} question known, {weighed.probability:.4f} sure"
        return Found(known._replace(tier="semantic", why=why), candidate._replace(shadow=True) if checked else None)

    async def _merged(self, asked: _Asked, found: Found, pending: Pending) -> Found:
        """As `found`, or to follow a similar question that is being answered; else others may follow this one."""
        inquiry, question, vector, _, now = asked
        assert inquiry.mark is not None
        async with asyncio.timeout(self._patience):
            underway = await pending.of(question.scope, now=now)
        like = await self._best(asked, [_as_neighbour(vector, one) for one in underway if one.mark != inquiry.mark])
        if like and like.weighed.verdict is Verdict.HIT:
            done = await self._found(like, now)
            return done if done.known else found._replace(follow=like.neighbour.fingerprint)
        async with asyncio.timeout(self._patience):
            await pending.begin(question.scope, inquiry.mark, question.text, now=now)
        return found

    async def _teach_entry(self, neighbour: Neighbour, weighed: Weighed, same: bool) -> None:
        lessons = _lessons_of(neighbour)
        lessons.learn(weighed, same)
        embedding = b"" if neighbour.embedding else self._embeddings.get(neighbour.question)
        try:
            await self._store.learn(
                neighbour.fingerprint, _packed(lessons), before=neighbour.lessons, embedding=embedding
            )
        except StoreUnavailable as error:
            log.warning("answers store unavailable, a lesson is lost: %s", error)

    async def _teach_standing(self, candidate: Candidate, same: bool, now: float) -> None:
        # A hit that is checked is an audit like one that was held back for it.
        weighed = candidate.weighed._replace(audit=candidate.weighed.audit or candidate.shadow)

        def lesson(standing: Standing) -> None:
            standing.experience.learn(weighed, same)
            if candidate.shadow:
                standing.watch.saw(same, bound=self._settings.max_error, now=now)

        tenant, model = candidate.inquiry.tenant, candidate.inquiry.ask.model
        standing = await self._standings.teach(tenant, model, lesson, now=now, at_once=candidate.shadow)
        if candidate.shadow and standing.watch.is_off(now):
            self._count("semantic_switched_off")
            log.warning("semantic answers of tenant %s for %s are off: too many of them were wrong", tenant, model)


def _as_neighbour(vector: Sequence[float], underway: Underway) -> Neighbour:
    """A question whose answer is not there yet, to be weighed like one that is."""
    near = sum(map(mul, vector, sketch(underway.question)))
    return Neighbour(underway.mark, near, underway.question, b"", b"", fresh_until=inf)


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
