"""Is a backend fit for requests? Passive (what became of attempts) and active (what probes saw), with time passed in.

                3 failures in a row                     ejection over
    healthy ──────────────────────────▶ ejected ──────────────────────────▶ on trial
       ▲                                    ▲                                  │  │
       │                                    └────── failure: longer ───────────┘  │
       └────────────────────────────── success ───────────────────────────────────┘

Ejection lasts BASE x times ejected in a row, at most CAP (after Envoy's outlier detection). A backend that probes find
unreachable is down until a probe reaches it again, and that probe also ends an ejection for unreachability, because
it tested what had failed. What a probe saw holds until it is old: a frozen Lambda does not probe. An ejected or
unreachable backend goes last in a plan, not away.

An attempt speaks of the time since it began: one from before the last verdict (an ejection, a probe that was the first
to get no answer) cannot overturn it when it ends well, and is no failed trial when it ends badly. Nor does an
answer break a row of failures while all attempts since its first are unheard: a sick engine may still finish what it
has.
"""

from __future__ import annotations

from enum import Enum
from math import inf

CONSECUTIVE_FAILURES = 3
EJECTION_BASE_SECONDS = 5.0
EJECTION_CAP_SECONDS = 60.0
# How long a failure speaks against a backend that is not ejected; then it gets its turn again.
DOUBT_SECONDS = 5.0
# How long a probe speaks for a backend: longer than the pause between a busy Lambda's probes, shorter than its rests.
PROBE_VERDICT_SECONDS = 150.0


class Standing(Enum):
    """`HEALTHY` takes requests; `TRIAL` takes one at a time; `EJECTED` and `UNREACHABLE` only when all are so."""

    HEALTHY = "healthy"
    TRIAL = "trial"
    EJECTED = "ejected"
    UNREACHABLE = "unreachable"


TAKES_REQUESTS = frozenset({Standing.HEALTHY, Standing.TRIAL})


class Health:
    """One backend's health. Times are seconds on any one clock; `tried` says that it was ever seen or asked."""

    __slots__ = (
        "_doubts", "_ejected_until", "_ejections", "_failed_at", "_failed_to_reach", "_judged_at",
        "_probed_at", "_row_since", "_youngest_heard", "consecutive_failures", "reachable", "reason", "tried",
    )  # fmt: skip

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.reachable: bool | None = None
        self.reason = ""
        self.tried = False
        self._doubts = 0
        self._ejections = 0
        self._ejected_until = 0.0
        self._failed_at = 0.0
        self._failed_to_reach = False
        self._judged_at = -inf
        self._probed_at = -inf
        self._row_since = -inf
        self._youngest_heard = -inf

    def standing(self, now: float) -> Standing:
        """Where it stands at `now`."""
        if self.reachable is False and self.is_probe_fresh(now):
            return Standing.UNREACHABLE
        if not self._ejections:
            return Standing.HEALTHY
        return Standing.EJECTED if now < self._ejected_until else Standing.TRIAL

    def is_probe_fresh(self, now: float) -> bool:
        """Does what the last probe saw still count?"""
        return now - self._probed_at < PROBE_VERDICT_SECONDS

    def doubts(self, now: float) -> int:
        """Failures that no younger attempt's success has made up for, while they are fresh and nothing is ejected."""
        fresh = not self._ejections and now - self._failed_at < DOUBT_SECONDS
        return self._doubts if fresh else 0

    def on_first_token(self, *, begun: float) -> None:
        """An attempt that began at `begun` is being answered. Clears nothing yet: it may die in mid-stream."""
        self._youngest_heard = max(self._youngest_heard, begun)

    def on_success(self, *, begun: float) -> None:
        """An attempt that began at `begun` was answered."""
        self.tried = True
        self.on_first_token(begun=begun)
        if begun < self._judged_at:
            return
        if self._youngest_heard >= self._row_since:
            self.consecutive_failures = self._ejections = 0
        self.reachable = True if self.reachable is not None else None
        if begun >= self._failed_at:
            self._doubts = 0
            self.reason = ""

    def on_failure(self, now: float, reason: str, *, unreachable: bool, begun: float) -> None:
        """An attempt failed through the backend's fault; `unreachable` when not even a connection came about."""
        self.tried = True
        if begun < self._judged_at:
            return
        if not self.consecutive_failures:
            self._row_since = now
        self.consecutive_failures += 1
        self.reason = reason
        self._doubts = min(self.doubts(now) + 1, CONSECUTIVE_FAILURES - 1)
        self._failed_at = now
        self._failed_to_reach = unreachable
        was_trial = self._ejections and begun >= self._ejected_until
        if was_trial or (not self._ejections and self.consecutive_failures >= CONSECUTIVE_FAILURES):
            self._eject(now)

    def _eject(self, now: float) -> None:
        self._ejections += 1
        self._ejected_until = now + min(EJECTION_CAP_SECONDS, EJECTION_BASE_SECONDS * self._ejections)
        self._judged_at = now

    def on_probe(self, now: float, *, reached: bool, reason: str = "") -> None:
        """A probe came back (or did not)."""
        self.tried = True
        if not reached and self.standing(now) is not Standing.UNREACHABLE:
            self._judged_at = now
        self._probed_at = now
        self.reachable = reached
        if not reached:
            self.reason = reason
        elif self._failed_to_reach:
            self._failed_to_reach = False
            self.consecutive_failures = self._ejections = self._doubts = 0
            self.reason = ""
        elif not self.consecutive_failures:
            self.reason = ""

    def retry_in(self, now: float) -> float:
        """Seconds until an ejection is over; 0 when there is none."""
        return max(0.0, self._ejected_until - now) if self._ejections else 0.0
