"""Where settings, stores and rooms meet; nothing else builds them."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from isochrone.admission.address import AddressRule
from isochrone.admission.keys import KeyRing
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.background import Background
from isochrone.chores import Chore, Chores
from isochrone.edge import Edge
from isochrone.ledger.book import Book
from isochrone.ledger.counters import Counters
from isochrone.pipeline import Pipeline, Rooms
from isochrone.routing import prober
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import GeoError, Locator, open_locator
from isochrone.settings import Settings, SettingsError, table_name
from isochrone.stores.protocols import AnswerStore, LedgerStore
from isochrone.upstream.attempt import open_session
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.credentials import Credentials
from isochrone.upstream.pursuit import Means

if TYPE_CHECKING:
    from isochrone.stores.dynamodb.client import DynamoClient

log = logging.getLogger("isochrone")

_LEDGER_FLUSH_SECONDS = 1.0
_LEDGER_IN_MEMORY = 10_000
_SECRETS_SECONDS = 300.0
# A Lambda pays for its probes in billed time.
_PROBE_SECONDS_BETWEEN_REQUESTS = 60.0


class Stores(NamedTuple):
    """The stores of one edge, and what closes them."""

    answers: AnswerStore
    ledger: LedgerStore
    close: Callable[[], Awaitable[None]] | None = None


def build_edge(
    settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ, resident: bool = False
) -> Edge:
    """One edge of `region`, not started yet; call it inside its event loop. Raises SettingsError.

    A `resident` edge lives between requests and does its chores by itself. One that is not (a Lambda) catches up on
    them when its door flushes it.
    """
    if region not in (known.name for known in settings.region):
        names = ", ".join(known.name for known in settings.region)
        raise SettingsError(f"region {region!r} is not in the configuration; it has {names}")
    _say_what_is_not_enforced(settings)
    _say_if_nobody_may_ask(settings)
    locator = locator_of(settings, environ)  # first, because it can fail: nothing is open yet
    life = _Life(settings, region, environ, resident=resident)
    _say_what_has_no_place(settings, life.fleet)
    means = Means(
        session=life.session,
        retry=settings.retry,
        budget=RetryBudget(settings.retry.budget_ratio),
        headers_for=life.credentials.headers_for,
        chance=random.SystemRandom().random,  # a snapshot's restored copies must not share their chances
        hedges=RetryBudget(settings.routing.hedge_ratio, floor=0, name="hedges"),
        contexts={model.name: model.context for model in settings.model if model.context},
        hedge_after={model.name: model.hedge_after for model in settings.model if model.hedge_after},
        max_wait=settings.routing.max_wait,
    )
    rooms = Rooms(
        address=AddressRule(settings.geo.trusted_proxies),
        keys=KeyRing(settings.key, required=settings.auth.required),
        locator=locator,
        library=Library(life.stores.answers, _memory_tier(settings), ttl=settings.answers.ttl),
        fleet=life.fleet,
        means=means,
        book=life.book,
        counters=Counters(),
    )
    background = Background()
    return Edge(
        region,
        Pipeline(settings, rooms, background),
        background,
        on_start=life.start,
        on_flush=life.catch_up,
        on_close=life.close,
        with_metrics=resident,
        new_id=lambda: os.urandom(16).hex(),
        clock=time.monotonic,
    )


def _say_what_is_not_enforced(settings: Settings) -> None:
    """A setting that is read but has no effect yet must not pass for one that has."""
    if settings.answers.semantic:
        log.warning("answers.semantic has no effect yet: only exact answers are known")
    for key in settings.key:
        if key.requests_per_minute or key.tokens_per_minute or key.concurrency:
            log.warning("key %s: its limits are not enforced yet", key.id)


def _say_if_nobody_may_ask(settings: Settings) -> None:
    if settings.auth.required and not settings.key:
        log.warning("auth.required is on and there is no [[key]]: every request will be refused with 401")


def _say_what_has_no_place(settings: Settings, fleet: Fleet) -> None:
    for state in fleet.states:
        if state.place is None and state.facts.kind == "pool":
            region = state.facts.region
            why = f"region {region!r} is not known" if region else "it has no region"
            log.warning("backend %s: %s and it has no location, so its distance is unknown", state.facts.name, why)


def open_stores(settings: Settings, region: str, environ: Mapping[str, str]) -> Stores:
    """The stores that `state` names."""
    if settings.state.kind == "memory":
        from isochrone.stores.memory import MemoryAnswerStore, MemoryLedgerStore

        answers = MemoryAnswerStore(capacity=settings.answers.memory_bytes)
        return Stores(answers, MemoryLedgerStore(capacity=_LEDGER_IN_MEMORY))
    from isochrone.stores.dynamodb.answers import DynamoAnswerStore
    from isochrone.stores.dynamodb.client import connect
    from isochrone.stores.dynamodb.ledger import DynamoLedgerStore

    client = connect(region, endpoint_url=settings.state.endpoint_url, environ=environ)
    return Stores(
        DynamoAnswerStore(client, table_name(settings, "answers")),
        DynamoLedgerStore(client, table_name(settings, "ledger")),
        client.aclose,
    )


def locator_of(settings: Settings, environ: Mapping[str, str]) -> Locator:
    """The GeoIP database that a layer brings, or that of the settings. Raises SettingsError."""
    try:
        return open_locator(environ.get("ISOCHRONE_GEO_DATABASE") or settings.geo.database)
    except GeoError as error:
        raise SettingsError(f"geo.database: {error}") from None


def _memory_tier(settings: Settings) -> MemoryTier:
    return MemoryTier(max_bytes=settings.answers.memory_bytes, ttl=settings.answers.memory_ttl)


class _Life:
    """What is opened when an edge starts and closed when it ends, and its chores in between."""

    def __init__(self, settings: Settings, region: str, environ: Mapping[str, str], *, resident: bool) -> None:
        self._settings = settings
        self._region = region
        self._environ = environ
        self._resident = resident
        self.stores = open_stores(settings, region, environ)
        self.book = Book(self.stores.ledger)
        here = next(known for known in settings.region if known.name == region)
        self.fleet = Fleet(
            settings.backend,
            edge_region=region,
            edge_place=here.location,
            models=settings.model,
            deadlines=settings.deadlines,
            chance=random.SystemRandom().random,
        )
        self.session = open_session()
        self.credentials = Credentials(settings.backend, environ)
        self._probing = prober.open_session()
        self._secrets: DynamoClient | None = None
        self._reading_secrets = Chore("reading secrets", _SECRETS_SECONDS, self._fetch_secrets)
        self._chores = Chores(self._all_chores())

    def _all_chores(self) -> list[Chore]:
        chores = []
        if self._resident:
            chores.append(Chore("flushing the ledger", _LEDGER_FLUSH_SECONDS, self.book.flush))
        if every := self._settings.routing.probe_interval:
            every = every if self._resident else max(every, _PROBE_SECONDS_BETWEEN_REQUESTS)
            chores.append(Chore("probing the backends", every, self._probe))
        if self.credentials.needs_secrets:
            chores.append(self._reading_secrets)
        return chores

    async def start(self) -> None:
        """Before the first request. A secret that cannot be read now is logged, and tried again as a chore."""
        if self.credentials.needs_secrets:
            await self._reading_secrets.do_now()
        if self._resident:
            self._chores.start()

    async def catch_up(self) -> None:
        """After a reply, where nothing happens between requests."""
        if not self._resident:
            await self._chores.catch_up(time.monotonic())

    async def _probe(self) -> None:
        await prober.probe_all(self.fleet, self._probing)

    async def _fetch_secrets(self) -> None:
        from isochrone.stores.dynamodb.client import Timeouts, connect
        from isochrone.stores.secrets import SECRETS_MANAGER, read_secret

        if self._secrets is None:
            self._secrets = connect(
                self._region,
                service=SECRETS_MANAGER,
                endpoint_url=self._settings.state.endpoint_url,
                environ=self._environ,
                timeouts=Timeouts(connect=2.0, total=10.0),  # nobody waits but the first start
            )
        await self.credentials.fetch(partial(read_secret, self._secrets))

    async def close(self) -> None:
        """After the last request. Chores end first, so that what one of them holds is flushed too."""
        await self._chores.stop()
        await self.book.flush()
        await self._probing.close()
        await self.session.close()
        if self._secrets:
            await self._secrets.aclose()
        if self.stores.close:
            await self.stores.close()
