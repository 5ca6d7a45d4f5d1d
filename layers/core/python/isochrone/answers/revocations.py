"""What was taken back, shared by all edges through the directory table: each reads it when what it knows is old.

    revoke    obeyed here ──▶ written to the table          an error says that only this edge knows of it
    refresh   read ──▶ obeyed                               before a known answer is given, or by a chore

Without the table an edge goes on with the rules it knows. One that never could read them gives no known answer: what
was taken back must not return because a table is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set
from contextlib import suppress
from math import inf
from typing import Any

import msgspec

from isochrone.answers.completion import Answer
from isochrone.answers.rulebook import ALL, Rule, Rulebook, Tidying, rule_of, tidied
from isochrone.background import Background
from isochrone.listening import FRESH_SECONDS, Clock, Listening
from isochrone.settings import Settings
from isochrone.stores.protocols import DirectoryStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

PARTITION = "revoked"
MOST_KEPT = 5_000
"""Rules of one tenant that wait to be made fewer; beyond it none is taken but one about everything."""

_AT_ONCE = 8
_SHOWN = 5
_JITTER = 1.1


class TooManyRevocations(Exception):
    """The tenant has so many rules that nobody could ask them all."""


class Revocations:
    """One edge's part in it. `clock` tells epoch seconds, `monotonic` any (`isochrone.listening`).

    `life` is for how many seconds an answer can be known at most. `failures` counts the reads that came to nothing.
    """

    def __init__(
        self,
        store: DirectoryStore,
        *,
        life: float,
        clock: Clock,
        monotonic: Clock,
        background: Background | None = None,
    ) -> None:
        self.failures = 0
        self._rulebook = Rulebook()
        self._store = store
        self._life = life
        self._clock = clock
        self._own: dict[str, Rule] = {}
        self._unreadable: Set[str] = frozenset()
        self._is_alone = False
        self._listening = Listening(
            self._hear, self._give_up, background=background or Background(), clock=clock, monotonic=monotonic
        )

    def status(self, tenant: str | None) -> dict[str, Any]:
        """How many `rules` of the tenant (None: of all) are obeyed, how often the table could not be read, and how many
        of its items are `unreadable`."""
        rules = self._rulebook.rules if tenant is None else self._rulebook.rules_of(tenant)
        return {"rules": len(rules), "unread": self.failures, "unreadable": len(self._unreadable)}

    def allows(self, tenant: str, mark: str, answer: Answer) -> bool:
        """May this known answer be given? `mark` is its id."""
        return self._listening.heard_at is not None and not self.covers(tenant, mark, answer)

    def covers(self, tenant: str, mark: str, answer: Answer) -> bool:
        """Is it known that this answer was taken back? Then a new one is not even kept."""
        return not self._rulebook.allows(tenant, mark, answer)

    def stamp(self, tenant: str, mark: str, question: str | None, model: str) -> str:
        """As `Rulebook.stamp`, at this moment."""
        return self._rulebook.stamp(tenant, mark, question, model, now=self._clock())

    async def refresh(self, *, max_age: float = FRESH_SECONDS) -> None:
        """Read what was taken back anywhere, unless that was done within `max_age` seconds. With 0 a table that failed
        a moment ago is asked, too: for a chore, which nobody waits for. Never raises."""
        await self._listening.refresh(max_age=max_age)

    async def revoke(
        self, tenant: str, *, answer: str | None = None, pattern: str | None = None, model: str | None = None
    ) -> Rule:
        """Take back one answer by its id, or all whose question is like the glob `pattern`.

        Raises StoreUnavailable when only this process knows of it, and TooManyRevocations.
        """
        await self.refresh()
        rule = Rule(tenant, self._clock(), answer, pattern, model)
        if len(self._rulebook.rules_of(tenant)) >= (MOST_KEPT if rule.target != ALL else 2 * MOST_KEPT):
            raise TooManyRevocations
        self._rulebook.add(rule)
        self._own[rule.key] = rule  # until it is seen in the table, which may show it late
        await self._write(rule)
        await self._tidy(tenant)
        return rule

    async def _hear(self) -> None:
        found = await self._store.items(PARTITION)
        rules = {key: rule for key, data in found.items() if (rule := rule_of(data))}
        self._leave_out(found.keys() - rules)
        self._own = {key: rule for key, rule in self._own.items() if key not in rules}
        self._rulebook.replace({**rules, **self._own})
        self._is_alone = False

    def _leave_out(self, unreadable: Set[str]) -> None:
        """Said once for each set of them, and shown until they are gone: what they took back, nobody can tell."""
        if unreadable - self._unreadable:
            log.error("revocations that cannot be read are not obeyed: %s", ", ".join(sorted(unreadable)[:_SHOWN]))
        self._unreadable = unreadable

    def _give_up(self, why: str) -> None:
        if not self._is_alone:
            log.warning("what was revoked elsewhere is not known while the directory table is gone: %s", why)
        self._is_alone = True
        self.failures += 1

    async def _write(self, rule: Rule) -> None:
        await self._store.put(PARTITION, rule.key, msgspec.to_builtins(rule))

    async def _tidy(self, tenant: str) -> None:
        """Make the tenant's rules fewer; what is left undone now is done another time."""
        tidying = tidied(self._rulebook.rules_of(tenant), now=self._clock(), life=self._life)
        with suppress(StoreUnavailable):
            await self._apply(tidying)

    async def _apply(self, tidying: Tidying) -> None:
        if tidying.rule:
            await self._write(tidying.rule)
            self._rulebook.add(tidying.rule)
        superfluous = sorted(tidying.superfluous)
        for start in range(0, len(superfluous), _AT_ONCE):
            keys = superfluous[start : start + _AT_ONCE]
            await asyncio.gather(*(self._store.delete(PARTITION, key) for key in keys))
            self._rulebook.drop(keys)


def longest_life(settings: Settings) -> float:
    """For how many seconds an answer can be known at most, by any term of the configuration; `inf` for ever."""
    answers = settings.answers
    own = [*(model.answers for model in settings.model), *(key.answers for key in settings.key)]
    lives = [float(answers.ttl), *(inf if rule.ttl == "forever" else float(rule.ttl) for rule in answers.rule)]
    lives += [float(one.ttl) for one in own if one.ttl]
    graces = [answers.stale_while_revalidate, answers.stale_if_error]
    graces += [seconds or 0 for one in own for seconds in (one.stale_while_revalidate, one.stale_if_error)]
    return max(lives) * _JITTER + max(graces)
