"""How long callers have listened to a backend in vain, each for less than an attempt's own patience.

A caller's own short deadline speaks against no backend, or one impatient tenant could take a sound one from all. But
when nobody has heard anything for as long as an attempt would have waited, each further one who leaves is a failure.
"""

from __future__ import annotations

from math import inf

# A caller who leaves sooner has hardly listened.
LISTENED_SECONDS = 2.0
# After a pause of this length what was heard before it says nothing any more.
PAUSE_SECONDS = 30.0


class Silence:
    """Times are seconds on any one clock."""

    __slots__ = ("_listened_until", "_seconds", "_youngest_heard")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._listened_until = -inf
        self._youngest_heard = -inf

    def break_by(self, begun: float) -> None:
        """An attempt that began at `begun` heard something, be it a refusal."""
        self._youngest_heard = max(self._youngest_heard, begun)
        self._seconds = 0.0

    def add(self, begun: float, now: float) -> float:
        """A caller who had listened since `begun` leaves. Returns the seconds that callers have listened in vain, the
        time of several at once counted once; 0 when this one says nothing."""
        if now - begun < LISTENED_SECONDS or begun <= self._youngest_heard:
            return 0.0
        if begun - self._listened_until >= PAUSE_SECONDS:
            self._seconds = 0.0
        self._seconds += max(0.0, now - max(begun, self._listened_until))
        self._listened_until = max(now, self._listened_until)
        return self._seconds
