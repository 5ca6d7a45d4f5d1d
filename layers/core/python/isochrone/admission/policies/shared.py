"""The rules that an edge obeys: those of its configuration, and with auth.policies those of the directory too.

    refresh   read ──▶ one book of both ──▶ obeyed        before a decision, or by a chore

Without the table an edge goes on with the rules it knows, and so it does when one of them cannot be obeyed: they are
refused as a whole. One that never had them allows nothing: a denying rule may be among them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from isochrone.admission.policies import Action, Asker, Decision, directory
from isochrone.admission.policies.book import PolicyBook, Regions
from isochrone.background import Background
from isochrone.settings import Policy, Settings
from isochrone.stores.protocols import DirectoryStore, StoreUnavailable

log = logging.getLogger("isochrone.policies")

# With the second that replication usually takes, a new rule is obeyed everywhere within ten.
FRESH_SECONDS = 8.0
# A request waits so long for news; the reading goes on without it, and who knows no rules yet can only wait for it.
PATIENCE_SECONDS = 0.25
READ_SECONDS = 2.0
# A table that did not answer is spared for a while: then one request waits for it now and then, not all of them.
SPARED_SECONDS = 10.0

_UNREAD = Decision(False, None, "the rules could not be read yet")

Clock = Callable[[], float]


class _Moment(NamedTuple):
    wall: float
    monotonic: float


class SharedPolicies:
    """One edge's rules. `clock` tells epoch seconds, `monotonic` any: what is old by either is old, for the first may
    be set back, and the second stand still while a process is frozen.

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
        self._monotonic = monotonic
        self._count = count
        self._texts: directory.Texts | None = None
        self._book = PolicyBook(self._own, self._regions)
        self._refused = ""
        self._failures = 0
        self._read_at: _Moment | None = None
        self._failed_at: _Moment | None = None
        self._background = background
        self._began_at: _Moment | None = None
        self._reading: asyncio.Task[None] | None = None

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
        if self._store and self._is_due(max_age):
            reading = self._read_once(self._store)
            patience = PATIENCE_SECONDS if self.is_known and max_age else READ_SECONDS
            if (left := patience - self._age(self._began_at)) > 0:
                await asyncio.wait({reading}, timeout=left)

    def _is_due(self, max_age: float) -> bool:
        if self._age(self._read_at) < max_age:
            return False
        spared = SPARED_SECONDS if self.is_known else READ_SECONDS
        return self._is_reading or self._age(self._failed_at) >= (spared if max_age else 0.0)

    @property
    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _read_once(self, store: DirectoryStore) -> asyncio.Task[None]:
        """The reading that is under way, or a new one."""
        if self._reading is None or self._reading.done():
            self._began_at = self._now()
            self._reading = self._background.start(self._try_to_read(store, self._began_at))
        return self._reading

    def _age(self, moment: _Moment | None) -> float:
        now = self._now()
        return inf if moment is None else max(now.wall - moment.wall, now.monotonic - moment.monotonic)

    def _now(self) -> _Moment:
        return _Moment(self._clock(), self._monotonic())

    async def _try_to_read(self, store: DirectoryStore, began_at: _Moment) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                texts = await directory.read(store)
        except (StoreUnavailable, TimeoutError) as error:
            self._give_up(str(error) or f"no answer within {READ_SECONDS:g} s")
            return
        self._read_at, self._failed_at = began_at, None
        if texts != self._texts:
            self._adopt(texts)
        else:
            self._refused = ""

    def _give_up(self, why: str) -> None:
        if self._failed_at is None:
            going_on = "going on with those that are known" if self.is_known else "nothing is allowed"
            log.warning("the directory's policies cannot be read, so %s: %s", going_on, why)
        self._failures += 1
        self._count("policies_unread")
        self._failed_at = self._now()

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
