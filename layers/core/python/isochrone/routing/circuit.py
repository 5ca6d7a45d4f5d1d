"""A circuit breaker for one model at one backend. Pure: time and chance are passed in.

                3 failures in a row                   its time is over
    closed ──────────────────────────▶ open ──────────────────────────▶ half-open: one trial at a time
       ▲                                 ▲                                 │   │
       │                                 └───── trial fails: longer ───────┘   │
       └─── trial is answered whole, or goes on telling for STEADY_SECONDS ────┘

The n-th opening in a row lasts 4 s x 2^(n-1), at most 12 s, give or take 10 % so that edges do not come back in step.
Some answers take minutes, so a trial that goes on telling is believed before its end; but until an answer was whole, a
single failure opens the circuit again. Every other trial may be cut short before its first token is due, so that a long
outage costs less; the others have their full time, or a backend that is slow, but well, would never come back.

An attempt speaks of the time since it began: one from before the opening can neither close the circuit when it ends
well nor is a failed trial when it ends badly. Nor does an answer break a row of failures while all attempts since its
first are unheard: a sick engine may still finish what it has. What is neither fault nor merit of the backend (429, the
caller's own mistake, a caller that leaves) is not told to a circuit; it only gives the trial back.

A probe that does not get through opens the circuit, too, and each further one keeps it open; whatever gets through to
the backend closes what was opened because nothing did: it tested just that.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from math import inf

from msgspec import Struct

CONSECUTIVE_FAILURES = 3
OPEN_BASE_SECONDS = 4.0
OPEN_CAP_SECONDS = 12.0
JITTER = 0.1
# How long a failure speaks against a backend whose circuit is closed; then it gets its turn again.
DOUBT_SECONDS = 5.0
# A trial that nobody has given back for so long is taken for lost.
TRIAL_SECONDS = 30.0
STEADY_SECONDS = 5.0
# What another edge said of an opening is not believed when that was over for so long, or lies ahead of our clock.
LAPSE_SECONDS = 30.0
SKEW_SECONDS = 2.0

Chance = Callable[[], float]
"""Gives a number in [0, 1)."""


class State(Enum):
    """`CLOSED` lets requests through, `HALF_OPEN` one at a time, `OPEN` only those that have no other way."""

    CLOSED = auto()
    HALF_OPEN = auto()
    OPEN = auto()


# Looking up a member in its class takes 0.15 us, and every plan asks every backend.
CLOSED, HALF_OPEN, OPEN = State


class CircuitNote(Struct, frozen=True):
    """What edges tell each other: `at` that time it opened for `seconds`, the `openings`-th time in a row; or, with 0
    openings, it closed. `at` is on the clock of who reads it: whoever carries a note from one to the other shifts it.
    """

    at: float
    openings: int = 0
    seconds: float = 0.0
    reason: str = ""
    unreachable: bool = False


def jittered(seconds: float, chance: float) -> float:
    """`seconds` give or take JITTER, for a chance in [0, 1)."""
    return seconds * (1 - JITTER + 2 * JITTER * chance)


def came_in_time(at: float, until: float, now: float) -> bool:
    """May a note from another process be believed, whose clock can be wrong by minutes?"""
    return at <= now + SKEW_SECONDS and now < until + LAPSE_SECONDS


class Row:
    """Failures in a row, of attempts that overlap in time."""

    __slots__ = ("_since", "_youngest_heard", "length")

    def __init__(self) -> None:
        self.length = 0
        self._since = -inf
        self._youngest_heard = -inf

    def add(self, now: float) -> None:
        """One more failure."""
        if not self.length:
            self._since = now
        self.length += 1

    def hear(self, begun: float) -> None:
        """An attempt that began at `begun` is being answered."""
        self._youngest_heard = max(self._youngest_heard, begun)

    def was_interrupted(self) -> bool:
        """Has an attempt been heard that began after the first failure was seen?"""
        return self._youngest_heard >= self._since


class Opening:
    """The openings in a row: `count` of them, 0 when the circuit is closed; the last began `at` and ends at `until`."""

    __slots__ = ("at", "count", "until")

    def __init__(self) -> None:
        self.count = 0
        self.at = -inf
        self.until = -inf

    def begin(self, at: float, seconds: float, *, count: int) -> None:
        """The `count`-th opening in a row."""
        self.at, self.until, self.count = at, at + seconds, count


class Trial:
    """The one attempt that a half-open circuit lets through. Each has a number, so that a late end frees no other."""

    __slots__ = ("_heard_at", "_number", "_until")

    def __init__(self) -> None:
        self._number = 0
        self.forget()

    def forget(self) -> None:
        """No trial is on its way, and none was steady."""
        self._until = -inf
        self._heard_at = inf

    def is_taken(self, now: float) -> bool:
        """Is one on its way?"""
        return now < self._until

    def is_steady(self, now: float) -> bool:
        """Has one been telling its answer for long enough?"""
        return now - self._heard_at >= STEADY_SECONDS

    def take(self, now: float) -> int:
        """Its number."""
        self._number += 1
        self._until = now + TRIAL_SECONDS
        return self._number

    def hear(self, now: float) -> None:
        """Its first token came."""
        self._heard_at = min(self._heard_at, now)

    def end(self, number: int, now: float) -> None:
        """It ended, whatever became of it. One that was steady until then has shown enough."""
        if number != self._number:
            return
        self._until = -inf
        if not self.is_steady(now):
            self._heard_at = inf


class Circuit:
    """The breaker. Times are seconds on any one clock; `tried` says that an attempt was ever judged, `reason` what was
    wrong of late, `failed_to_reach` that the last failure was that no connection came about."""

    __slots__ = (
        "_chance", "_closed_at", "_doubts", "_failed_at", "_opening", "_row", "_trial", "_youngest_success",
        "failed_to_reach", "reason", "tried",
    )  # fmt: skip

    def __init__(self, chance: Chance) -> None:
        self.reason = ""
        self.tried = False
        self.failed_to_reach = False
        self._chance = chance
        self._row = Row()
        self._opening = Opening()
        self._trial = Trial()
        self._doubts = 0
        self._failed_at = -inf
        self._closed_at = -inf
        self._youngest_success = -inf

    # -- what it says --------------------------------------------------------------------------------------------------

    def state(self, now: float) -> State:
        """Where it stands at `now`."""
        if not self._opening.count:
            return CLOSED
        if now < self._opening.until:
            return OPEN
        return CLOSED if self._trial.is_steady(now) else HALF_OPEN

    def lets_through(self, now: float) -> bool:
        """May one more request be sent, be it as the trial?"""
        state = self.state(now)
        return state is CLOSED or (state is HALF_OPEN and not self._trial.is_taken(now))

    @property
    def failures_in_a_row(self) -> int:
        """How many there are now."""
        return self._row.length

    def doubts(self, now: float) -> int:
        """Failures that no younger attempt's success has made up for, while they are fresh and nothing has opened."""
        return self._doubts if not self._opening.count and now - self._failed_at < DOUBT_SECONDS else 0

    @property
    def wants_brief_trial(self) -> bool:
        """Is the next trial one of those that may be cut short?"""
        return self._opening.count % 2 == 1

    def retry_in(self, now: float) -> float:
        """Seconds until a trial may begin; 0 when it is not open."""
        return max(0.0, self._opening.until - now) if self._opening.count else 0.0

    # -- what it is told -----------------------------------------------------------------------------------------------

    def claim_trial(self, now: float) -> int | None:
        """The trial's number, for `free_trial`; None when there is none to be had."""
        if self.state(now) is not HALF_OPEN or self._trial.is_taken(now):
            return None
        return self._trial.take(now)

    def free_trial(self, number: int, now: float) -> None:
        """The trial ended. Comes after what it showed; late or repeated it does nothing."""
        self._trial.end(number, now)

    def on_first_token(self, now: float, *, begun: float) -> None:
        """An attempt that began at `begun` is being answered. It may still die in mid-stream."""
        self._row.hear(begun)
        if self._trial.is_taken(now) and begun >= self._opening.until:
            self._trial.hear(now)

    def on_success(self, *, begun: float) -> None:
        """An attempt that began at `begun` was answered whole."""
        self.tried = True
        self._row.hear(begun)
        self._youngest_success = max(self._youngest_success, begun)
        if begun < self._opening.at:
            return
        if self._row.was_interrupted():
            self._close(begun)
        if begun >= self._failed_at:
            self._clear_doubts()

    def on_failure(self, now: float, reason: str, *, begun: float, unreachable: bool = False) -> None:
        """An attempt failed through the backend's fault; `unreachable` when not even a connection came about."""
        self.tried = True
        if begun < self._opening.at:
            return
        self._row.add(now)
        self._doubts = min(self.doubts(now) + 1, CONSECUTIVE_FAILURES - 1)
        self._failed_at = now
        self.reason = reason
        self.failed_to_reach = unreachable
        if self._is_worse_by(begun):
            self._open(now)

    def _is_worse_by(self, begun: float) -> bool:
        """Does a failure of an attempt that began at `begun` open it, or open it again?"""
        if self._opening.count:
            return begun >= self._opening.until
        return self._row.length >= CONSECUTIVE_FAILURES

    def on_reached(self, at: float) -> None:
        """Something that began at `at` came through to the backend: that mends what was a failure to reach it."""
        if self.failed_to_reach and at >= self._failed_at:
            self.failed_to_reach = False
            self._close(at)
        if not self._row.length and at >= self._failed_at:
            self._clear_doubts()

    def on_lost(self, at: float, reason: str) -> None:
        """A probe that began at `at` did not get through: it opens, or stays open for longer. One probe is enough, and
        where probes are rare, a trial is let through before the next."""
        if not self._opening.count:
            self._opening.begin(at, 0.0, count=1)
            self._failed_at = at
            self.reason = reason
            self.failed_to_reach = True
        self._opening.until = max(self._opening.until, at + jittered(OPEN_CAP_SECONDS, self._chance()))

    def _open(self, now: float) -> None:
        count = self._opening.count + 1
        seconds = min(OPEN_CAP_SECONDS, OPEN_BASE_SECONDS * 2.0 ** min(count - 1, 9))
        self._opening.begin(now, jittered(seconds, self._chance()), count=count)
        self._trial.forget()

    def _close(self, at: float) -> None:
        self._row.length = 0
        if self._opening.count:
            self._opening.count = 0
            self._closed_at = at
            self._trial.forget()

    def _clear_doubts(self) -> None:
        self._doubts = 0
        self.reason = ""

    # -- what edges share ----------------------------------------------------------------------------------------------

    def export(self) -> CircuitNote | None:
        """The last change; None when it never opened."""
        if self._opening.count:
            seconds = self._opening.until - self._opening.at
            return CircuitNote(self._opening.at, self._opening.count, seconds, self.reason, self.failed_to_reach)
        return CircuitNote(self._closed_at) if self._closed_at > -inf else None

    def absorb(self, note: CircuitNote, now: float) -> None:
        """Take over what another edge saw, if it is news and nothing that was seen here speaks against it."""
        seconds = min(note.seconds, OPEN_CAP_SECONDS * (1 + JITTER))
        if note.at <= max(self._opening.at, self._closed_at) or not came_in_time(note.at, note.at + seconds, now):
            return
        if not note.openings:
            self._close(note.at)
            if note.at >= self._failed_at:
                self._clear_doubts()
        elif note.at > self._youngest_success:
            self._opening.begin(note.at, seconds, count=note.openings)
            self._trial.forget()
            self._failed_at = note.at
            self.reason = note.reason
            self.failed_to_reach = note.unreachable
