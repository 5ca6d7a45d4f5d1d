"""Outlier ejection: a backend that fails too often, over all its models, is left aside for a while. Pure.

After Envoy's outlier detection and Finagle's failure accrual: less than 80 % of at least 20 outcomes within 30 s
succeeded, or 5 connections in a row failed. The n-th ejection lasts 10 s x n, at most 25 s, give or take 10 %; n goes
down by one for each 30 s without an ejection. A circuit (routing/circuit.py) sees rows of failures of one model; this
sees what fails now and then. Who is ejected goes last in a plan, not away.
"""

from __future__ import annotations

from collections import deque
from math import inf

from msgspec import Struct

from isochrone.routing.circuit import JITTER, Chance, came_in_time, jittered
from isochrone.routing.health import Fault

SUCCESS_PERCENT = 80
OUTCOMES = 20
WINDOW_SECONDS = 30.0
CONNECTION_FAILURES = 5
EJECTION_BASE_SECONDS = 10.0
EJECTION_CAP_SECONDS = 25.0
DECAY_SECONDS = 30.0

_BUCKET_SECONDS = 2.0
_BUCKETS = int(WINDOW_SECONDS / _BUCKET_SECONDS)


class EjectionNote(Struct, frozen=True):
    """What edges tell each other: at `at` it was ejected for `seconds`, the `times`-th time. The clock of `at` is that
    of who reads it: whoever carries a note from one to the other shifts it."""

    at: float
    times: int
    seconds: float
    reason: str
    unreachable: bool = False


def may_eject(ejected: int, choices: int) -> bool:
    """May one more of a model's choices be ejected, when so many others are? Never more than half; never the only one;
    one of two and of three."""
    return ejected + 1 <= choices // 2


def panics(refusing: int, choices: int) -> bool:
    """More than half refuse: then ejection would only push everybody onto the few that are left."""
    return 2 * refusing > choices


class Outcomes:
    """Successes and failures of the last WINDOW_SECONDS, counted in buckets so that memory is bounded."""

    __slots__ = ("_buckets", "failures", "successes")

    def __init__(self) -> None:
        self.successes = 0
        self.failures = 0
        self._buckets: deque[list[int]] = deque()

    def add(self, now: float, *, success: bool) -> None:
        """One more."""
        bucket = self._bucket(int(now // _BUCKET_SECONDS))
        bucket[1] += success
        bucket[2] += not success
        self.successes += success
        self.failures += not success

    def _bucket(self, number: int) -> list[int]:
        """The bucket to count in, those that are too old dropped: [number, successes, failures]."""
        buckets = self._buckets
        while buckets and buckets[0][0] <= number - _BUCKETS:
            _, successes, failures = buckets.popleft()
            self.successes -= successes
            self.failures -= failures
        if not buckets or buckets[-1][0] != number:
            buckets.append([number, 0, 0])
        return buckets[-1]


class Ejection:
    """One backend's. Times are seconds on any one clock; `reason` is that of the last ejection, `outcomes` what was
    counted since."""

    __slots__ = (
        "_at", "_chance", "_failed_to_reach", "_lost_connections", "_lost_since", "_times", "_until", "outcomes",
        "reason",
    )  # fmt: skip

    def __init__(self, chance: Chance) -> None:
        self.reason = ""
        self._chance = chance
        self.outcomes = Outcomes()
        self._lost_connections = 0
        self._lost_since = -inf
        self._failed_to_reach = False
        self._times = 0
        self._at = -inf
        self._until = -inf

    def holds(self, now: float) -> bool:
        """Is the backend left aside?"""
        return now < self._until

    def retry_in(self, now: float) -> float:
        """Seconds until that is over; 0 when it is not left aside."""
        return max(0.0, self._until - now)

    def on_connected(self, *, begun: float) -> None:
        """An attempt that began at `begun` came through to the backend, whatever it heard there."""
        if begun >= self._lost_since:
            self._lost_connections = 0

    def on_success(self, now: float, *, begun: float) -> None:
        """An attempt was answered whole. What began before the last ejection was over is settled with it."""
        if begun >= self._until:
            self.outcomes.add(now, success=True)

    def on_failure(self, now: float, *, begun: float, fault: Fault) -> None:
        """An attempt failed through the backend's fault."""
        if begun < self._until:
            return
        self.outcomes.add(now, success=False)
        self._failed_to_reach = fault is Fault.UNREACHABLE
        if fault is Fault.ANSWER:
            self.on_connected(begun=begun)
            return
        if not self._lost_connections:
            self._lost_since = now
        self._lost_connections += 1

    def due(self) -> str:
        """Why it should be ejected now; empty when it should not."""
        if self._lost_connections >= CONNECTION_FAILURES:
            return f"lost {self._lost_connections} connections in a row"
        failures, total = self.outcomes.failures, self.outcomes.failures + self.outcomes.successes
        if total >= OUTCOMES and 100 * self.outcomes.successes < SUCCESS_PERCENT * total:
            return f"failed {failures} of its last {total} requests"
        return ""

    def eject(self, now: float, reason: str) -> None:
        """Leave it aside for a while; what was counted until then is settled by that."""
        calm = (now - self._until) // DECAY_SECONDS if self._times else 0.0
        times = int(max(0.0, self._times - calm)) + 1
        seconds = min(EJECTION_CAP_SECONDS, EJECTION_BASE_SECONDS * times)
        self._begin(now, jittered(seconds, self._chance()), times=times, reason=reason)

    def on_reached(self, at: float) -> None:
        """Something that began at `at` came through: an ejection for being out of reach is over."""
        if self._failed_to_reach and self._at <= at < self._until:
            self._until = at

    def _begin(self, at: float, seconds: float, *, times: int, reason: str) -> None:
        self._at, self._until, self._times, self.reason = at, at + seconds, times, reason
        self.outcomes = Outcomes()
        self._lost_connections = 0

    def export(self) -> EjectionNote | None:
        """The last ejection; None when there was none."""
        if not self._times:
            return None
        return EjectionNote(self._at, self._times, self._until - self._at, self.reason, self._failed_to_reach)

    def absorb(self, note: EjectionNote, now: float) -> None:
        """Take over an ejection by another edge, if it is news here."""
        seconds = min(note.seconds, EJECTION_CAP_SECONDS * (1 + JITTER))
        if note.at > self._at and came_in_time(note.at, note.at + seconds, now):
            self._begin(note.at, seconds, times=note.times, reason=note.reason)
            self._failed_to_reach = note.unreachable
