"""`max_concurrency` of a backend, held across the edges of all regions: each leases some of its slots in one document,
in the fleet table of the backend's home region.

    document slots/<backend>:  {"edge-a": [12, 7, 0], "edge-b": [4, 31, 2]}
                                holder     slots  beat  lacks

A holder changes its beat with each renewal. Who sees an entry unchanged for LEASE_SECONDS on its own clock takes its
holder for dead: clocks of two processes are never compared. A holder counts the same time from before it wrote, so its
lease is over for itself before it is for others, and the sum of what is leased never exceeds the backend's slots.

Leases grow one by one, or by doubling up to a fair part, so a busy edge rarely asks. Who cannot have its fair part says
what it lacks if another has more than that, and then nobody goes on using more. Where all are small (Lambda functions,
each with one request) it would only cost a write, and the document is one that all of them write to.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from math import inf
from typing import Any, NamedTuple

import msgspec

from isochrone.routing.priority import Priority
from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone")

LEASE_SECONDS = 10.0
# How often a holder looks after its leases; what it needed in none of the last few rounds it gives back.
ROUND_SECONDS = 2.5
_ROUNDS = 2
_RENEW_BEFORE_SECONDS = LEASE_SECONDS / 2
# A full backend is not asked about again for so long; what is given back here is known at once.
FULL_SECONDS = 0.25
# A request does not wait longer than this for the table, and so many round trips more for one that is far: two to
# connect, then to read and write twice.
_PATIENCE_SECONDS = 0.25
_ROUND_TRIPS = 6
_TRIES = 4
# When the table did not answer, it is left alone for so long.
_ALONE_SECONDS = 5.0
# A document that nobody has touched for so long names no live holder, however wrong the clocks are.
_FORGOTTEN_SECONDS = LEASE_SECONDS + 180.0

Clock = Callable[[], float]


class Entry(NamedTuple):
    """What one holder has, and how many more it would take. In the document it is a list of these three."""

    slots: int = 0
    beat: int = 0
    lacks: int = 0

    @property
    def says_anything(self) -> bool:
        """An entry that does not is left out."""
        return bool(self.slots or self.lacks)

    def says_the_same(self, other: Entry) -> bool:
        """But for the beat."""
        return self.slots == other.slots and self.lacks == other.lacks


class Others(NamedTuple):
    """The live leases of all other holders: how many slots, how many holders, the most that one of them has, and
    whether one of them lacks slots."""

    slots: int = 0
    holders: int = 0
    most: int = 0
    lack: bool = False

    @classmethod
    def of(cls, entries: Collection[Entry]) -> Others:
        """Their sum."""
        slots = [entry.slots for entry in entries]
        return cls(sum(slots), len(entries), max(slots, default=0), any(entry.lacks for entry in entries))


class Watch:
    """Tells live holders from dead ones, by how long their entries have not changed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Entry, float]] = {}

    def living(self, entries: dict[str, Entry], now: float) -> dict[str, Entry]:
        """Those whose holders may be alive."""
        seen = {}
        for holder, entry in entries.items():
            before = self._seen.get(holder)
            seen[holder] = before if before and before[0] == entry else (entry, now)
        self._seen = seen
        return {holder: entry for holder, (entry, since) in seen.items() if now - since < LEASE_SECONDS}


class Slots:
    """The slots of one backend as this process has them. `clock` is monotonic, `wall` epoch seconds; with no `store`,
    or while it is gone, this process has `alone` of them for itself, if not given all. `rtt_ms` is how far away the
    store is. What else has so many slots says what it is.

    A store that is gone delays whoever asks for it first. From then on only the keeper asks, until it answers.
    """

    def __init__(
        self,
        backend: str,
        capacity: int,
        *,
        holder: str,
        store: FleetStore | None,
        clock: Clock,
        wall: Clock,
        rtt_ms: float = 0.0,
        alone: int | None = None,
        what: str = "backend",
    ) -> None:
        self.used = 0
        self.leased = 0
        self._what = what
        self._alone = capacity if alone is None else alone
        self._backend = backend
        self._capacity = capacity
        self._holder = holder
        self._store = store
        self._clock, self._wall = clock, wall
        self._patience = _PATIENCE_SECONDS + _ROUND_TRIPS * rtt_ms / 1000
        self._until = -inf
        self._full_until = dict.fromkeys(Priority, -inf)
        self._is_alone = store is None
        self._ask_again_at = -inf if store else inf
        self._beat = 0
        self._lacks = 0
        self._wanting = 0
        self._others = Others()
        self._peaks = deque([0], maxlen=_ROUNDS)
        self._watch = Watch()
        self._lock = asyncio.Lock()

    # -- for requests --------------------------------------------------------------------------------------------------

    def take_at_hand(self, priority: Priority) -> bool:
        """One of the slots that this process already has; no waiting."""
        if self.used >= self._ceiling() or self._others.slots + self.used >= priority.limit(self._capacity):
            return False
        self.used += 1
        self._peaks[-1] = max(self._peaks[-1], self.used)
        return True

    async def take(self, priority: Priority) -> bool:
        """A slot at hand, or one leased for this; False when the backend is full for this priority."""
        if self.take_at_hand(priority):
            return True
        if self._is_known_full(priority):
            return False
        self._wanting += 1
        try:
            return await self._lease_and_take(priority)
        finally:
            self._wanting -= 1

    def give_back(self) -> None:
        """A request is done with its slot."""
        self.used -= 1

    async def _lease_and_take(self, priority: Priority) -> bool:
        async with self._lock:
            if self.take_at_hand(priority):
                return True
            if self._is_known_full(priority):
                return False
            await self._exchange(lambda: self.used + self._wanting, priority)
            if self.take_at_hand(priority):
                return True
            self._full_until[priority] = self._clock() + FULL_SECONDS
            return False

    def _is_known_full(self, priority: Priority) -> bool:
        return self._is_alone or self._clock() < self._full_until[priority]

    def _ceiling(self) -> int:
        """How many requests may use slots here now."""
        if self._is_alone:
            return self._alone
        if self._clock() >= self._until:
            return 0
        return min(self.leased, self._fair_part()) if self._others.lack else self.leased

    def _fair_part(self) -> int:
        return max(1, self._capacity // (1 + self._others.holders))

    # -- for the keeper ------------------------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Is there anything to look after?"""
        return self._store is not None and bool(self.used or self.leased or self._lacks)

    async def keep(self) -> None:
        """One round: renew what is needed, give back what was not."""
        needed = max(self._peaks)
        self._peaks.append(self.used)
        usable = max(self.used, min(needed, self._ceiling()))
        if self._is_alone or usable < self.leased or self._until - self._clock() <= _RENEW_BEFORE_SECONDS:
            await self._adjust_to(needed)

    async def settle(self) -> None:
        """Keep only what is in use at this moment: before a process is frozen or ends."""
        self._peaks = deque([self.used], maxlen=_ROUNDS)
        if self._is_alone or self.leased > self.used or self._lacks:
            await self._adjust_to(self.used)

    async def _adjust_to(self, needed: int) -> None:
        async with self._lock:
            if (self._is_alone or self.is_held) and self._clock() >= self._ask_again_at:
                await self._exchange(lambda: max(needed, self.used), Priority.HIGH)

    # -- with the table ------------------------------------------------------------------------------------------------

    async def _exchange(self, needed: Callable[[], int], priority: Priority) -> None:
        """`needed` tells how many slots are; it is asked after each reading, which may take long."""
        assert self._store is not None
        try:
            async with asyncio.timeout(self._patience):
                for _ in range(_TRIES):
                    if await self._try_exchange(self._store, needed, priority):
                        break
            self._is_alone = False
        except (StoreUnavailable, TimeoutError) as error:
            self._go_alone(error)

    async def _try_exchange(self, store: FleetStore, needed: Callable[[], int], priority: Priority) -> bool:
        """Read, decide, write; False when somebody else wrote in between."""
        begun = self._clock()
        document, version = await store.read(self._name, now=self._wall())
        living = self._watch.living(_entries_in(document or {}), self._clock())
        before = living.pop(self._holder, Entry())
        self._others = Others.of(living.values())
        self._beat += 1  # also if we never hear of this writing: the next one must differ from it
        entry = self._entry_for(needed(), priority)
        # What is about to be given back must not be taken while the writing is under way.
        self.leased = min(self.leased, entry.slots)
        if not entry.says_the_same(before) or (entry.says_anything and self._until - begun <= _RENEW_BEFORE_SECONDS):
            entries = {**living, self._holder: entry} if entry.says_anything else living
            if not await store.write(self._name, entries, version=version, expires=self._wall() + _FORGOTTEN_SECONDS):
                return False
            self._until = begun + LEASE_SECONDS
        self.leased, self._lacks = entry.slots, entry.lacks
        return True

    @property
    def _name(self) -> str:
        return f"slots/{self._backend}"

    def _entry_for(self, needed: int, priority: Priority) -> Entry:
        """What to lease when so many slots are needed: some in reserve, if that takes nothing from others."""
        fair = self._fair_part()
        wanted = max(needed, min(2 * self.leased, fair)) if needed > self.leased else needed
        if self._others.lack:
            wanted = min(wanted, max(fair, self.used))
        most = max(self.used, priority.limit(self._capacity) - self._others.slots)
        got = max(0, min(wanted, most, self._capacity - self._others.slots))
        may_get_more = priority > Priority.LOW and self._others.most > fair
        lacks = max(0, min(wanted, fair) - got) if may_get_more else 0
        return Entry(got, self._beat, lacks)

    def _go_alone(self, error: Exception) -> None:
        if not self._is_alone:
            why = str(error) or "it did not answer in time"
            text = "%s %s: this edge counts its slots by itself, without the fleet table: %s"
            log.warning(text, self._what, self._backend, why)
        self._is_alone = True
        self._ask_again_at = self._clock() + _ALONE_SECONDS
        self._others = Others()


def _entries_in(document: dict[str, Any]) -> dict[str, Entry]:
    """Raises StoreUnavailable when another version of this program writes it in another form."""
    try:
        return msgspec.convert(document, dict[str, Entry])
    except msgspec.ValidationError as error:
        raise StoreUnavailable(f"its document has another form: {error}") from None
