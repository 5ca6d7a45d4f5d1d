"""What the `prober` function of a region does: one round of probes, told to the edges through the fleet table.

Edges on Lambda do not probe: they have no time of their own between requests. Resident edges of the same table do, and
more often; while one of them has the duty, a round here does nothing.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping

from isochrone.routing.exchange import Exchange
from isochrone.routing.fleet import Fleet
from isochrone.routing.leases import Leases
from isochrone.routing.prober import open_session, probe_in_turn
from isochrone.settings import Settings, SettingsError, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.fleet import DynamoFleetStore

# A round takes up to 4 s; one that dies in the middle of it holds up the next one for no longer than this.
_DUTY_SECONDS = 15.0


class RegionProber:
    """Call it inside one event loop."""

    def __init__(self, fleet: Fleet, leases: Leases, exchange: Exchange) -> None:
        self._fleet = fleet
        self._leases = leases
        self._exchange = exchange

    async def look(self) -> dict[str, str]:
        """One round: how each backend was found, by name; empty when another process has the duty."""
        try:
            async with open_session() as session:
                if not await probe_in_turn(self._fleet, session, self._leases, seconds=_DUTY_SECONDS):
                    return {}
            await self._exchange.refresh(max_age=0)
            await self._exchange.publish()
        finally:
            await self._leases.let_go()
        return {state.facts.name: state.probe.last.reason or "reached" for state in self._fleet.states}


def build_prober(settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ) -> RegionProber:
    """The prober of `region`; call it inside its event loop. Raises SettingsError."""
    here = next((known for known in settings.region if known.name == region), None)
    if here is None:
        names = ", ".join(known.name for known in settings.region)
        raise SettingsError(f"region {region!r} is not in the configuration; it has {names}")
    if settings.state.kind == "memory":
        raise SettingsError('state.kind = "memory": a prober needs a table to tell edges what it sees')
    chance = random.SystemRandom().random
    fleet = Fleet(settings.backend, edge_region=region, edge_place=here.location, models=settings.model, chance=chance)
    client = connect(region, endpoint_url=settings.state.endpoint_url, environ=environ)
    store = DynamoFleetStore(client, table_name(settings, "fleet"))
    return RegionProber(
        fleet,
        Leases(store, f"prober-{os.urandom(8).hex()}", time.time),
        Exchange(fleet, store, clock=time.time, monotonic=time.monotonic, chance=chance),
    )
