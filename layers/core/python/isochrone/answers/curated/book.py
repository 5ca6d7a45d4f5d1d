"""The standard answers of one version, found by their questions. Pure: what does not change is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple, Protocol

from isochrone.answers.completion import Answer
from isochrone.answers.composed import Estimate, compose
from isochrone.answers.curated.entry import Entry, expiry_of, sayings
from isochrone.answers.curated.question import normalised, question_of, room_for
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.known import Known
from isochrone.api.controls import CacheMode

MAX_ENTRIES = 20_000
MAX_QUESTIONS = 100_000


class BookError(ValueError):
    """Entries that cannot stand in one book; `ids` are those that it is about."""

    def __init__(self, message: str, *ids: str) -> None:
        super().__init__(message)
        self.ids = ids


class Standard(NamedTuple):
    """A question with its answer, and for whom: `until` is epoch seconds."""

    question: str
    answer: str
    id: str
    version: int
    tenants: frozenset[str]
    models: frozenset[str]
    language: str
    until: float

    def applies(self, tenant: str, model: str, now: float) -> bool:
        """Is it an answer for this tenant, in place of this model, at `now`?"""
        mine = not self.tenants or tenant in self.tenants
        return mine and (not self.models or model in self.models) and now < self.until

    @property
    def generality(self) -> tuple[bool, bool]:
        """Sorts what is meant for some before what is meant for all."""
        return (not self.tenants, not self.models)

    def rivals(self, other: Standard) -> bool:
        """Would nothing say which of the two is to answer, for some tenant and model?"""
        if self.generality != other.generality:
            return False
        same_tenants = not self.tenants or self.tenants & other.tenants
        return bool(same_tenants and (not self.models or self.models & other.models))


class Similar(Protocol):
    """Standard questions by what is the same when they are put in another way."""

    def standard_for(self, question: str, *, tenant: str, model: str, now: float) -> Standard | None: ...


Likeness = Callable[[Iterable[Standard]], Similar]


class CuratedBook:
    """All standard answers; `written` (epoch seconds) is when they were laid down. `likeness` is what finds those to
    similar questions, None where only the same ones are answered.

    Raises BookError for too many answers, and for two that answer the same question for the same tenant and model.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        estimate: Estimate,
        written: float = 0.0,
        likeness: Likeness | None = None,
    ) -> None:
        self._estimate = estimate
        self._written = written
        self.entries = {entry.id: entry for entry in entries}
        if len(self.entries) > MAX_ENTRIES:
            raise BookError(f"there are more than {MAX_ENTRIES:,} curated answers")
        found = self._by_words()
        self._by_question = {question: _in_order(rivals) for question, rivals in found.items()}
        # Spaces and punctuation can make a question longer, but one far longer is another one: not worth reading.
        self._longest = 100 + 2 * max(map(len, found), default=0)
        self._similar = likeness(self.candidates()) if likeness else None

    def _by_words(self) -> dict[str, list[Standard]]:
        found: dict[str, list[Standard]] = {}
        count = 0
        for entry in self.entries.values():
            for standard in _standards(entry):
                found.setdefault(normalised(standard.question), []).append(standard)
                count += 1
                if count > MAX_QUESTIONS:
                    raise BookError(f"curated answers stand for more than {MAX_QUESTIONS:,} questions", entry.id)
        return found

    def candidates(self) -> Iterator[Standard]:
        """Every question with its answer."""
        for standards in self._by_question.values():
            yield from standards

    def standard_for(self, question: str, *, tenant: str, model: str, now: float) -> Standard | None:
        """Who answers a question in these words."""
        if len(question) > self._longest:
            return None
        for standard in self._by_question.get(normalised(question), ()):
            if standard.applies(tenant, model, now):
                return standard
        return None

    def similar_to(self, question: str, *, tenant: str, model: str, now: float) -> Standard | None:
        """Who answers a question that is like theirs; None where there is no telling that."""
        if self._similar is None or len(question) > self._longest:
            return None
        return self._similar.standard_for(question, tenant=tenant, model=model, now=now)

    def look_up(self, inquiry: Inquiry, *, now: float) -> Known | None:
        """The standard answer, or None when there is none or the caller wants one of a model's own (`no-cache`,
        `no-store`). `now` is epoch seconds."""
        if not self._by_question or inquiry.mode not in (CacheMode.USE, CacheMode.ONLY):
            return None
        question = question_of(inquiry.ask)
        if question is None:
            return None
        whose = {"tenant": inquiry.tenant, "model": inquiry.ask.model}
        if standard := self.standard_for(question, **whose, now=now):
            return self._known(standard, inquiry)
        if not inquiry.terms.semantic:
            return None
        standard = self.similar_to(question, **whose, now=now)
        return self._known(standard, inquiry, ", similar question") if standard else None

    def _known(self, standard: Standard, inquiry: Inquiry, how: str = "") -> Known | None:
        """The answer as a backend would have given it; None where it is longer than the caller takes."""
        ask = inquiry.ask
        usage = self._estimate(ask.fields, standard.answer)
        room = room_for(ask)
        if room is not None and usage["completion_tokens"] > room:
            return None
        answer: Answer = compose(ask, standard.answer, backend="curated", created=self._written, usage=usage)
        said = f"curated {standard.id} version {standard.version}{how}"
        return Known(answer, f"curated/{standard.id}", "curated", why=said)


def _standards(entry: Entry) -> Iterator[Standard]:
    tenants, models, until = frozenset(entry.tenants), frozenset(entry.models), expiry_of(entry)
    for saying in sayings(entry):
        yield Standard(*saying, entry.id, entry.version, tenants, models, entry.language, until)


def _in_order(standards: Sequence[Standard]) -> tuple[Standard, ...]:
    """Those for some before those for all. Raises BookError."""
    for one, other in combinations(standards, 2):
        if one.id != other.id and one.rivals(other):
            what = f"{other.question!r:.80} is answered by {one.id!r} and by {other.id!r}"
            raise BookError(f"phrasings: {what}, for the same tenants and models", one.id, other.id)
    return tuple(sorted(standards, key=lambda standard: standard.generality))
