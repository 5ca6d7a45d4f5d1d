"""Where settings, stores and rooms meet; nothing else builds them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import aiohttp

from isochrone.admission.address import AddressRule
from isochrone.admission.keys import KeyRing
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.background import Background
from isochrone.edge import Edge
from isochrone.ledger.book import Book
from isochrone.ledger.counters import Counters
from isochrone.pipeline import Pipeline, Rooms
from isochrone.routing import prober
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import GeoError, Locator, open_locator
from isochrone.routing.plan import Step
from isochrone.settings import Backend, Settings, SettingsError, table_name
from isochrone.stores.protocols import AnswerStore, LedgerStore, StoreUnavailable
from isochrone.upstream.attempt import open_session
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.pursuit import Means

if TYPE_CHECKING:
    from isochrone.stores.dynamodb.client import DynamoClient

log = logging.getLogger("isochrone")

_LEDGER_FLUSH_SECONDS = 1.0
_LEDGER_IN_MEMORY = 10_000


class Stores(NamedTuple):
    """The stores of one edge, and what closes them."""

    answers: AnswerStore
    ledger: LedgerStore
    close: Callable[[], Awaitable[None]] | None = None


def build_edge(
    settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ, resident: bool = False
) -> Edge:
    """One edge of `region`, not started yet; call it inside its event loop. Raises SettingsError.

    A `resident` edge lives between requests: it probes its backends and flushes its ledger by itself. One that is not
    (a Lambda) is flushed by its door.
    """
    if region not in (known.name for known in settings.region):
        names = ", ".join(known.name for known in settings.region)
        raise SettingsError(f"region {region!r} is not in the configuration; it has {names}")
    _say_what_is_not_enforced(settings)
    locator = locator_of(settings, environ)  # first, because it can fail: nothing is open yet
    stores = open_stores(settings, region, environ)
    fleet = Fleet(settings.backend, edge_region=region)
    book = Book(stores.ledger)
    credentials = Credentials(settings, region, environ)
    session = open_session(settings.deadlines)
    rooms = Rooms(
        address=AddressRule(settings.geo.trusted_proxies),
        keys=KeyRing(settings.key, required=settings.auth.required),
        locator=locator,
        library=Library(stores.answers, _memory_tier(settings), ttl=settings.answers.ttl),
        fleet=fleet,
        means=Means(
            session=session,
            deadlines=settings.deadlines,
            retry=settings.retry,
            budget=RetryBudget(settings.retry.budget_ratio, now=time.monotonic()),
            headers_for=credentials.headers_for,
            chance=random.SystemRandom().random,  # a snapshot's restored copies must not share their chances,
        ),
        book=book,
        counters=Counters(),
    )
    background = Background()
    life = _Life(rooms, stores, credentials, settings.routing.probe_interval if resident else 0.0, resident=resident)
    return Edge(
        region,
        Pipeline(settings, rooms, background),
        background,
        on_start=life.start,
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
    """The GeoIP database of the settings, or the one that a layer brings. Raises SettingsError."""
    try:
        return open_locator(settings.geo.database or environ.get("ISOCHRONE_GEO_DATABASE"))
    except GeoError as error:
        raise SettingsError(f"geo.database: {error}") from None


def _memory_tier(settings: Settings) -> MemoryTier:
    return MemoryTier(max_bytes=settings.answers.memory_bytes, ttl=settings.answers.memory_ttl)


class Credentials:
    """The headers with which each backend is asked; its key never comes from the caller."""

    def __init__(self, settings: Settings, region: str, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._region = region
        self._environ = environ
        self._headers = {facts.name: _headers(_key_in(environ, facts)) for facts in settings.backend}

    def headers_for(self, step: Step) -> Mapping[str, str]:
        """For one attempt."""
        return self._headers[step.backend.facts.name]

    async def fetch(self) -> None:
        """Read the keys that Secrets Manager holds. A backend whose key cannot be read is asked without one."""
        held = [facts for facts in self._settings.backend if facts.api_key_secret]
        if not held:
            return
        from isochrone.stores.dynamodb.client import connect
        from isochrone.stores.secrets import SECRETS_MANAGER

        endpoint = self._settings.state.endpoint_url
        async with connect(
            self._region, service=SECRETS_MANAGER, endpoint_url=endpoint, environ=self._environ
        ) as client:
            await asyncio.gather(*(self._fetch_one(client, facts) for facts in held))

    async def _fetch_one(self, client: DynamoClient, facts: Backend) -> None:
        from isochrone.stores.secrets import read_secret

        try:
            self._headers[facts.name] = _headers(await read_secret(client, facts.api_key_secret or ""))
        except StoreUnavailable as error:
            log.error("backend %s is asked without a key: its secret cannot be read: %s", facts.name, error)


def _key_in(environ: Mapping[str, str], facts: Backend) -> str | None:
    if not facts.api_key_env:
        return None
    key = environ.get(facts.api_key_env)
    if not key:
        log.warning("backend %s is asked without a key: %s is not set", facts.name, facts.api_key_env)
    return key


def _headers(key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    return {**headers, "Authorization": f"Bearer {key}"} if key else headers


class _Life:
    """What an edge does besides answering: probes, ledger flushes, and closing what was opened."""

    def __init__(
        self, rooms: Rooms, stores: Stores, credentials: Credentials, probe_interval: float, *, resident: bool
    ) -> None:
        self._rooms = rooms
        self._stores = stores
        self._credentials = credentials
        self._probe_interval = probe_interval
        self._resident = resident
        self._prober: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Before the first request."""
        await self._credentials.fetch()
        if self._resident:
            self._tasks.append(asyncio.create_task(self._keep_flushing()))
        if self._probe_interval:
            self._prober = prober.open_session()
            probing = prober.keep_probing(self._rooms.fleet, self._prober, self._probe_interval)
            self._tasks.append(asyncio.create_task(probing))

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(_LEDGER_FLUSH_SECONDS)
            try:
                await self._rooms.book.flush()
            except Exception:
                log.exception("the ledger cannot be flushed; its entries wait")

    async def close(self) -> None:
        """After the last request."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._prober:
            await self._prober.close()
        await self._rooms.means.session.close()
        if self._stores.close:
            await self._stores.close()
