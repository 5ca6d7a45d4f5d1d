"""What an edge opens when it starts and closes when it ends, and its chores in between."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from isochrone.admission.limits.quota import Keep
from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.shelf import Shelf
from isochrone.answers.revocations import Revocations, longest_life
from isochrone.audit.opening import open_log
from isochrone.background import Background
from isochrone.chores import Chore, Chores
from isochrone.front_door import FrontDoor
from isochrone.ledger.book import Book
from isochrone.ledger.demand import Demand
from isochrone.ledger.savings import Savings
from isochrone.ledger.spool import open_spool
from isochrone.ledger.usage import estimate
from isochrone.routing import prober
from isochrone.routing.daily import EMULATOR_PATIENCE, PATIENCE, DailyCaps
from isochrone.routing.exchange import FRESH_SECONDS, Exchange
from isochrone.routing.fleet import UNKNOWN_RTT_MS, Fleet
from isochrone.routing.leases import Leases
from isochrone.routing.places import Home, Places
from isochrone.routing.rtt import rtt_between_regions
from isochrone.routing.shares import Shares
from isochrone.settings import Backend, Settings, home_of, semantic_somewhere
from isochrone.stores.protocols import (
    AnswerStore,
    CheckpointStore,
    DirectoryStore,
    FleetStore,
    LedgerStore,
    RollupStore,
)
from isochrone.upstream.attempt import open_session
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.credentials import Credentials

if TYPE_CHECKING:
    from isochrone.answers.curated.book import Likeness
    from isochrone.stores.secrets import SecretReader

_LEDGER_FLUSH_SECONDS = 1.0
_AUDIT_FLUSH_SECONDS = 1.0
_LEDGER_ADOPT_SECONDS = 60.0
_ROLLUP_SECONDS = 10.0
_REVOCATIONS_SECONDS = 4.0
_LIMITS_SECONDS = 2.0
_SECRETS_SECONDS = 300.0
_SHARE_SECONDS = 1.0
# A Lambda pays for its probes in billed time.
_PROBE_SECONDS_BETWEEN_REQUESTS = 60.0
# The duty to probe outlives this many missed rounds, and no pause shorter than that.
_DUTY_ROUNDS = 3
_DUTY_SECONDS = 15.0


class Stores(NamedTuple):
    """The stores of one edge, and what closes them. Without `fleet` no other process shares anything with it;
    `fleet_in` gives the fleet store of another region."""

    answers: AnswerStore
    ledger: LedgerStore
    rollups: RollupStore
    fleet: FleetStore | None = None
    fleet_in: Callable[[str], FleetStore] | None = None
    close: Callable[[], Awaitable[None]] | None = None
    directory: DirectoryStore | None = None
    checkpoints: CheckpointStore | None = None


def _own_name() -> str:
    """A name that no other process has."""
    return os.urandom(8).hex()


def _likeness(settings: Settings) -> Likeness | None:
    """What finds curated answers to similar questions, loaded only where those are on for somebody."""
    if not semantic_somewhere(settings):
        return None
    from isochrone.answers.curated.wording import Wordings

    return Wordings


class Life:
    """What is opened when an edge starts and closed when it ends, and its chores in between."""

    def __init__(
        self,
        settings: Settings,
        region: str,
        environ: Mapping[str, str],
        stores: Stores,
        standards: Sequence[Entry] = (),
        *,
        resident: bool,
    ) -> None:
        self._settings = settings
        self._region = region
        self._environ = environ
        self._resident = resident
        self.stores = stores
        self.book = Book(self.stores.ledger, open_spool(settings, region, environ))
        self.audit = open_log(settings, region, environ, checkpoints=stores.checkpoints)
        here = next(known for known in settings.region if known.name == region)
        chance = random.SystemRandom().random
        self.savings = Savings(stores.rollups, chance)
        self.demand = Demand(stores.rollups, wanted=settings.answers.warm and stores.fleet is not None)
        self.fleet = Fleet(
            settings.backend,
            edge_region=region,
            edge_place=here.location,
            models=settings.model,
            deadlines=settings.deadlines,
            chance=chance,
        )
        store = stores.fleet
        self.leases = Leases(store, _own_name(), time.time)
        self.exchange = (
            Exchange(self.fleet, store, clock=time.time, monotonic=time.monotonic, chance=chance) if store else None
        )
        self.background = Background()
        self.places = Places(
            self._home_of,
            self.leases,
            self.background,
            holder=self.leases.holder,
            clock=time.monotonic,
            wall=time.time,
            shares=Shares({tenant.name: tenant.weight for tenant in settings.tenant}),
        )
        self.shelf = Shelf(
            stores.directory, standards, estimate=estimate, background=self.background, likeness=_likeness(settings)
        )
        self.revocations = (
            Revocations(
                stores.directory,
                life=longest_life(settings),
                clock=time.time,
                monotonic=time.monotonic,
                background=self.background,
            )
            if stores.directory
            else None
        )
        self.caps = DailyCaps(
            self._home_of,
            local_share=settings.limits.local_share,
            wall=time.time,
            clock=time.monotonic,
            patience=EMULATOR_PATIENCE if settings.state.endpoint_url else PATIENCE,
        )
        self.budget = RetryBudget(settings.retry.budget_ratio)
        self.hedges = RetryBudget(settings.routing.hedge_ratio, floor=0, name="hedges")
        self.session = open_session()
        self.credentials = Credentials(settings.backend, environ, read=self._read_key, background=self.background)
        self._probing = prober.open_session()
        self._secrets: SecretReader | None = None
        self._reading_secrets = Chore("reading secrets", _SECRETS_SECONDS, self.credentials.fetch)
        self._front: FrontDoor | None = None
        self._chores = Chores(self._all_chores())

    def _home_of(self, backend: Backend) -> Home:
        home = home_of(backend, self._settings)
        if home == self._region or self.stores.fleet_in is None:
            return Home(self.stores.fleet)
        rtt = rtt_between_regions(self._region, home)
        return Home(self.stores.fleet_in(home), rtt.ms if rtt else UNKNOWN_RTT_MS)

    def attend_to(self, front: FrontDoor) -> None:
        """Start it, end it and do its chores, too."""
        self._front = front
        self._chores = Chores(self._all_chores())

    def _all_chores(self) -> list[Chore]:
        chores = [
            Chore("adopting what dead edges left for the ledger", _LEDGER_ADOPT_SECONDS, self.book.adopt),
            Chore("adopting what dead edges left for the audit", _LEDGER_ADOPT_SECONDS, self.audit.adopt),
        ]
        if self._resident:
            chores.append(Chore("flushing the ledger", _LEDGER_FLUSH_SECONDS, self.book.flush))
            chores.append(Chore("delivering the audit", _AUDIT_FLUSH_SECONDS, self.audit.flush))
        # A frozen process may never come back to what it has not told.
        every = _ROLLUP_SECONDS if self._resident else 0.0
        chores.append(Chore("telling what answers saved", every, self._tell_rollups))
        if self.revocations and self._resident:
            hear = partial(self.revocations.refresh, max_age=0)
            chores.append(Chore("hearing what was revoked", _REVOCATIONS_SECONDS, hear))
        if self.exchange:
            every = _SHARE_SECONDS if self._resident else 0.0  # a frozen process must have said what it saw
            chores.append(Chore("sharing what was seen", every, partial(self._share, self.exchange)))
        if store := self.stores.fleet:
            chores.append(Chore("sharing the retry budget", _SHARE_SECONDS, partial(self._share_budgets, store)))
        if every := self._probes_every():
            chores.append(Chore("probing the backends", every, self._probe))
        if self.credentials.needs_secrets:
            chores.append(self._reading_secrets)
        return chores + self._chores_of_the_front_door()

    def _chores_of_the_front_door(self) -> list[Chore]:
        if self._front is None:
            return []
        every, keep = (_LIMITS_SECONDS, Keep.SOME) if self._resident else (0.0, Keep.LITTLE)
        chores = [Chore("settling limits", every, partial(self._front.limiter.flush, keep))]
        if self._resident:
            chores.append(Chore("hearing of policies and issuers", _REVOCATIONS_SECONDS, self._front.refresh))
        return chores

    def _probes_every(self) -> float:
        """Seconds between rounds of probes; 0 for none. The functions of a region have a prober that tells them."""
        every = self._settings.routing.probe_interval
        if self._resident or not every:
            return every
        return 0.0 if self.exchange else max(every, _PROBE_SECONDS_BETWEEN_REQUESTS)

    async def start(self) -> None:
        """Before the first request. A secret that cannot be read now is logged, and tried again as a chore."""
        # Not earlier: the copies of a snapshot would share the name, and count each other's slots for their own.
        self.leases.holder = self.places.holder = _own_name()
        await self.shelf.refresh(time.time())
        if self.revocations:
            await self.revocations.refresh()
        if self._front:
            await self._front.refresh()
        if self.credentials.needs_secrets:
            await self._reading_secrets.do_now()
        if self._resident:
            self._chores.start()

    async def catch_up(self) -> None:
        """After a reply, where nothing happens between requests: a frozen process must hold no place."""
        if not self._resident:
            places = [self.places.settle()] + ([self._front.limiter.settle()] if self._front else [])
            await asyncio.gather(*places, self._chores.catch_up(time.monotonic()))

    async def _share(self, exchange: Exchange) -> None:
        """Hear first: a write against others who were faster costs as much as one that counts."""
        await exchange.refresh(max_age=0 if self._resident else FRESH_SECONDS)
        await exchange.publish()

    async def _share_budgets(self, store: FleetStore) -> None:
        hedged = any(model.hedge_after for model in self._settings.model)
        budgets = (self.budget, self.hedges) if hedged else (self.budget,)  # each telling is a paid write
        await asyncio.gather(*(budget.share(store, time.time()) for budget in budgets))

    async def _tell_rollups(self) -> None:
        await asyncio.gather(self.savings.flush(), self.demand.flush())

    async def _probe(self) -> None:
        duty = max(_DUTY_SECONDS, _DUTY_ROUNDS * self._settings.routing.probe_interval)
        await prober.probe_in_turn(self.fleet, self._probing, self.leases, seconds=duty)

    async def _read_key(self, backend: Backend) -> str:
        from isochrone.stores.secrets import SecretReader

        if self._secrets is None:
            endpoint = self._settings.state.endpoint_url
            self._secrets = SecretReader(self._region, endpoint_url=endpoint, environ=self._environ)
        return await self._secrets.read(backend)

    async def close(self) -> None:
        """After the last request. Chores end first, so that what one of them holds is flushed too."""
        await self._chores.stop()
        await self.places.close()
        if self._front:
            await self._front.limiter.close()
        await self.background.finish()
        await self.leases.let_go()
        if self.exchange:
            await self.exchange.publish()
        await asyncio.gather(self.book.close(), self.audit.close(), self._tell_rollups())
        await self._probing.close()
        await self.session.close()
        if self._secrets:
            await self._secrets.aclose()
        if self.stores.close:
            await self.stores.close()
