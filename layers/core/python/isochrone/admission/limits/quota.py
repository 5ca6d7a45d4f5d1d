"""One limit as one process has it: a part of what all processes may use together, taken from a counter that they share.

    counter of the window:   |== others ==|====== taken by us ======|........ room ........|  ceiling
                                          |== used ==|== at hand ==|

A process admits from what it has at hand without asking anybody. It takes as much as it used in the last ten seconds,
and never more than half of what is left. Minutes slide: of the window before counts what of it is still within a
minute, as if it had been used evenly (the sliding window counter of Cloudflare), so the ceiling rises with the time:

    ceiling = limit - sum of the last window x part of it that is less than a minute ago

What is used beyond what was taken (a reply that grew longer than expected, or an outage of the table) is a debt, and
told later. Pure: `now` is epoch seconds by the store's clock.
"""

from __future__ import annotations

from enum import Enum
from math import ceil, exp, floor, inf
from typing import NamedTuple

from isochrone.admission.limits.windows import Period, Window

# What was used within about twice so many seconds is taken in advance ...
_PACE_SECONDS = 5.0
# ... but no larger part of the limit, by how long its windows are: of a process that dies it is lost until they end.
_LARGEST_PART = {Period.MINUTE: 0.1, Period.DAY: 0.01, Period.MONTH: 0.01}
# Of money, what is kept where much would be lost.
_LITTLE = 1e-4
# A full counter is not asked again sooner, and not much later: others may give something back.
PAUSE_SECONDS = 1.0
_RECHECK_SECONDS = 5.0
# Of a window that has begun not longer ago nobody goes back to the one before: estimates of the time are not exact.
_JITTER_SECONDS = 2.0
_TOLERANCE = 1e-6


class Keep(Enum):
    """How much of what is at hand stays when the rest is given back.

    A process that is frozen may never be woken, as happens to one that met a few requests only: it keeps LITTLE of the
    money, since a month is long, and a request reserves more than it uses. Requests are hardly reserved in vain.
    """

    SOME = "what is used in a few seconds"
    LITTLE = "next to none of the money"
    NOTHING = "nothing"


class Kind(NamedTuple):
    """What a limit counts: its key in the configuration, its short name in counters, and a noun for messages."""

    key: str
    code: str
    period: Period
    unit: str
    whole: bool = True


REQUESTS_PER_MINUTE = Kind("requests_per_minute", "rm", Period.MINUTE, "request")
TOKENS_PER_MINUTE = Kind("tokens_per_minute", "tm", Period.MINUTE, "token")
REQUESTS_PER_DAY = Kind("requests_per_day", "rd", Period.DAY, "request")
DOLLARS_PER_MONTH = Kind("dollars_per_month", "cM", Period.MONTH, "dollar", whole=False)
KINDS = {kind.code: kind for kind in (REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, REQUESTS_PER_DAY, DOLLARS_PER_MONTH)}


class Ask(NamedTuple):
    """Add `amount` to the counter of a window, if that stays within `most`."""

    window: int
    amount: float
    most: float = inf


class Share:
    """Of one window: what its counter said last, what of that we took, may use, and have used; and what is on its way
    back, which nobody may use any more."""

    __slots__ = ("granted", "is_spent", "leaving", "sum", "taken", "used", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.is_spent = False
        self.sum = self.taken = self.granted = self.used = self.leaving = 0.0

    @property
    def untold(self) -> float:
        """What the counter does not know yet: above zero a debt, below zero what we can give back."""
        return self.used - self.taken

    @property
    def in_use(self) -> float:
        """The counter, were we to tell it that."""
        return max(0.0, self.sum + self.untold)


class Quota:
    """One limit of one key, tenant, model or address. `waiting` is how much callers wait for at this moment."""

    __slots__ = ("_closed_level", "_closed_until", "_last", "_pace", "_paced_at", "_this", "kind", "limit", "waiting")

    def __init__(self, kind: Kind, limit: float, now: float) -> None:
        self.kind = kind
        self.limit = float(limit)
        self.waiting = 0.0
        self._pace, self._paced_at = 0.0, now
        self._begin(kind.period.window(now))

    def _begin(self, window: Window) -> None:
        self._this, self._last = Share(window), Share(self.kind.period.before(window))
        self._closed_until, self._closed_level = -inf, inf

    def turn_to(self, now: float) -> None:
        """Go on to the window of `now`. A clock that is set back begins anew: what was taken is lost, never doubled."""
        window = self._this.window
        if window.start - _JITTER_SECONDS <= now < window.end:
            return
        new = self.kind.period.window(now)
        last = self._this
        self._begin(new)
        if last.window.number == new.number - 1:
            self._last = last

    @property
    def window(self) -> Window:
        """The one that is counted in now."""
        return self._this.window

    # -- using ---------------------------------------------------------------------------------------------------------

    def at_hand(self, now: float) -> float:
        """What may be used without asking."""
        if self._this.granted < self._this.taken - self._this.leaving:
            self.grant(now)
        return self._this.granted - self._this.used

    def alone(self, now: float, share: float) -> float:
        """What may be used while the counter cannot be asked: a `share` of the limit is ours, yet no more than the
        counter left when it was heard last."""
        own = share * self.limit - self._last.used * self._weight(now) - self._this.used
        return max(self.at_hand(now), min(own, self.ceiling(now) - self._this.in_use))

    def spend(self, amount: float, now: float) -> int:
        """Use it, whether it is at hand or becomes a debt; the number of the window that it counts in."""
        self._pace = self.pace(now) + amount
        self._paced_at = now
        self._this.used += amount
        return self._this.window.number

    def refund(self, amount: float, window: int) -> None:
        """It was not used after all. Of a window that is long over nobody asks any more."""
        for share in (self._this, self._last):
            if share.window.number == window:
                share.used -= amount

    def pace(self, now: float) -> float:
        """About how much was used within the last seconds."""
        return self._pace * exp(min(0.0, self._paced_at - now) / _PACE_SECONDS)

    # -- what is left --------------------------------------------------------------------------------------------------

    def _weight(self, now: float) -> float:
        """The part of the last window that is less than a minute ago."""
        window = self._this.window
        return min(1.0, (window.end - now) / window.seconds) if self.kind.period.slides else 0.0

    def ceiling(self, now: float) -> float:
        """What the counter of this window may be at most just now."""
        return self.limit - self._last.in_use * self._weight(now)

    def has_room(self, amount: float, now: float) -> bool:
        """Could so much more be had, when we heard of the counter last and by the ceiling of now?"""
        return self._this.in_use + amount <= self.ceiling(now) + _TOLERANCE

    def remaining(self, now: float) -> float:
        """What all together may still use, as far as is known here."""
        return max(0.0, self.ceiling(now) - self._this.in_use)

    def used_part(self) -> float:
        """Of the limit, in this window, as far as is known here; more than 1 when there are debts."""
        return self._this.in_use / self.limit

    @property
    def is_spent(self) -> bool:
        """Was so little left in this window that it counts as nothing?"""
        return self._this.is_spent

    def found_spent(self) -> None:
        """Until the window ends it stays so, whatever is given back."""
        self._this.is_spent = True

    def reset_in(self, now: float) -> float:
        """Seconds until nothing of what was used counts any more."""
        window = self._this.window
        if self._this.in_use > _TOLERANCE:
            return window.end + (window.seconds if self.kind.period.slides else 0.0) - now
        return window.end - now if self._weight(now) and self._last.in_use > _TOLERANCE else 0.0

    def opens_in(self, amount: float, now: float) -> float | None:
        """Seconds after which so much could be had if nobody else used anything; None if it is above the limit."""
        return self._opens_in(amount, self.limit, self._this.in_use, self._last.in_use, now)

    def opens_alone_in(self, amount: float, now: float, share: float) -> float:
        """The same of a `share` of the limit, while the counter cannot be asked; never: infinity."""
        own = self._opens_in(amount, share * self.limit, self._this.used, self._last.used, now)
        return inf if own is None else own

    def _opens_in(self, amount: float, limit: float, this: float, last: float, now: float) -> float | None:
        if amount > limit:
            return None
        window, free = self._this.window, limit - this - amount
        if free >= -_TOLERANCE:
            return self._fits_in(free, last, window, now)
        if not self.kind.period.slides:
            return window.end - now
        following = Window(window.number + 1, window.end, window.end + window.seconds)
        return self._fits_in(limit - amount, this, following, now)

    def _fits_in(self, free: float, last: float, window: Window, now: float) -> float:
        """Seconds until the part of `last` that still counts in `window` is down to `free`, in whole milliseconds."""
        at = window.end - window.seconds * max(0.0, free) / last if self.kind.period.slides and last else -inf
        return ceil(max(0.0, at - now, window.start - now) * 1000) / 1000

    # -- a full counter ------------------------------------------------------------------------------------------------

    def close(self, amount: float, now: float) -> None:
        """So much could not be had: nobody asks for as much again before it may be there."""
        opens = self.opens_in(amount, now)
        wait = _RECHECK_SECONDS if opens is None else min(max(opens, PAUSE_SECONDS), _RECHECK_SECONDS)
        self._closed_until, self._closed_level = now + wait, self._this.in_use + amount

    def is_closed(self, amount: float, now: float) -> bool:
        """Was so much refused a moment ago, and was nothing given back here since then?"""
        return now < self._closed_until and self._this.in_use + amount >= self._closed_level - _TOLERANCE

    # -- with the counter ----------------------------------------------------------------------------------------------

    def ask(self, need: float, now: float) -> list[Ask]:
        """What to add to the counters of this window and the last one, so that `need` can be used. All who are
        `waiting` are thought of, too."""
        last = self._last.untold
        asks = [Ask(self._last.window.number, last)] if abs(last) > _TOLERANCE else []
        this = self._ask_of_this(need, now)
        return [*asks, this] if this.amount > _TOLERANCE else asks

    def _ask_of_this(self, need: float, now: float) -> Ask:
        this, ceiling = self._this, self.ceiling(now)
        room = ceiling - this.sum
        least = max(0.0, this.untold + need)
        if room < least and this.untold > _TOLERANCE:
            return Ask(this.window.number, this.untold)
        short = this.untold + max(self.waiting, need)
        spare = self._spare(room - short, now)
        if short + spare / 2 <= 0:
            return Ask(this.window.number, 0.0)
        amount = short + spare if short + spare <= room else max(self._rounded(room), least)
        return Ask(this.window.number, amount, ceiling + _TOLERANCE)

    def _spare(self, left: float, now: float) -> float:
        pace = self.pace(now)
        fair = max(left / 2, min(left, pace / _PACE_SECONDS))
        most = min(2 * pace, self.limit * _LARGEST_PART[self.kind.period], fair)
        return max(0.0, self._rounded(most))

    def _rounded(self, amount: float) -> float:
        return float(floor(amount + _TOLERANCE)) if self.kind.whole else amount

    @property
    def is_told(self) -> bool:
        """Does the counter know all that was used, and is nothing here that was not?"""
        return abs(self._this.untold) <= _TOLERANCE and abs(self._last.untold) <= _TOLERANCE

    def surplus(self, now: float, keep: Keep = Keep.SOME) -> list[Ask]:
        """Debts, and what is not needed soon and worth a call: what others should hear of though nobody waits here."""
        asks, is_exact = [], self._gives_back_all_but_little(keep)
        for share, kept in ((self._last, 0.0), (self._this, self._kept(now, keep))):
            amount = share.untold if share.untold > 0 else min(0.0, self._rounded_up(share.untold + kept))
            if abs(amount) > (_TOLERANCE if is_exact or 2 * share.sum > self.limit else self.limit / 100):
                asks.append(Ask(share.window.number, amount))
        return asks

    def _gives_back_all_but_little(self, keep: Keep) -> bool:
        return keep is Keep.NOTHING or (keep is Keep.LITTLE and not self.kind.whole)

    def _kept(self, now: float, keep: Keep) -> float:
        """As much as is used in a few seconds; where there is enough for all, a little more costs nobody anything."""
        if self._gives_back_all_but_little(keep):
            return 0.0 if keep is Keep.NOTHING else self.limit * _LITTLE
        pace = 2 * self.pace(now) + self.waiting
        return pace if 2 * self._this.sum > self.limit else max(pace, self.limit / 100)

    def _rounded_up(self, amount: float) -> float:
        return float(ceil(amount - _TOLERANCE)) if self.kind.whole else amount

    def send(self, ask: Ask) -> None:
        """It is on its way to the counter."""
        if ask.amount < 0 and (share := self._share(ask.window)):
            share.leaving = -ask.amount
            share.granted = min(share.granted, share.taken - share.leaving)

    def added(self, ask: Ask) -> None:
        """The counter did it. Sums are `hear`d first."""
        if share := self._share(ask.window):
            share.taken += ask.amount
            share.leaving = 0.0

    def turned_away(self, ask: Ask) -> None:
        """The counter did not do it."""
        if share := self._share(ask.window):
            share.leaving = 0.0

    def hear(self, window: int, total: float) -> None:
        """The counter of this window stands there."""
        if share := self._share(window):
            share.sum = total

    def grant(self, now: float) -> None:
        """Use what we took, but for what the last window forbids, of which we may have heard only with that reply."""
        this = self._this
        excess = max(0.0, this.sum - self.ceiling(now) - _TOLERANCE)
        ours = this.taken - this.leaving
        this.granted = max(min(this.granted, ours), ours - self._rounded_up(excess))

    def lost(self, ask: Ask) -> None:
        """Nobody knows whether the counter did it: what we took does not count for us, what we gave back is gone."""
        if ask.amount < 0:
            self.added(ask)

    def _share(self, window: int) -> Share | None:
        return next((share for share in (self._this, self._last) if share.window.number == window), None)
