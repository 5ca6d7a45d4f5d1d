"""Says whether a request may go on, by what its key, tenant, model and address have left; the pipeline asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from isochrone.admission.limits.account import Refusal
from isochrone.admission.limits.admitted import Admitted, Hold, Step, headers_of
from isochrone.admission.limits.bucket import Addresses, one_caller
from isochrone.admission.limits.notices import Notices
from isochrone.admission.limits.quota import Keep, Quota
from isochrone.admission.limits.scopes import NO_LIMITS, Name, Scope, Scopes, Seats, Tables
from isochrone.admission.principal import Principal
from isochrone.api.errors import LimitReached
from isochrone.settings import OwnLimits, PerAddress

# Requests get their turn after so many accounts, some ms: there may be thousands.
_SETTLED_AT_ONCE = 200
# An address that asks no more than this in a minute costs no call: it is not counted together with other processes.
_UNTOLD_PER_MINUTE = 60


class Limits(NamedTuple):
    """What the configuration gives to tenants, models and each address without a key."""

    tenants: Mapping[str, OwnLimits]
    models: Mapping[str, OwnLimits]
    per_address: PerAddress


class Limiter:
    """The limits of one edge. `clock` is monotonic seconds; `seats_of` gives the places of a scope by name and number.

    Someone must call `flush` every few seconds, or after each reply where nothing happens between requests."""

    def __init__(
        self,
        limits: Limits,
        tables: Tables,
        *,
        seats_of: Callable[[str, int], Seats],
        notices: Notices,
        clock: Callable[[], float],
        count: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._tables = tables
        self._notices = notices
        self._count = count
        self.now = clock
        self._scopes = Scopes(tables, seats_of=seats_of)
        rate = limits.per_address
        self._addresses = Addresses(rate.requests_per_second, rate.burst)
        self._keeper: asyncio.Task[None] | None = None
        self._keep_every = 2.5
        self._unlimited = Admitted(self, (), 0.0)

    async def admit(self, principal: Principal, address: str, model: str | None) -> Admitted:
        """One request of this principal from this address to this model: it takes 1 of its requests and a place. Who is
        anonymous was met before. Raises LimitReached."""
        caller = one_caller(address) if principal.kind == "anonymous" else None
        scopes = self._scopes_of(principal, caller, model)
        return await self._admit(scopes) if scopes else self._unlimited

    def meet(self, address: str) -> None:
        """Somebody asks from there without a key, or with one that is not known. Raises LimitReached."""
        caller = one_caller(address)
        if caller is None:
            return
        if wait := self._addresses.take(caller, self.now()):
            self._count("limited_address")
            rate = self._limits.per_address
            raise LimitReached(
                f"Without a key an address may ask {rate.requests_per_second:g} times a second, and {rate.burst} times "
                f"at once; yours asked more often. Try again in {wait:.3g} s.",
                retry_after=wait,
            )

    async def _admit(self, scopes: Sequence[Scope]) -> Admitted:
        taken = await self.take([Step(scope, *one) for scope in scopes for one in scope.one_request])
        try:
            await self._take_places(scopes)
        except BaseException:
            _give_back(taken)
            raise
        for scope in scopes:
            scope.live += 1
        return Admitted(self, scopes, self.now())

    def _scopes_of(self, principal: Principal, caller: str | None, model: str | None) -> list[Scope]:
        named: list[tuple[Name, OwnLimits]] = []
        if principal.key_id is not None:
            kind = Name("token" if principal.kind == "token" else "key", principal.key_id)
            named.append((kind, principal.limits))
        named.append((Name("tenant", principal.tenant), self._limits.tenants.get(principal.tenant, NO_LIMITS)))
        if model is not None:
            named.append((Name("model", model), self._limits.models.get(model, NO_LIMITS)))
        if caller is not None and self._addresses.asked(caller, self.now()) > _UNTOLD_PER_MINUTE:
            per_minute = ceil(self._limits.per_address.requests_per_second * 60)
            named.append((Name("address", caller), OwnLimits(requests_per_minute=per_minute)))
        return [self._scopes.of(name, limits) for name, limits in named if limits != NO_LIMITS]

    # -- taking --------------------------------------------------------------------------------------------------------

    async def take(self, steps: Sequence[Step]) -> list[tuple[Step, list[Hold]]]:
        """All of it, or nothing: raises LimitReached."""
        taken: list[tuple[Step, list[Hold]]] = []
        try:
            for step in steps:
                if not step.account.take_at_hand(step.needs):
                    refusal = await step.account.take(step.needs)
                    if refusal:
                        raise self._reached(step, refusal, [one.scope for one in steps])
                taken.append((step, [Hold(quota, amount) for quota, amount in step.needs]))
        except BaseException:
            _give_back(taken)
            raise
        return taken

    async def _take_places(self, scopes: Sequence[Scope]) -> None:
        held: list[Seats] = []
        try:
            for scope in scopes:
                if seats := scope.seats:
                    if not (seats.take_at_hand() or await seats.take()):
                        raise self._no_place(scope)
                    held.append(seats)
        except BaseException:
            for seats in held:
                seats.give_back()
            raise
        finally:
            if any(scope.seats for scope in scopes):
                self._keep_seats()

    def _reached(self, step: Step, refusal: Refusal, scopes: Sequence[Scope]) -> LimitReached:
        quota, amount, seconds = refusal
        self._count(f"limited_{quota.kind.key}")
        is_used_up = not (quota.kind.period.slides or step.account.table.is_alone)
        if is_used_up:
            self._notices.look_at(step.account, str(step.scope.name), refused=quota)
        return LimitReached(
            _message(step.scope.name, quota, amount, seconds),
            code="insufficient_quota" if is_used_up else None,
            retry_after=seconds,
            also=headers_of(list(dict.fromkeys(scopes))),
        )

    def _no_place(self, scope: Scope) -> LimitReached:
        self._count("limited_concurrency")
        limit, wait = scope.limits.concurrency, scope.place_frees_in()
        text = f"Limit reached: concurrency = {limit} of {scope.name}. Try again when one of its requests has ended."
        return LimitReached(text, retry_after=wait)

    def over(self, scopes: Sequence[Scope]) -> None:
        """A request of these scopes is over, and what it used is known."""
        for scope in scopes:
            if scope.long:
                self._notices.look_at(scope.long, str(scope.name))

    # -- keeping -------------------------------------------------------------------------------------------------------

    def _keep_seats(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._look_after_seats(), name="keeping places")

    async def _look_after_seats(self) -> None:
        while held := [seats for seats in self._seats() if seats.is_held]:
            await asyncio.sleep(self._keep_every)
            await asyncio.gather(*(seats.keep() for seats in held))

    def _seats(self) -> list[Seats]:
        return [scope.seats for scope in self._scopes.all() if scope.seats]

    async def settle(self) -> None:
        """Hold no place that no request uses: before a Lambda is frozen."""
        await asyncio.gather(*(seats.settle() for seats in self._seats() if seats.is_held))

    async def flush(self, keep: Keep = Keep.SOME) -> None:
        """Tell what others should hear of, and give back what is not to be kept."""
        accounts = [account for scope in self._scopes.all() for account in scope.accounts if not account.is_settled]
        for first in range(0, len(accounts), _SETTLED_AT_ONCE):
            some = accounts[first : first + _SETTLED_AT_ONCE]
            await asyncio.gather(*(account.settle(keep) for account in some))

    async def close(self) -> None:
        """After the last request: give everything back."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.settle()
        await self.flush(Keep.NOTHING)

    def news(self) -> dict[str, Any]:
        """For the status: are limits counted together, and what did that cost?"""
        tables = {self._tables.own, self._tables.main}
        return {
            "shared": not any(table.is_alone for table in tables),
            "calls": sum(table.calls for table in tables),
            "failures": sum(table.failures for table in tables),
            "scopes": len(self._scopes),
            "addresses": len(self._addresses),
        }


def _give_back(taken: Sequence[tuple[Step, Sequence[Hold]]]) -> None:
    for _, holds in taken:
        for hold in holds:
            hold.give_back()


def _message(name: Name, quota: Quota, amount: float, seconds: float | None) -> str:
    limit = f"{quota.kind.key} = {quota.limit:g} of {name}"
    if seconds is None:
        return f"This request would take about {amount:g} {quota.kind.unit}s, more than {limit} ever allows."
    wanted = f" This request would take about {amount:g} {quota.kind.unit}s." if amount != 1 else ""
    return f"Limit reached: {limit}.{wanted} Try again in {_told(seconds)}."


def _told(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.3g} hours"
