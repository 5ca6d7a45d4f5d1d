"""Rights that one process at a time holds in a region: probe duty, a trial of a sick backend.

    take          renew         (the holder stops)          seconds without a change      another takes over
    |-------------|-------------x                           |                             |
      version 1     version 2                               a watcher saw version 2       version 3: whatever the old
                                                            for the whole term            holder does with 2 is refused

Whether a lease has run out is told by watching it, after the lock client for DynamoDB: its holder must have left it
unchanged for its whole term on the watcher's own clock. Times of two processes are compared only with an allowance, so
clocks that differ by a minute and a half grant nothing twice. A lease that nobody watched is free after that allowance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone")

# By how much the clocks of two processes may differ, once ahead and once behind.
SKEW_SECONDS = 180.0
_WATCHED_AT_ONCE = 1000


class Lease(NamedTuple):
    """A right until `until` (epoch seconds on the holder's clock). `version` is its fencing number, growing with each
    holder and renewal; 0 says that this process granted it to itself, because the store was gone."""

    name: str
    version: int
    until: float


class _Watched(NamedTuple):
    version: int
    since: float


class Leases:
    """The leases of one process; `holder` names it, `clock` tells epoch seconds. Without a store, or while it is gone,
    each process is alone and grants to itself."""

    def __init__(self, store: FleetStore | None, holder: str, clock: Callable[[], float]) -> None:
        self._store = store
        self.holder = holder
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._granted_here: dict[str, float] = {}
        self._held: dict[str, Lease] = {}
        self._is_alone = False

    async def take(self, name: str, seconds: float) -> Lease | None:
        """The lease for so many seconds, or None while somebody has it, be it another task of this process."""
        if self._granted_here.get(name, 0.0) > self._clock():
            return None
        if self._store is None:
            return self._grant(name, seconds)
        try:
            return await self._take(self._store, name, seconds)
        except StoreUnavailable as error:
            self._say_alone(error)
            return self._grant(name, seconds)

    async def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """The same right for so many seconds from now, under a higher version; None when it was lost meanwhile.

        While the store is gone it goes on under the version it has, which a later holder's exceeds.
        """
        if not lease.version or self._store is None:
            self._granted_here.pop(lease.name, None)
            return await self.take(lease.name, seconds)
        until = self._clock() + seconds
        try:
            return await self._write(self._store, lease.name, seconds, version=lease.version)
        except StoreUnavailable as error:
            self._say_alone(error)
            return lease._replace(until=until)

    async def release(self, lease: Lease) -> None:
        """Give it back at once; when the store is gone it runs out by itself."""
        self._granted_here.pop(lease.name, None)
        if not lease.version or self._store is None:
            return
        try:
            await self._write(self._store, lease.name, 0.0, version=lease.version)
        except StoreUnavailable as error:
            self._say_alone(error)

    async def hold(self, name: str, seconds: float) -> bool:
        """Is it ours for so many seconds? Renews it where it was, else tries to take it: for duties done in turns."""
        held = self._held.get(name)
        lease = await (self.renew(held, seconds) if held else self.take(name, seconds))
        if lease:
            self._held[name] = lease
        else:
            self._held.pop(name, None)
        return lease is not None

    async def let_go(self) -> None:
        """Release all that `hold` holds: a process that ends leaves its duties to the others at once."""
        while self._held:
            lease = self._held.popitem()[1]
            await self.release(await self._as_it_stands(lease))

    async def _as_it_stands(self, lease: Lease) -> Lease:
        """A renewal that was called off half way may have been written all the same."""
        if lease.version and self._store:
            with suppress(StoreUnavailable):
                found, version = await self._store.read(lease.name, now=self._clock())
                if found and found.get("holder") == self.holder:
                    return lease._replace(version=version)
        return lease

    async def _take(self, store: FleetStore, name: str, seconds: float) -> Lease | None:
        found, version = await store.read(name, now=self._clock())
        self._is_alone = False
        if found and not self._has_run_out(name, version, _term_in(found)):
            return None
        self._watched.pop(name, None)
        return await self._write(store, name, seconds, version=version)

    def _has_run_out(self, name: str, version: int, seconds: float) -> bool:
        """Counted from when a read came back with this version: the holder's term began before it wrote that."""
        now = self._clock()
        watched = self._watched.get(name)
        if watched is None or watched.version != version:
            self._watched[name] = watched = _Watched(version, now)
            if len(self._watched) > _WATCHED_AT_ONCE:
                del self._watched[next(iter(self._watched))]
        return now - watched.since >= seconds

    async def _write(self, store: FleetStore, name: str, seconds: float, *, version: int) -> Lease | None:
        until = self._clock() + seconds
        document = {"holder": self.holder, "seconds": seconds}
        written = await store.write(name, document, version=version, expires=until + SKEW_SECONDS)
        self._is_alone = False
        return Lease(name, written, until) if written else None

    def _grant(self, name: str, seconds: float) -> Lease:
        now = self._clock()
        self._granted_here = {other: until for other, until in self._granted_here.items() if until > now}
        self._granted_here[name] = now + seconds
        return Lease(name, 0, now + seconds)

    def _say_alone(self, error: StoreUnavailable) -> None:
        if not self._is_alone:
            log.warning("leases are this process's own until the fleet table answers again: %s", error)
        self._is_alone = True


def _term_in(document: dict[str, Any]) -> float:
    """A holder that another version of this program wrote down in another form is waited for as long as clocks may
    differ."""
    seconds = document.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else SKEW_SECONDS
