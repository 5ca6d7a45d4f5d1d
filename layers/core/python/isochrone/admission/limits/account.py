"""The thin part between a sheet and the fleet table: one call at a time, which no request waits for too long.

at hand? ── yes ──▶ admitted, nobody was asked
   │ no
   ▼
closed a moment ago, or more than the limit? ── yes ──▶ refused, nobody was asked
   │ no
   ▼
one call for all who wait ──▶ again from the top; when it takes too long, this process counts by itself
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from isochrone.admission.limits.quota import PAUSE_SECONDS, Keep, Kind, Quota
from isochrone.admission.limits.sheet import Asking, Need, Sheet, marker_of
from isochrone.admission.limits.table import Table
from isochrone.stores.protocols import StoreBusy, StoreUnavailable

_TRIES = 12


class Refusal(NamedTuple):
    """So much of a limit is not to be had before `seconds` have passed; None: never, since the limit is less."""

    quota: Quota
    amount: float
    seconds: float | None


class Account:
    """The limits of one scope that are counted in one item `name` of a table."""

    def __init__(self, name: str, limits: Mapping[Kind, float], table: Table) -> None:
        self.name = name
        self.table = table
        self.sheet = Sheet(limits, table.now())
        self._running: asyncio.Task[None] | None = None
        self._is_careful = False
        self._doubtful: Asking | None = None

    def quota(self, kind: Kind) -> Quota | None:
        """The quota of this kind, if it is limited."""
        return next((quota for quota in self.sheet.quotas if quota.kind is kind), None)

    def now(self) -> float:
        """The time of its table; all quotas have gone on to it."""
        now = self.table.now()
        self.sheet.turn_to(now)
        return now

    # -- for requests --------------------------------------------------------------------------------------------------

    def take_at_hand(self, needs: Sequence[Need]) -> bool:
        """All of them from what is here, or none."""
        now = self.now()
        if not all(self._has(need, now) for need in needs):
            return False
        for quota, amount in needs:
            quota.spend(amount, now)
        if self.table.is_alone and self.table.may_be_asked():
            self._ask(())
        return True

    async def take(self, needs: Sequence[Need]) -> Refusal | None:
        """All of them, if need be from the table; else the first that is not to be had."""
        for quota, amount in needs:
            quota.waiting += amount
        try:
            return await self._take(needs)
        finally:
            for quota, amount in needs:
                quota.waiting -= amount

    async def _take(self, needs: Sequence[Need]) -> Refusal | None:
        for _ in range(_TRIES):
            if self.take_at_hand(needs):
                return None
            if refusal := self._refusal(needs):
                return refusal
            await self._exchange(needs)
            self._close(needs)
        return None if self.take_at_hand(needs) else self._refusal(needs, is_final=True)

    def _has(self, need: Need, now: float) -> bool:
        quota, amount = need
        if quota.at_hand(now) + 1e-9 >= amount:
            return True
        return self.table.is_alone and quota.alone(now, self.table.local_share) >= amount

    def _refusal(self, needs: Sequence[Need], *, is_final: bool = False) -> Refusal | None:
        now = self.now()
        for need in needs:
            quota, amount = need
            if self._has(need, now):
                continue
            if is_final or self.table.is_alone or amount > quota.limit or quota.is_closed(amount, now):
                return Refusal(quota, amount, self._opens_in(quota, amount, now))
        return None

    def _opens_in(self, quota: Quota, amount: float, now: float) -> float | None:
        opens = quota.opens_in(amount, now)
        if opens is not None and self.table.is_alone:  # it may be back sooner than our own share is
            own = quota.opens_alone_in(amount, now, self.table.local_share)
            opens = max(opens, min(own, self.table.asked_again_in))
        return None if opens is None else max(PAUSE_SECONDS, opens)

    def _close(self, needs: Sequence[Need]) -> None:
        """What was not there when the table answered is not asked for again at once."""
        now = self.now()
        for need in needs:
            quota, amount = need
            if not self._has(need, now) and not quota.has_room(amount, now):
                quota.close(amount, now)

    # -- with the table ------------------------------------------------------------------------------------------------

    async def _exchange(self, needs: Sequence[Need]) -> None:
        if task := self._ask(needs):
            done, _ = await asyncio.wait({task}, timeout=self.table.patience)
            if not done:
                self.table.is_gone("it did not answer in time")

    def _ask(self, needs: Sequence[Need]) -> asyncio.Task[None] | None:
        if self._running is None or self._running.done():
            asking = self._doubtful or self.sheet.asking(needs, self.now())
            self._running = self._begin(asking) if asking else None
        return self._running

    def _begin(self, asking: Asking) -> asyncio.Task[None]:
        self.table.calls += 1
        if self._is_careful and not asking.marker:
            caller = f"{self.table.holder()}.{self.table.calls}"
            asking = asking._replace(marker=marker_of(caller, self.table.now()))
        return self.table.background.start(self._call(asking))

    async def _call(self, asking: Asking) -> None:
        try:
            done, sums = await self.table.store.take(
                self.name, asking.amounts, most=asking.most, expires=asking.expires, drop=asking.drop
            )
        except StoreUnavailable as error:
            self._on_failure(asking, error)
            return
        self._is_careful, self._doubtful = False, None
        self.table.answered()
        self.sheet.heard(asking, done or asking.marker in sums, sums, self.now())

    def _on_failure(self, asking: Asking, error: StoreUnavailable) -> None:
        self.table.failed(str(error))
        if asking.marker:
            self._doubtful = asking
        elif isinstance(error, StoreBusy):
            self.sheet.turned_away(asking)
        else:
            self.sheet.lost(asking)
            self._is_careful = True

    @property
    def is_settled(self) -> bool:
        """Is there nothing to tell or to give back?"""
        is_asking = self._running is not None and not self._running.done()
        return not (is_asking or self._doubtful) and all(quota.is_told for quota in self.sheet.quotas)

    async def settle(self, keep: Keep = Keep.SOME) -> None:
        """Tell debts, and give back what is not to be kept."""
        if self._running and not self._running.done():
            await asyncio.wait({self._running})
        for _ in range(2):  # what is in doubt comes first
            if not self.table.may_be_asked():
                return
            if asking := self._doubtful or self.sheet.surplus(self.now(), keep):
                self._running = self._begin(asking)
                await asyncio.wait({self._running})
