"""The rules that an edge obeys: those of its configuration, and with auth.policies those of the directory too.

    refresh   read ──▶ one book of both ──▶ obeyed        before a decision, or by a chore

Without the table an edge goes on with the rules it knows, and so it does when one of them cannot be obeyed: they are
refused as a whole. One that never had them allows nothing: a denying rule may be among them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from isochrone.admission.policies import Action, Asker, Decision, directory
from isochrone.admission.policies.book import PolicyBook, Regions
from isochrone.background import Background
from isochrone.listening import FRESH_SECONDS, Clock, Listening
from isochrone.settings import Policy, Settings
from isochrone.stores.protocols import DirectoryStore

log = logging.getLogger("isochrone.policies")

_UNREAD = Decision(False, None, "the rules could not be read yet")


class SharedPolicies:
    """One edge's rules. `clock` tells epoch seconds, `monotonic` any (`isochrone.listening`).

    Readings are done in the `background`, and `count` is told what must not go unseen. Without `store` the rules of
    `settings` are all there are. Raises ValueError when these cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        store: DirectoryStore | None,
        *,
        clock: Clock,
        monotonic: Clock,
        background: Background,
        count: Callable[[str], None],
    ) -> None:
        self._own: tuple[Policy, ...] = settings.policy
        self._regions = frozenset(backend.region for backend in settings.backend if backend.region)
        self._store = store if settings.auth.policies else None
        self._clock = clock
        self._count = count
        self._texts: directory.Texts | None = None
        self._book = PolicyBook(self._own, self._regions)
        self._refused = ""
        self._failures = 0
        self._is_alone = False
        self._listening = Listening(
            self._hear, self._give_up, background=background, clock=clock, monotonic=monotonic, waits_at_first=True
        )

    @property
    def is_known(self) -> bool:
        """Are there rules to decide by? Before the first reading of the directory all is denied."""
        return self._store is None or self._texts is not None

    @property
    def asks_tokens(self) -> bool:
        """Does any rule go by how many tokens a request may use?"""
        return self._book.asks_tokens

    def decide(
        self,
        caller: Asker,
        action: Action,
        *,
        model: str | None = None,
        regions: Regions = None,
        tokens: int | None = None,
    ) -> Decision:
        """As `PolicyBook.decide`, at this moment."""
        if not self.is_known:
            return _UNREAD
        return self._book.decide(caller, action, model=model, regions=regions, tokens=tokens, now=self._clock())

    def status(self) -> dict[str, Any]:
        """How many `rules` are obeyed, how often the directory's could not be read, and why those that stand there now
        are `refused`, None when they are not."""
        return {"rules": len(self._book.policies), "unread": self._failures, "refused": self._refused or None}

    async def refresh(self, *, max_age: float = FRESH_SECONDS) -> None:
        """Read the directory's rules, unless that was done within `max_age` seconds. With 0 a table that failed
        a moment ago is asked, too: for a chore, which nobody waits for. Never raises."""
        if self._store:
            await self._listening.refresh(max_age=max_age)

    async def _hear(self) -> None:
        assert self._store
        texts = await directory.read(self._store)
        self._is_alone = False
        if texts != self._texts:
            self._adopt(texts)
        else:
            self._refused = ""

    def _give_up(self, why: str) -> None:
        if not self._is_alone:
            going_on = "going on with those that are known" if self.is_known else "nothing is allowed"
            log.warning("the directory's policies cannot be read, so %s: %s", going_on, why)
        self._is_alone = True
        self._failures += 1
        self._count("policies_unread")

    def _adopt(self, texts: directory.Texts) -> None:
        try:
            book = PolicyBook((*self._own, *directory.policies_of(texts)), self._regions)
        except ValueError as error:
            self._refuse(str(error))
            return
        self._book, self._texts, self._refused = book, texts, ""

    def _refuse(self, why: str) -> None:
        """Said once for each mistake, and shown until it is repaired."""
        self._count("policies_refused")
        if why != self._refused:
            going_on = "going on with the ones before" if self.is_known else "nothing is allowed"
            log.error("the directory's policies are refused as a whole, so %s: %s", going_on, why)
        self._refused = why
