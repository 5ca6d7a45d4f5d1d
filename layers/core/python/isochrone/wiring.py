"""Where settings, stores and rooms meet; nothing else builds them."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.shelf import load_file
from isochrone.answers.desk import Desk, Similar
from isochrone.answers.flights import Flights
from isochrone.answers.generations import Generations
from isochrone.answers.inquiry import revisions_of
from isochrone.answers.library import Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.answers.terms import TermsBook
from isochrone.audit.opening import check_folder
from isochrone.edge import Edge
from isochrone.edge_answers import AnswerRoutes
from isochrone.front_wiring import build_front_door, check_issuers
from isochrone.heap import keep_buffers
from isochrone.ledger.counters import Counters
from isochrone.ledger.usage import estimate
from isochrone.life import Life, Stores
from isochrone.light.work import LightWork
from isochrone.pipeline import Pipeline, Rooms
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import GeoError, Locator, open_locator
from isochrone.routing.plan import Planner
from isochrone.settings import Settings, SettingsError, semantic_somewhere, table_name
from isochrone.stores.protocols import FleetStore
from isochrone.upstream.pursuit import Means
from isochrone.upstream.rejoin import Rejoin

log = logging.getLogger("isochrone")

_LEDGER_IN_MEMORY = 10_000


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
    keep_buffers()
    _say_if_nobody_may_ask(settings)
    # These can fail: first, while nothing is open yet.
    check_issuers(settings.issuer)
    check_folder(settings)
    locator, standards = locator_of(settings, environ), standards_of(settings)
    life = Life(settings, region, environ, open_stores(settings, region, environ), standards, resident=resident)
    _say_what_has_no_place(settings, life.fleet)
    chance = random.SystemRandom().random  # a snapshot's restored copies must not share their chances
    means = Means(
        session=life.session,
        retry=settings.retry,
        budget=life.budget,
        hedges=life.hedges,
        places=life.places,
        headers_for=life.credentials.headers_for,
        headers_after_refusal=life.credentials.headers_after_refusal,
        chance=chance,
        contexts={model.name: model.context for model in settings.model if model.context},
        hedge_after={model.name: model.hedge_after for model in settings.model if model.hedge_after},
        max_wait=settings.routing.max_wait,
        caps=life.caps,
    )
    counters = Counters()
    fleet_store = life.stores.fleet
    generations = Generations(fleet_store, clock=time.time, background=life.background) if fleet_store else None
    rooms = Rooms(
        front=build_front_door(settings, region, life, locator, counters),
        desk=_desk(settings, life, counters, chance),
        fleet=life.fleet,
        planner=Planner(life.fleet, models=settings.model, routing=settings.routing, chance=chance),
        means=means,
        book=life.book,
        counters=counters,
        savings=life.savings,
        demand=life.demand,
        flights=Flights(life.background, Rejoin, generations),
        light=LightWork(settings.light, served=life.fleet.models, estimate=estimate),
        audit=life.audit,
        exchange=life.exchange,
    )
    life.attend_to(rooms.front)
    pipeline = Pipeline(settings, rooms, life.background)
    return Edge(
        region,
        pipeline,
        life.background,
        on_start=life.start,
        on_flush=life.catch_up,
        on_close=life.close,
        with_metrics=resident,
        answers=AnswerRoutes(rooms.desk.library, life.revocations) if life.revocations else None,
        new_id=lambda: os.urandom(16).hex(),
        clock=time.monotonic,
    )


def _say_if_nobody_may_ask(settings: Settings) -> None:
    looked_up = settings.auth.keys and settings.state.kind == "dynamodb"
    if settings.auth.required and not (settings.key or settings.issuer or looked_up):
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
        from isochrone.stores.memory import MemoryAnswerStore, MemoryDirectoryStore, MemoryLedgerStore
        from isochrone.stores.memory_rollups import MemoryRollupStore

        answers = MemoryAnswerStore(capacity=settings.answers.memory_bytes)
        ledger = MemoryLedgerStore(capacity=_LEDGER_IN_MEMORY)
        return Stores(answers, ledger, MemoryRollupStore(), directory=MemoryDirectoryStore())
    from isochrone.stores.dynamodb.answers import DynamoAnswerStore
    from isochrone.stores.dynamodb.checkpoints import DynamoCheckpoints
    from isochrone.stores.dynamodb.clients import Clients
    from isochrone.stores.dynamodb.directory import open_directory
    from isochrone.stores.dynamodb.fleet import DynamoFleetStore
    from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
    from isochrone.stores.dynamodb.rollups import DynamoRollupStore

    clients = Clients(region, endpoint_url=settings.state.endpoint_url, environ=environ)

    def fleet_in(region: str) -> FleetStore:
        return DynamoFleetStore(clients.of(region), table_name(settings, "fleet"))

    return Stores(
        DynamoAnswerStore(clients.of(region), table_name(settings, "answers")),
        DynamoLedgerStore(clients.of(region), table_name(settings, "ledger")),
        DynamoRollupStore(clients.of(region), table_name(settings, "ledger")),
        fleet_in(region),
        fleet_in,
        clients.aclose,
        open_directory(clients.of, settings, region),
        DynamoCheckpoints(clients.of(region), table_name(settings, "ledger"), days=settings.audit.days),
    )


def locator_of(settings: Settings, environ: Mapping[str, str]) -> Locator:
    """The GeoIP database that a layer brings, or that of the settings. Raises SettingsError."""
    try:
        return open_locator(environ.get("ISOCHRONE_GEO_DATABASE") or settings.geo.database)
    except GeoError as error:
        raise SettingsError(f"geo.database: {error}") from None


def _desk(settings: Settings, life: Life, counters: Counters, chance: Callable[[], float]) -> Desk:
    answers = settings.answers
    library = Library(life.stores.answers, _memory_tier(settings), chance=chance, also=answers.also, count=counters.add)
    return Desk(
        library,
        TermsBook(settings),
        revisions=revisions_of(settings),
        sampled=answers.sampled,
        also=answers.also,
        curated=life.shelf,
        similar=_similar(settings, life, library, counters, chance),
        revocations=life.revocations,
    )


def _similar(
    settings: Settings, life: Life, library: Library, counters: Counters, chance: Callable[[], float]
) -> Similar | None:
    """What answers similar questions, loaded only where that is on for somebody."""
    if not semantic_somewhere(settings):
        return None
    from isochrone.answers.semantic.decision import Judge
    from isochrone.answers.semantic.embedder import find_embedder
    from isochrone.answers.semantic.embeddings import Embeddings
    from isochrone.answers.semantic.pending import Pending
    from isochrone.answers.semantic.standing import Standings
    from isochrone.answers.semantic.tier import EMULATOR_PATIENCE, PATIENCE, SemanticTier

    embedder = find_embedder()
    embedder.prepare()
    return SemanticTier(
        life.stores.answers,
        library,
        Embeddings(embedder, count=counters.add),
        Judge(settings.semantic.max_error),
        Standings(life.stores.fleet),
        settings=settings.semantic,
        chance=chance,
        pending=Pending(life.stores.fleet, window=window) if (window := settings.semantic.merge_window) else None,
        patience=EMULATOR_PATIENCE if settings.state.endpoint_url else PATIENCE,
        count=counters.add,
        checked=life.savings.checked,
    )


def standards_of(settings: Settings) -> list[Entry]:
    """The curated answers of the file that the settings name, if they do. Raises SettingsError."""
    return load_file(Path(settings.answers.curated), estimate=estimate) if settings.answers.curated else []


def _memory_tier(settings: Settings) -> MemoryTier:
    return MemoryTier(max_bytes=settings.answers.memory_bytes, ttl=settings.answers.memory_ttl)
