"""The hybrid rule: one kind of backend (pools, or official APIs) is asked first, the other stands by until it is slow.

                p95 of first tokens > limit, of MEASURED or more
    primary first ────────────────────────────────────────────▶ standby first
         ▲                                                           │
         └── p95 < 80 % of the limit, or nothing measured for 30 s ──┘

While the standby goes first, one request in 20 still goes to the primary, so that its return is seen. After a switch
only what was measured since counts, and for HOLD_SECONDS nothing switches again: no flapping. Pure: the clock is an
argument, and so are the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Literal

from isochrone.routing.speed import percentile_95

Kind = Literal["pool", "api"]
Measured = Callable[[float], Sequence[float]]
"""The first tokens, in milliseconds, that came after a time in seconds on the planner's clock."""

MEASURED = 20
# One request in 20 brings few samples; so many say enough of a primary that was left.
MEASURED_ON_STANDBY = 5
WINDOW_SECONDS = 60.0
HOLD_SECONDS = 10.0
SILENCE_SECONDS = 30.0
RETURN_BELOW = 0.8
PRIMARY_SHARE = 0.05
_JUDGED_EACH_SECONDS = 1.0


class Hybrid:
    """Which kind goes first for one model. Without a limit (`above_ms` is None) that is always the primary."""

    __slots__ = ("_judged_at", "_switched_at", "above_ms", "is_on_standby", "primary")

    def __init__(self, primary: Kind = "pool", above_ms: float | None = None) -> None:
        self.primary = primary
        self.above_ms = above_ms
        self.is_on_standby = False
        self._switched_at = -inf
        self._judged_at = -inf

    def is_due(self, now: float) -> bool:
        """Is it time to judge again? Measurements are sorted for it, so not at every request."""
        return self.above_ms is not None and now - self._judged_at >= _JUDGED_EACH_SECONDS

    def judge(self, now: float, measured: Measured) -> None:
        """Switch, or not, by the first tokens of all the primary's backends."""
        self._judged_at = now
        if self.above_ms is None or now - self._switched_at < HOLD_SECONDS:
            return
        fresh = measured(max(self._switched_at, now - WINDOW_SECONDS))
        if self.is_on_standby:
            switch = self._is_quiet(now, measured) or self._is_brisk(fresh, self.above_ms)
        else:
            switch = len(fresh) >= MEASURED and (percentile_95(fresh) or 0.0) > self.above_ms
        if switch:
            self.is_on_standby = not self.is_on_standby
            self._switched_at = now

    def _is_quiet(self, now: float, measured: Measured) -> bool:
        """Nothing speaks against the primary any more."""
        since = now - SILENCE_SECONDS
        return self._switched_at <= since and not measured(since)

    @staticmethod
    def _is_brisk(fresh: Sequence[float], limit_ms: float) -> bool:
        slowest = percentile_95(fresh)
        return len(fresh) >= MEASURED_ON_STANDBY and slowest is not None and slowest < RETURN_BELOW * limit_ms

    def first(self, chance: float) -> Kind:
        """The kind to ask first; `chance`, in [0, 1), picks the requests that look whether the primary is back."""
        if not self.is_on_standby or chance < PRIMARY_SHARE:
            return self.primary
        return "api" if self.primary == "pool" else "pool"
