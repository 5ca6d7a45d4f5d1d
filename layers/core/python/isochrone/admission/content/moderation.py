"""A moderation backend's word on texts: before a request is answered, and for a sample of answers after that.

    texts --> judged of late? --> no: asked, all at once, within SECONDS --> flagged: refused
                                                                         --> no word: as `content.on_error` says

Verdicts are remembered by a digest of each text, so an earlier turn of a conversation is not judged again with each
later one. A backend that gave no word is left alone for a moment, so that it does not slow every request down; but not
one that finds fault with the texts themselves: nobody may switch it off for others by what he sends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Literal, NamedTuple

from isochrone.api.errors import NothingAlive

log = logging.getLogger("isochrone")

SECONDS = 2.0
_REST_SECONDS = 2.0
# About 1 MB, for so many texts and so long.
_REMEMBERED = 4_096
_REMEMBERED_SECONDS = 300.0


class NoVerdict(Exception):
    """The moderation backend could not be asked, or gave no answer that can be read."""


class NotJudged(NoVerdict):
    """It does not take these texts; others it may."""


class Verdict(NamedTuple):
    """Of one text: the names of the categories that it falls under; none says that nothing is wrong with it."""

    categories: tuple[str, ...] = ()


# One verdict for each text. Raises NoVerdict.
Judge = Callable[[Sequence[str]], Awaitable[Sequence[Verdict]]]


class Moderation:
    """`chance` gives numbers from 0 to 1, `clock` seconds; `after` is the share of answers that are looked at."""

    def __init__(
        self,
        judge: Judge,
        *,
        on_error: Literal["allow", "deny"],
        after: float,
        chance: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._denies_on_error = on_error == "deny"
        self._after = after
        self._chance = chance
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._rests_until = 0.0
        self.failures = 0

    async def flags(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The categories that these texts fall under. Raises NothingAlive where nobody can tell, and that denies."""
        try:
            return await self._categories_of(texts)
        except NoVerdict as error:
            self._failed(error)
        if self._denies_on_error:
            raise NothingAlive(
                "The moderation that must see this request first cannot be asked now.",
                code="moderation_unavailable",
                retry_after=_REST_SECONDS,
            )
        return ()

    def is_sampled(self) -> bool:
        """Is this answer one of those to look at?"""
        return self._after > 0 and self._chance() < self._after

    async def flags_afterwards(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The categories that the texts of an answer fall under; none where nobody can tell. Never raises."""
        try:
            return await self._categories_of(texts)
        except NoVerdict as error:
            self._failed(error)
            return ()

    async def _categories_of(self, texts: Sequence[str]) -> tuple[str, ...]:
        digests = {sha256(text.encode("utf-8", "surrogatepass")).digest(): text for text in texts if text.strip()}
        verdicts = {digest: self._remembered(digest) for digest in digests}
        if unknown := [digest for digest, verdict in verdicts.items() if verdict is None]:
            for digest, verdict in zip(unknown, await self._ask([digests[one] for one in unknown]), strict=True):
                self._remember(digest, verdict)
                verdicts[digest] = verdict
        return tuple(sorted({name for verdict in verdicts.values() if verdict for name in verdict.categories}))

    async def _ask(self, texts: Sequence[str]) -> Sequence[Verdict]:
        if self._clock() < self._rests_until:
            raise NoVerdict("it gave none a moment ago")
        try:
            async with asyncio.timeout(SECONDS):
                verdicts = await self._judge(texts)
        except TimeoutError:
            raise NoVerdict(f"none within {SECONDS:g} s") from None
        if len(verdicts) != len(texts):
            raise NoVerdict(f"{len(verdicts)} verdicts on {len(texts)} texts")
        return verdicts

    def _failed(self, error: NoVerdict) -> None:
        self.failures += 1
        if isinstance(error, NotJudged):
            log.warning("the moderation does not judge a request: %s", error)
        elif self._clock() >= self._rests_until:
            self._rests_until = self._clock() + _REST_SECONDS
            what = "denied" if self._denies_on_error else "let through"
            log.warning("no verdict of the moderation: %s; requests are %s until it gives one", error, what)

    def _remembered(self, digest: bytes) -> Verdict | None:
        until, verdict = self._known.get(digest, (0.0, None))
        return verdict if self._clock() < until else None

    def _remember(self, digest: bytes, verdict: Verdict) -> None:
        self._known[digest] = (self._clock() + _REMEMBERED_SECONDS, verdict)
        self._known.move_to_end(digest)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
