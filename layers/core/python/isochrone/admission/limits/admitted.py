"""One admitted request's hold on its limits: what it reserved, what of that it used, and its places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from isochrone.admission.limits.account import Account
from isochrone.admission.limits.headers import ratelimit_headers
from isochrone.admission.limits.notices import told_level
from isochrone.admission.limits.quota import Quota
from isochrone.admission.limits.scopes import Scope
from isochrone.admission.limits.sheet import Need

if TYPE_CHECKING:
    from isochrone.admission.limits.limiter import Limiter


class Step(NamedTuple):
    """What is wanted of one account, and whose it is."""

    scope: Scope
    account: Account
    needs: Sequence[Need]


class Hold:
    """What is `left` of an amount that was taken in a window."""

    __slots__ = ("left", "quota", "window")

    def __init__(self, quota: Quota, left: float) -> None:
        self.quota = quota
        self.left = left
        self.window = quota.window.number

    def use(self, amount: float, now: float) -> None:
        """So much of it was used; what goes beyond it is owed."""
        quota = self.quota
        covered = min(amount, self.left)
        self.left -= covered
        if amount > covered:
            quota.spend(amount - covered, now)

    def give_back(self) -> None:
        """Nothing more will be used of it."""
        self.quota.refund(self.left, self.window)
        self.left = 0.0


class Admitted:
    """What the pipeline holds from `Limiter.admit` until the reply is over. Attempts may be charged after that, too."""

    def __init__(self, limiter: Limiter, scopes: Sequence[Scope], since: float) -> None:
        self.scopes = scopes
        self._limiter = limiter
        self._since = since
        self._held: dict[str, list[tuple[Account, Hold]]] = {"token": [], "dollar": []}
        self._is_open = True

    @property
    def is_counted(self) -> bool:
        """Does anything limit its tokens or its money?"""
        return any(scope.quotas("token") or scope.quotas("dollar") for scope in self.scopes)

    async def reserve(self, tokens: int, cost: float) -> None:
        """Before it is generated: take what it may use at most, until `close`. Raises LimitReached."""
        steps = []
        for scope in self.scopes:
            for unit, amount in (("token", float(tokens)), ("dollar", cost)):
                wanted = [(account, Need(quota, amount)) for account, quota in scope.quotas(unit) if amount > 0]
                steps += [Step(scope, account, [need]) for account, need in wanted]
        for step, holds in await self._limiter.take(steps):
            for hold in holds:
                self._held[hold.quota.kind.unit].append((step.account, hold))

    def charge(self, tokens: int, cost: float) -> None:
        """An attempt used this, also one that ends after the request."""
        for unit, amount in (("token", float(tokens)), ("dollar", cost)):
            if amount <= 0:
                continue
            reserved = self._held[unit]
            for account, hold in reserved:
                hold.use(amount, account.now())
            known = {hold.quota for _, hold in reserved}
            for account, quota in [one for scope in self.scopes for one in scope.quotas(unit)]:
                if quota not in known:
                    quota.spend(amount, account.now())

    def close(self) -> None:
        """The request is over: give back what was reserved and not used, and its places, once. Work that goes on for it
        may reserve anew, and then closes anew."""
        self._give_back()
        if not self._is_open:
            return
        self._is_open = False
        held = self._limiter.now() - self._since
        for scope in self.scopes:
            scope.live -= 1
            if scope.seats:
                scope.was_held(held)
                scope.seats.give_back()
        self._limiter.over(self.scopes)

    def headers(self) -> dict[str, str]:
        """`x-ratelimit-*`, and `x-isochrone-budget` once half of what the key has for a day or a month is used."""
        return headers_of(self.scopes) if self.scopes else {}

    def _give_back(self) -> None:
        for holds in self._held.values():
            for _, hold in holds:
                hold.give_back()
            holds.clear()


def headers_of(scopes: Sequence[Scope]) -> dict[str, str]:
    """Of the tightest limits of these scopes."""
    now = 0.0
    for account in (account for scope in scopes for account in scope.accounts):
        now = account.now()
    requests = [quota for scope in scopes for _, quota in scope.quotas("request")]
    tokens = [quota for scope in scopes for _, quota in scope.quotas("token")]
    headers = ratelimit_headers(requests, tokens, now)
    own = [scope.long for scope in scopes if scope.long and scope.name.kind in ("key", "token")]
    levels = [told_level(account, quota) for account in own for quota in account.sheet.quotas]
    if level := max(levels, default=0):
        headers["x-isochrone-budget"] = str(level)
    return headers
