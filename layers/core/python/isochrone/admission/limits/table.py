"""The fleet table of one region as the limits know it: does it answer, and what time is it there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from isochrone.background import Background
from isochrone.stores.protocols import FleetStore

log = logging.getLogger("isochrone")

# No request waits longer for a table, and so many round trips more for one that is far: two to connect, two to ask.
_PATIENCE_SECONDS = 0.3
_ROUND_TRIPS = 4
# One call may fail while a table throttles; after the next one, nobody waits for it for a while.
_FAILURES = 2
_ALONE_SECONDS = 5.0


class Table:
    """A store with the time of its clock. While it `is_alone`, a process counts by itself: `local_share` of each limit
    is its own. `clock` gives epoch seconds; `holder` names this process and no other; `rtt_ms` tells how far it is."""

    def __init__(
        self,
        store: FleetStore,
        *,
        clock: Callable[[], float],
        background: Background,
        holder: Callable[[], str],
        local_share: float = 1.0,
        rtt_ms: float = 0.0,
    ) -> None:
        self.store = store
        self.background = background
        self.holder = holder
        self.local_share = local_share
        self.patience = _PATIENCE_SECONDS + _ROUND_TRIPS * rtt_ms / 1000
        self.is_alone = False
        self.calls = 0
        self.failures = 0
        self._clock = clock
        self._in_a_row = 0
        self._ask_again_at = 0.0

    def now(self) -> float:
        """Epoch seconds by its clock: that of a process may be wrong."""
        return self._clock() + self.store.offset

    def may_be_asked(self) -> bool:
        """Not while it is known to be gone; from time to time somebody tries."""
        return not self.is_alone or self._clock() >= self._ask_again_at

    @property
    def asked_again_in(self) -> float:
        """Seconds until somebody tries."""
        return max(0.0, self._ask_again_at - self._clock())

    def answered(self) -> None:
        """All is well."""
        if self.is_alone:
            log.warning("limits are counted in the fleet table again")
        self.is_alone, self._in_a_row = False, 0

    def failed(self, why: str) -> None:
        """It refused a call, or did not answer one."""
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= _FAILURES:
            self.is_gone(why)

    def is_gone(self, why: str) -> None:
        """Count alone, and ask again in a while."""
        if not self.is_alone:
            share = f"{self.local_share:.0%} of each limit"
            log.warning("limits are counted by this process alone, up to %s: the fleet table: %s", share, why)
        self.is_alone = True
        self._ask_again_at = self._clock() + _ALONE_SECONDS
