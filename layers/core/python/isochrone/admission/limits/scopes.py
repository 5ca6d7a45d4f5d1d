"""Whose limits hold for a request: those of its key or token, its tenant, its model and, without a key, its address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, Protocol

from isochrone.admission.limits.account import Account
from isochrone.admission.limits.quota import (
    DOLLARS_PER_MONTH,
    REQUESTS_PER_DAY,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    Kind,
    Quota,
)
from isochrone.admission.limits.sheet import Need
from isochrone.admission.limits.table import Table
from isochrone.settings import OwnLimits

ScopeKind = Literal["key", "token", "tenant", "model", "address"]
NO_LIMITS = OwnLimits()
# Whose limits are remembered at once; what one who is forgotten had at hand is lost until its windows end.
_CAPACITY = 4096
_HELD_WEIGHT = 0.1


class Seats(Protocol):
    """The right to so many requests at once, leased among all processes."""

    @property
    def is_held(self) -> bool:
        """Is there anything to look after?"""

    def take_at_hand(self) -> bool:
        """One that this process already has."""

    async def take(self) -> bool:
        """One at hand or leased for this; False when all are taken."""

    def give_back(self) -> None:
        """A request is over."""

    async def keep(self) -> None:
        """Renew what is needed, give back what is not: every few seconds."""

    async def settle(self) -> None:
        """Keep only what is in use at this moment."""


class Name(NamedTuple):
    """A scope. What counts for it stands under a digest: subjects of tokens are often addresses of people."""

    kind: ScopeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def digest(self) -> str:
        """32 hex digits."""
        return blake2b(f"{self.kind}:{self.name}".encode(errors="surrogatepass"), digest_size=16).hexdigest()


class Tables(NamedTuple):
    """Where limits are counted: minutes in the own region, days and months in the main one."""

    own: Table
    main: Table


class Scope:
    """The limits of one key, tenant, model or address. `live` requests hold something of them now; `one_request` is
    what each of them takes at once."""

    def __init__(self, name: Name, limits: OwnLimits, short: Account | None, long: Account | None) -> None:
        self.name = name
        self.limits = limits
        self.short = short
        self.long = long
        self.accounts = tuple(account for account in (short, long) if account)
        self.seats: Seats | None = None
        self.live = 0
        self.held_seconds = 1.0
        self._quotas: dict[str, list[tuple[Account, Quota]]] = {"request": [], "token": [], "dollar": []}
        for account in self.accounts:
            for quota in account.sheet.quotas:
                self._quotas[quota.kind.unit].append((account, quota))
        self.one_request = [
            (account, [Need(quota, 1.0) for holder, quota in self._quotas["request"] if holder is account])
            for account in dict.fromkeys(account for account, _ in self._quotas["request"])
        ]

    def quotas(self, unit: str) -> Sequence[tuple[Account, Quota]]:
        """Those that count requests, tokens or dollars."""
        return self._quotas[unit]

    def was_held(self, seconds: float) -> None:
        """A request held its place so long."""
        self.held_seconds += _HELD_WEIGHT * (seconds - self.held_seconds)

    def place_frees_in(self) -> float:
        """About when one of its places is given back, by how long they were held of late."""
        return self.held_seconds / (self.limits.concurrency or 1)


class Scopes:
    """The scopes that were asked for of late, made when they first are. `seats_of` gives the places of a scope."""

    def __init__(self, tables: Tables, *, seats_of: Callable[[str, int], Seats], capacity: int = _CAPACITY) -> None:
        self._tables = tables
        self._seats_of = seats_of
        self._capacity = capacity
        self._known: OrderedDict[Name, Scope] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def all(self) -> list[Scope]:
        """Those that are remembered."""
        return list(self._known.values())

    def of(self, name: Name, limits: OwnLimits) -> Scope:
        """The scope with these limits. Where they have changed it begins anew: the counters of the table know more."""
        known = self._known.get(name)
        if known is None or known.limits != limits:
            known = self._known[name] = self._make(name, limits)
            self._forget_the_oldest()
        self._known.move_to_end(name)
        return known

    def _make(self, name: Name, limits: OwnLimits) -> Scope:
        minute = {REQUESTS_PER_MINUTE: limits.requests_per_minute, TOKENS_PER_MINUTE: limits.tokens_per_minute}
        longer = {REQUESTS_PER_DAY: limits.requests_per_day, DOLLARS_PER_MONTH: limits.dollars_per_month}
        scope = Scope(name, limits, self._account("short", minute, name), self._account("long", longer, name))
        if limits.concurrency:
            scope.seats = self._seats_of(f"limit/{name.digest}", limits.concurrency)
        return scope

    def _account(
        self, windows: Literal["short", "long"], limits: Mapping[Kind, float | None], name: Name
    ) -> Account | None:
        given = {kind: float(limit) for kind, limit in limits.items() if limit is not None}
        table = self._tables.own if windows == "short" else self._tables.main
        return Account(f"limit/{windows}/{name.digest}", given, table) if given else None

    def _forget_the_oldest(self) -> None:
        """But nobody who holds something."""
        if len(self._known) > self._capacity:
            name = next((name for name, scope in self._known.items() if not scope.live), None)
            if name:
                del self._known[name]
