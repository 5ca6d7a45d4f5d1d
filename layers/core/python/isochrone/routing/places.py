"""The right to one attempt: a slot of the backend and, where its circuit is half-open, the one trial.

    take ──▶ slot at hand, or one leased in the fleet table ──▶ Place ──▶ give_back, once, when the attempt has ended
      │                                                                          │
      └── full, or another holds the trial: None ──▶ wait, by priority ◀─────────┘

Slots are in `slots`, the order of those who wait in `waiting`; this puts them together for the offers of an edge. Slots
are leased where the backend has its home, since a backend can be filled from all regions. A trial is leased in the own
region, like the snapshot that tells how the last one ended: each region tries for itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from isochrone.background import Background
from isochrone.routing.circuit import HALF_OPEN
from isochrone.routing.fleet import Offer
from isochrone.routing.leases import Lease, Leases
from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares
from isochrone.routing.slots import ROUND_SECONDS, Slots
from isochrone.routing.waiting import WaitingRoom, retry_after
from isochrone.settings import Backend
from isochrone.stores.protocols import FleetStore

# Longer than a trial takes to show something; when an edge dies with it, another tries after that.
TRIAL_SECONDS = 15.0
# A request does not wait longer than this to hear whether another edge has the trial.
_PATIENCE_SECONDS = 0.25
# What is remembered of how long places were held, for the Retry-After.
_RECENT_VISITS = 64
_RECENT_SECONDS = 60.0


class Place:
    """Holds a slot, and the trial where `is_trial`, from `since` (seconds) until it is given back."""

    __slots__ = ("_is_open", "_places", "_trial", "offer", "since", "tenant")

    def __init__(self, places: Places, offer: Offer, *, since: float, tenant: str, trial: _Trial | None = None) -> None:
        self.offer = offer
        self.since = since
        self.tenant = tenant
        self._places = places
        self._trial = trial
        self._is_open = True

    @property
    def is_trial(self) -> bool:
        """Is this the one attempt that a half-open circuit lets through?"""
        return self._trial is not None

    def give_back(self) -> None:
        """The attempt has ended, and the circuit has been told what it showed. Does nothing the second time."""
        if self._is_open:
            self._is_open = False
            self._places._on_end(self)


class _Trial:
    """Its number in the circuit, and the lease that keeps other edges from having one at the same time."""

    __slots__ = ("lease", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.lease: Lease | None = None


class _Held(NamedTuple):
    """A place was held for so many seconds, and given back at `ended`."""

    ended: float
    seconds: float


class Home(NamedTuple):
    """The fleet table that holds the slots of a backend, and the round trip to it in milliseconds. Without a `store`
    each edge counts for itself."""

    store: FleetStore | None = None
    rtt_ms: float = 0.0


class Places:
    """The places of one edge. `home_of` is asked once for each backend, when its first slot is taken. `clock` is the
    event loop's and `wall` tells epoch seconds; `holder` names this process and no other, from the first place that is
    taken. `background` is for what nobody waits for. `shares` says what each tenant is due of places that are short."""

    def __init__(
        self,
        home_of: Callable[[Backend], Home],
        leases: Leases,
        background: Background,
        *,
        holder: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        shares: Shares | None = None,
    ) -> None:
        self._home_of = home_of
        self._leases = leases
        self._background = background
        self.holder = holder
        self._clock, self._wall = clock, wall
        self._slots: dict[str, Slots] = {}
        self._shares = shares or Shares()
        self._room: WaitingRoom[Place] = WaitingRoom(clock, self._shares)
        self._sought: Counter[Offer] = Counter()
        self._visits: dict[str, deque[_Held]] = defaultdict(lambda: deque(maxlen=_RECENT_VISITS))
        self._keeper: asyncio.Task[None] | None = None

    async def take(self, offer: Offer, *, priority: int, tenant: str = "") -> Place | None:
        """A place for a request of this priority (1 to 10); None when the backend is full for it, when another request
        is its trial, or when others wait for a place there already."""
        return None if offer in self._sought else await self._take(offer, Priority.of(priority), tenant)

    async def wait(self, offers: Sequence[Offer], *, priority: int, until: float, tenant: str = "") -> Place | None:
        """A place at the first of these that has one, when it is our turn; None when `until` (of `clock`) passed, or
        too many wait."""

        async def take(right: Priority) -> Place | None:
            for offer in offers:
                if place := await self._take(offer, right, tenant):
                    return place
            return None

        self._sought.update(offers)
        try:
            return await self._room.wait(
                frozenset(offers), take, priority=Priority.of(priority), until=until, tenant=tenant
            )
        finally:
            self._sought -= Counter(offers)

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._room)

    def retry_after(self, offers: Sequence[Offer], *, priority: int, tenant: str = "") -> int:
        """Whole seconds after which one of these may have a place for such a request, going by how long places were
        held of late and by who waits already."""
        ahead = self._room.ahead_of(frozenset(offers), Priority.of(priority), tenant)
        backends = {offer.backend.facts.name for offer in offers}
        return retry_after(ahead, sum(map(self._freed_per_second, backends)))

    async def settle(self) -> None:
        """Give back what no request uses at this moment: before a Lambda is frozen."""
        await asyncio.gather(*(slots.settle() for slots in self._slots.values()))

    async def close(self) -> None:
        """Send away whoever waits, and give back what is left."""
        await self._room.close()
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.settle()

    # -- taking --------------------------------------------------------------------------------------------------------

    async def _take(self, offer: Offer, priority: Priority, tenant: str) -> Place | None:
        now = self._clock()
        if offer.circuit.state(now) is HALF_OPEN:
            return await self._take_trial(offer, priority, tenant, now)
        return Place(self, offer, since=now, tenant=tenant) if await self._take_slot(offer, priority) else None

    async def _take_trial(self, offer: Offer, priority: Priority, tenant: str, now: float) -> Place | None:
        number = offer.circuit.claim_trial(now)
        if number is None:
            return None
        trial = _Trial(number)
        has_slot = False
        try:
            has_slot = await self._take_slot(offer, priority)
            if has_slot and await self._may_try(offer, trial):
                return Place(self, offer, since=now, tenant=tenant, trial=trial)
        except BaseException:
            self._return(offer, trial, has_slot=has_slot)
            raise
        self._return(offer, trial, has_slot=has_slot)
        return None

    async def _take_slot(self, offer: Offer, priority: Priority) -> bool:
        facts = offer.backend.facts
        if facts.max_concurrency is None:
            return True
        slots = self._slots.get(facts.name) or self._open_slots(facts, facts.max_concurrency)
        try:
            return slots.take_at_hand(priority) or await slots.take(priority)
        finally:
            self._keep_leases()

    async def _may_try(self, offer: Offer, trial: _Trial) -> bool:
        """Does no other edge have a trial there now? A table that does not say so in time does not keep us from it."""
        name = f"trial/{offer.backend.facts.name}/{offer.model}"
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                trial.lease = await self._leases.take(name, TRIAL_SECONDS)
        except TimeoutError:
            return True
        return trial.lease is not None

    def _open_slots(self, facts: Backend, capacity: int) -> Slots:
        home = self._home_of(facts)
        slots = Slots(
            facts.name,
            capacity,
            holder=self.holder,
            store=home.store,
            rtt_ms=home.rtt_ms,
            clock=self._clock,
            wall=self._wall,
        )
        self._slots[facts.name] = slots
        return slots

    def _keep_leases(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._look_after_leases(), name="keeping slots")

    async def _look_after_leases(self) -> None:
        while held := [slots for slots in self._slots.values() if slots.is_held]:
            await asyncio.sleep(ROUND_SECONDS)
            await asyncio.gather(*(slots.keep() for slots in held))

    # -- giving back ---------------------------------------------------------------------------------------------------

    def _on_end(self, place: Place) -> None:
        facts = place.offer.backend.facts
        if facts.max_concurrency is not None:
            now = self._clock()
            self._visits[facts.name].append(_Held(now, now - place.since))
            self._shares.on_held(place.tenant, now - place.since)
        self._return(place.offer, place._trial, has_slot=True)
        self._room.places_freed()

    def _return(self, offer: Offer, trial: _Trial | None, *, has_slot: bool) -> None:
        if trial:
            offer.circuit.free_trial(trial.number, self._clock())
            if trial.lease:
                self._background.start(self._leases.release(trial.lease))
        if has_slot and (slots := self._slots.get(offer.backend.facts.name)):
            slots.give_back()

    def _freed_per_second(self, backend: str) -> float:
        """By Little's law: how many are held here, by how long each is. 0 where nothing is known of that.

        How many came back of late would say little of a rush: before it, most of them stood empty.
        """
        now = self._clock()
        seconds = [held.seconds for held in self._visits.get(backend, ()) if now - held.ended < _RECENT_SECONDS]
        slots = self._slots.get(backend)
        return slots.used * len(seconds) / sum(seconds) if slots and any(seconds) else 0.0
