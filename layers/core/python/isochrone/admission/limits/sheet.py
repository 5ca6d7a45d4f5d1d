"""The limits of one scope whose counters stand in one item: what to ask of it in one call, and what its reply means.

    rm/29000123, rm/29000124    requests of two minutes         name of the item:  limit/<windows>/<digest of the scope>
    tm/29000123, tm/29000124    tokens
    rd80/20611                  1 when somebody has told that 80 % of a day are used

Pure; `now` is epoch seconds by the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from isochrone.admission.limits.quota import KINDS, Ask, Keep, Kind, Quota

# Clocks may be wrong before the first reply; what they think long over is kept for a while.
_KEPT_WINDOWS = 4
_DROPPED_AT_ONCE = 20
# A marker that nobody dropped is that of a process which died in doubt.
_MARKER = "x"
_MARKED_SECONDS = 86_400.0
# So long an item is kept after its last change, in windows and in seconds.
_KEPT_SECONDS = 600.0


class Need(NamedTuple):
    """So much of a limit is wanted."""

    quota: Quota
    amount: float


class Asking(NamedTuple):
    """One call: what is added to which counters, what they may be at most then, and which are forgotten. A `marker` is
    a counter that goes from 0 to 1 with it: sent again, it is done once, and says whether it was done before."""

    asks: Sequence[tuple[Quota, Ask]]
    drop: Sequence[str]
    expires: float
    marker: str = ""

    @property
    def amounts(self) -> dict[str, float]:
        """By counter."""
        amounts = {_counter(quota.kind, ask.window): ask.amount for quota, ask in self.asks}
        return {**amounts, self.marker: 1.0} if self.marker else amounts

    @property
    def most(self) -> dict[str, float]:
        """By counter; what is told whether it fits or not has no bound."""
        bounds = {_counter(quota.kind, ask.window): ask.most for quota, ask in self.asks}
        finite = {counter: bound for counter, bound in bounds.items() if bound != inf}
        return {**finite, self.marker: 1.0} if self.marker else finite


class Sheet:
    """The quotas that are counted together."""

    def __init__(self, limits: Mapping[Kind, float], now: float) -> None:
        self.quotas = [Quota(kind, limit, now) for kind, limit in limits.items()]
        self._old: Sequence[str] = ()
        self.told: set[str] = set()

    def turn_to(self, now: float) -> None:
        """Go on to the windows of `now`."""
        for quota in self.quotas:
            quota.turn_to(now)

    def asking(self, needs: Sequence[Need], now: float) -> Asking | None:
        """What to ask so that these can be met; None when there is nothing to ask. It has to be asked, and one at a
        time: `heard`, `turned_away` or `lost` comes next."""
        by_quota = {need.quota: need.amount for need in needs}
        return self._asking([(q, ask) for q in self.quotas for ask in q.ask(by_quota.get(q, 0.0), now)], now)

    def surplus(self, now: float, keep: Keep = Keep.SOME) -> Asking | None:
        """What others should hear of, or have, although nobody waits here; None if there is no such thing."""
        return self._asking([(q, ask) for q in self.quotas for ask in q.surplus(now, keep)], now)

    def _asking(self, asks: Sequence[tuple[Quota, Ask]], now: float) -> Asking | None:
        if not asks:
            return None
        for quota, ask in asks:
            quota.send(ask)
        longest = max(2 * quota.window.seconds for quota in self.quotas)
        return Asking(asks, self._old[:_DROPPED_AT_ONCE], now + longest + _KEPT_SECONDS)

    def heard(self, asking: Asking, done: bool, sums: Mapping[str, float], now: float) -> None:
        """The reply: was it added, and the counters now."""
        for quota in self.quotas:
            for window in (quota.window.number, quota.window.number - 1):
                quota.hear(window, sums.get(_counter(quota.kind, window), 0.0))
        for quota, ask in asking.asks:
            (quota.added if done else quota.turned_away)(ask)
        for quota in self.quotas:
            quota.grant(now)
        self._old = [counter for counter in sums if counter == asking.marker or self._is_over(counter, now)]
        self.told = {counter for counter in sums if counter.partition("/")[0] not in KINDS}

    def turned_away(self, asking: Asking) -> None:
        """No reply, but surely nothing was done."""
        for quota, ask in asking.asks:
            quota.turned_away(ask)

    def lost(self, asking: Asking) -> None:
        """No reply: nobody knows whether it was done."""
        for quota, ask in asking.asks:
            quota.lost(ask)

    def _is_over(self, counter: str, now: float) -> bool:
        code, _, number = counter.partition("/")
        if code.startswith(_MARKER) and number.isdigit():
            return int(number) < now - _MARKED_SECONDS
        kind = KINDS.get(code.rstrip("0123456789"))
        return kind is None or not number.isdigit() or int(number) < kind.period.window(now).number - _KEPT_WINDOWS


def marker_of(caller: str, now: float) -> str:
    """A marker that no other call has: `caller` names the process and the call."""
    return f"{_MARKER}{caller}/{int(now)}"


def notice_counter(quota: Quota, level: int) -> str:
    """The counter that says that somebody has told of this level."""
    return f"{quota.kind.code}{level}/{quota.window.number}"


def _counter(kind: Kind, window: int) -> str:
    return f"{kind.code}/{window}"
