"""Where the pipeline asks for answers and hands in new ones:

inquire -> look up: curated, memory, table, similar questions -> (a backend answers) -> keep
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

from isochrone.answers.completion import Answer
from isochrone.answers.fingerprint import fingerprint, storable
from isochrone.answers.inquiry import Inquiry, asked_last
from isochrone.answers.known import Known
from isochrone.answers.library import Library
from isochrone.answers.terms import TermsBook
from isochrone.api.controls import CacheMode
from isochrone.api.requests import Ask
from isochrone.settings import OwnAnswers
from isochrone.stores.entries import Entry


class Candidate(Protocol):
    """A known answer to a similar question that was not trusted: what is generated now shows whether it was right."""


class Found(NamedTuple):
    """`known` may be past its time: `known.stale_for` says so, and the terms say what it is still good for.

    With both, `known` is the candidate's answer, and to be checked beside giving it. `follow` is the fingerprint of a
    similar question that is being answered now, whose generation serves this one too. `why_not` is short ASCII: why the
    answer to a similar question is not given.
    """

    known: Known | None = None
    candidate: Candidate | None = None
    follow: str | None = None
    why_not: str = ""


NOTHING_FOUND = Found()


class Curated(Protocol):
    """Standard questions with their answers."""

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Known | None: ...

    def status(self) -> dict[str, int]: ...


class Similar(Protocol):
    """Answers to questions that mean the same."""

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Found: ...

    def entry_of(self, inquiry: Inquiry) -> Entry | None: ...

    async def settle(self, candidate: Candidate, answer: Answer) -> None: ...

    def report(self, tenant: str | None) -> list[dict[str, Any]]: ...


class Revocations(Protocol):
    """What is not to be known any more."""

    async def refresh(self) -> None: ...

    def allows(self, tenant: str, mark: str, answer: Answer) -> bool: ...

    def covers(self, tenant: str, mark: str, answer: Answer) -> bool: ...

    def stamp(self, tenant: str, mark: str, question: str | None, model: str) -> str: ...

    def status(self, tenant: str | None) -> dict[str, Any]: ...


class Desk:
    """All that is known, in the order of what it costs to find out. Times are epoch seconds."""

    def __init__(
        self,
        library: Library,
        terms: TermsBook,
        *,
        revisions: Mapping[str, str],
        sampled: bool,
        also: Collection[str] = (),
        curated: Curated | None = None,
        similar: Similar | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self.library = library
        self._terms = terms
        self._revisions = revisions
        self._sampled = sampled
        self._also = also
        self._curated = curated
        self._similar = similar
        self._revocations = revocations

    def inquire(
        self,
        ask: Ask,
        *,
        tenant: str,
        own: OwnAnswers,
        private: bool,
        mode: CacheMode,
        regions: frozenset[str] | None,
    ) -> Inquiry:
        """What the request wants of the answers. Raises BadRequest for one that no fingerprint can be made of."""
        text = asked_last(ask)
        terms = self._terms.terms(ask.model, text, own=own, private=private)
        revision = self._revisions.get(ask.model, "")
        wanted = (terms.exact or terms.coalesce) and mode is not CacheMode.NO_STORE
        may_be_known = wanted and storable(ask, sampled=self._sampled, also=self._also)
        mark = fingerprint(tenant, ask, revision=revision, regions=regions) if may_be_known else None
        return Inquiry(tenant, ask, mark, text, terms, mode, revision, regions)

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Found:
        """What is known. Never raises: whatever is wrong with a store is a miss."""
        if self._curated and (standard := await self._curated.look_up(inquiry, now=now)):
            return Found(standard)
        if not inquiry.may_read:
            return NOTHING_FOUND
        if known := await self._exact(inquiry, now):
            return Found(known)
        if not inquiry.terms.semantic or self._similar is None:
            return NOTHING_FOUND
        found = await self._similar.look_up(inquiry, now=now)
        return NOTHING_FOUND if found.known and await self.is_revoked(inquiry, found.known) else found

    def revoked(self, tenant: str | None) -> dict[str, Any] | None:
        """How many revocations of the tenant (None: of all) are obeyed, and how often they could not be read."""
        return self._revocations.status(tenant) if self._revocations else None

    def standards(self) -> dict[str, int] | None:
        """Which version of the curated answers is given, and how often a later one could not be read."""
        return self._curated.status() if self._curated else None

    def similar(self, tenant: str | None) -> list[dict[str, Any]]:
        """What was learned of similar questions, by model: of one tenant, or of all (None)."""
        return self._similar.report(tenant) if self._similar else []

    async def recall(self, inquiry: Inquiry, *, now: float) -> Known | None:
        """The fresh answer that was kept a moment ago, past what this process remembers."""
        if not inquiry.may_read:
            return None
        known = await self.library.look_up(inquiry, now=now, consistent=True)
        return None if known is None or known.stale_for or await self.is_revoked(inquiry, known) else known

    async def stamp(self, inquiry: Inquiry, mark: str) -> str:
        """Names what was revoked of the answer `mark`, "" for nothing: who asks since then wants none that was begun
        before."""
        if self._revocations is None:
            return ""
        await self._revocations.refresh()
        return self._revocations.stamp(inquiry.tenant, mark, inquiry.text, inquiry.ask.model)

    async def _exact(self, inquiry: Inquiry, now: float) -> Known | None:
        known = await self.library.look_up(inquiry, now=now)
        if known is None or not await self.is_revoked(inquiry, known):
            return known
        if known.tier != "memory":
            return None
        newer = await self.library.look_up(inquiry, now=now, consistent=True)  # another edge may have made it anew
        return None if newer is None or await self.is_revoked(inquiry, newer) else newer

    async def is_revoked(self, inquiry: Inquiry, known: Known) -> bool:
        """Was it taken back? Ask again about what was looked up some time ago."""
        if self._revocations is None:
            return False
        await self._revocations.refresh()
        return not self._revocations.allows(inquiry.tenant, known.mark, known.answer)

    async def learn(self, candidate: Candidate, answer: Answer) -> None:
        """A backend has answered what the candidate might have answered too."""
        if self._similar:
            await self._similar.settle(candidate, answer)

    async def keep(self, inquiry: Inquiry, answer: Answer, *, fence: int | None = None) -> bool:
        """A backend has answered: keep it where it may be kept. True when others can find it."""
        if inquiry.mark is None or not inquiry.may_keep:
            return False
        if self._revocations and self._revocations.covers(inquiry.tenant, inquiry.mark, answer):
            return False
        if await self.stamp(inquiry, inquiry.mark):
            fence = None  # the leases of since then count anew; what was revoked must not fence off what is not
        entry = self._similar.entry_of(inquiry) if self._similar else None
        return await self.library.keep(inquiry, answer, fence=fence, entry=entry)
