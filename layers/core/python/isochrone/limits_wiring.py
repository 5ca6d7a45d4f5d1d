"""Puts the limits of an edge together: what the configuration gives, and the tables where it is counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

import msgspec

from isochrone.admission.limits.forecast import Forecast, cheapest
from isochrone.admission.limits.limiter import Limiter, Limits
from isochrone.admission.limits.notices import Notices
from isochrone.admission.limits.scopes import Tables
from isochrone.admission.limits.table import Table
from isochrone.background import Background
from isochrone.routing.fleet import UNKNOWN_RTT_MS
from isochrone.routing.rtt import rtt_between_regions
from isochrone.routing.seats import Seats
from isochrone.routing.slots import Slots
from isochrone.settings import Price, Settings, SettingsError, main_region
from isochrone.stores.protocols import FleetStore

log = logging.getLogger("isochrone")

_NOTICE_SECONDS = 5.0


def build_limiter(
    settings: Settings,
    region: str,
    store: FleetStore | None,
    fleet_in: Callable[[str], FleetStore] | None,
    background: Background,
    *,
    holder: Callable[[], str],
    count: Callable[[str], None],
) -> Limiter:
    """Minutes and places are counted in the table of the own region, days and months in that of the main one, money
    and days being the same everywhere. Without a `store` this process counts alone. `holder` names it and no other.
    Raises SettingsError."""
    own = _table(settings, store or _in_memory(), background, holder)
    main = own
    if store and fleet_in and (home := main_region(settings)) != region:
        main = _table(settings, fleet_in(home), background, holder, rtt_ms=_rtt_ms(region, home))

    def seats_of(name: str, capacity: int) -> Seats:
        alone = max(1, ceil(capacity * settings.limits.local_share))
        slots = Slots(
            name,
            capacity,
            holder=holder(),
            store=store,
            clock=time.monotonic,
            wall=time.time,
            alone=alone if store else capacity,
            what="places of",
        )
        return Seats(slots)

    return Limiter(
        Limits(
            {tenant.name: tenant.limits for tenant in settings.tenant},
            {model.name: model.limits for model in settings.model},
            settings.limits.per_address,
        ),
        Tables(own, main),
        seats_of=seats_of,
        notices=Notices(count=count, post=_poster(settings.limits.notify_url)),
        clock=time.monotonic,
        count=count,
    )


def build_forecast(settings: Settings) -> Forecast:
    """By the prices of the backends that have each model."""
    prices: dict[str, list[Price]] = {}
    for backend in settings.backend:
        for model in backend.models:
            prices.setdefault(model, []).append(backend.price)
    return Forecast(cheapest(prices))


def _table(
    settings: Settings, store: FleetStore, background: Background, holder: Callable[[], str], *, rtt_ms: float = 0.0
) -> Table:
    share = settings.limits.local_share
    return Table(store, clock=time.time, background=background, holder=holder, local_share=share, rtt_ms=rtt_ms)


def _in_memory() -> FleetStore:
    from isochrone.stores.memory import MemoryFleetStore

    return MemoryFleetStore()


def _rtt_ms(region: str, home: str) -> float:
    rtt = rtt_between_regions(region, home)
    return rtt.ms if rtt else UNKNOWN_RTT_MS


def _poster(notify_url: str | None) -> Callable[[dict[str, Any]], Awaitable[None]] | None:
    if notify_url is None:
        return None
    from isochrone.outbound.client import GuardedClient, NotFetched
    from isochrone.outbound.urls import NotPublic, PublicUrl

    try:
        url = PublicUrl(notify_url, own=notify_url)
    except NotPublic as error:
        raise SettingsError(f"limits.notify_url: {error}") from None
    client = GuardedClient()

    async def post(notice: dict[str, Any]) -> None:
        headers = {"content-type": "application/json"}
        try:
            status = await client.post(url, msgspec.json.encode(notice), headers=headers, seconds=_NOTICE_SECONDS)
        except (NotFetched, NotPublic) as error:
            log.warning("limits.notify_url: a notice was not delivered: %s", error)
            return
        if status >= 300:
            log.warning("limits.notify_url: a notice was answered with %d", status)

    return post
