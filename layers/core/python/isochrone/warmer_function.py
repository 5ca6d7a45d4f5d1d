"""What the `warmer` function of a region and `isochrone warm` build: a warmer on an edge that nobody can reach."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from isochrone.edge import Edge
from isochrone.life import Stores as EdgeStores
from isochrone.routing.leases import Leases
from isochrone.settings import Settings, SettingsError
from isochrone.warming.plan import Plan
from isochrone.warming.warmer import Run, Stores, Warmer
from isochrone.wiring import build_edge, open_stores


class RegionWarmer:
    """Call it inside the event loop that it was built in, between `start` and `close`."""

    def __init__(self, warmer: Warmer, edge: Edge, stores: EdgeStores) -> None:
        self._warmer = warmer
        self._edge = edge
        self._stores = stores

    async def start(self) -> None:
        """Fetch what generating needs (secrets)."""
        await self._edge.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._edge.close()
        if self._stores.close:
            await self._stores.close()

    async def plan(self) -> tuple[Plan, float]:
        """What is planned, and the dollars that are spent today. Raises StoreUnavailable."""
        return await self._warmer.plan(), await self._warmer.spent_today()

    async def run(self, *, seconds: float) -> Run:
        """Make what is due now, within so many seconds. Raises StoreUnavailable."""
        return await self._warmer.apply(ends_at=time.monotonic() + seconds)


def build_warmer(settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ) -> RegionWarmer:
    """The warmer of `region`; call it inside its event loop. Raises SettingsError."""
    if settings.state.kind == "memory":
        raise SettingsError('state.kind = "memory": only the edge that holds the answers knows them')
    if not settings.answers.warm:
        raise SettingsError("answers.warm = false: requests are not kept, so no answer can be asked for again")
    edge = build_edge(settings, region=region, environ=environ)
    stores = open_stores(settings, region, environ)
    assert stores.fleet
    warmer = Warmer(
        settings,
        edge.pipeline,
        Stores(stores.answers, stores.ledger, stores.rollups, stores.fleet),
        Leases(stores.fleet, f"warmer-{os.urandom(8).hex()}", time.time),
        flush=edge.flush,
        new_id=lambda: os.urandom(8).hex(),
    )
    return RegionWarmer(warmer, edge, stores)
