"""Says once per day or month, among all processes, that half, four fifths or all of a budget is used."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from isochrone.admission.limits.account import Account
from isochrone.admission.limits.quota import Quota
from isochrone.admission.limits.sheet import notice_counter
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone")

LEVELS = (50, 80, 100)
_NEAR_ITS_END = 80
_KEPT_SECONDS = 40 * 86_400.0
# What is forgotten of what this process has told, the table still knows.
_REMEMBERED = 10_000

Post = Callable[[dict[str, Any]], Awaitable[None]]


def level_of(quota: Quota) -> int:
    """The highest level, in percent, that is reached; 0 for none."""
    percent = 100 if quota.is_spent else 100 * quota.used_part() + 1e-6
    return max((level for level in LEVELS if percent >= level), default=0)


def told_level(account: Account, quota: Quota) -> int:
    """The highest level that is reached or that any process has told of."""
    told = account.sheet.told
    return max(level_of(quota), *(level for level in LEVELS if notice_counter(quota, level) in told), 0)


class Notices:
    """Who hears of it: the log, a counter, and the operator's address where there is one. What `post` raises is
    logged: a notice is tried once."""

    def __init__(self, *, count: Callable[[str], None], post: Post | None = None) -> None:
        self._count = count
        self._post = post
        self._done: set[tuple[str, str]] = set()

    def look_at(self, account: Account, scope: str, *, refused: Quota | None = None) -> None:
        """Tell of the highest level that this account has reached, if nobody told of it or of a higher one. A request
        wanted more than is left of `refused`: near its end that is all of it, but before that the request was large."""
        for quota in account.sheet.quotas:
            if quota.kind.period.slides:
                continue
            if quota is refused and level_of(quota) >= _NEAR_ITS_END:
                quota.found_spent()
            level = level_of(quota)
            if level and not self._was_told(account, quota, level):
                counter = notice_counter(quota, level)
                self._remember((account.name, counter))
                account.table.background.start(self._tell(account, counter, _notice(scope, quota, level)))

    def _was_told(self, account: Account, quota: Quota, level: int) -> bool:
        counters = [notice_counter(quota, one) for one in LEVELS if one >= level]
        return any(one in account.sheet.told or (account.name, one) in self._done for one in counters)

    def _remember(self, told: tuple[str, str]) -> None:
        if len(self._done) >= _REMEMBERED:
            self._done.clear()
        self._done.add(told)

    async def _tell(self, account: Account, counter: str, notice: dict[str, Any]) -> None:
        expires = account.table.now() + _KEPT_SECONDS
        try:
            taken = await account.table.store.take(account.name, {counter: 1}, most={counter: 1}, expires=expires)
        except StoreUnavailable:
            self._done.discard((account.name, counter))
            return
        if not taken.done:
            return
        self._count("budget_notices")
        log.warning(msgspec.json.encode(notice).decode())
        if self._post:
            await self._post(notice)


def _notice(scope: str, quota: Quota, level: int) -> dict[str, Any]:
    """What the log and the operator's address hear."""
    return {
        "event": "budget",
        "scope": scope,
        "limit": quota.kind.key,
        "value": quota.limit,
        "level": level,
        "used": round(quota.used_part() * quota.limit, 6),
        "period_start": int(quota.window.start),
        "period_end": int(quota.window.end),
    }
