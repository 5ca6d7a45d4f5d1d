"""A plan in words: what `isochrone plan` prints. Nothing is sent and nothing is measured."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from isochrone.admission.address import parse_address
from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import Location, Locator
from isochrone.routing.plan import Step, plan, reason
from isochrone.routing.rtt import region_location, rtt_between_points
from isochrone.settings import Region, Settings


class Explained(NamedTuple):
    """The plan of `region`'s edge for one client."""

    region: str
    nearest_edge: str | None
    address: str
    client: Location | None
    model: str
    steps: list[Step]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        place = self.client
        return {
            "edge": self.region,
            "nearest_edge": self.nearest_edge,
            "model": self.model,
            "client": {
                "address": self.address,
                "country": place and place.country,
                "city": place and place.city,
                "location": place and [place.latitude, place.longitude],
            },
            "plan": [_step_as_dict(position, step) for position, step in enumerate(self.steps, start=1)],
        }

    def as_text(self) -> str:
        """For people."""
        place = self.client
        where = ", ".join(filter(None, (place.city, place.country))) if place else "unknown place"
        lines = [
            f"client {self.address} ({where or f'{place}'}), model {self.model}, edge {self.region}"
            + (f" (nearest edge: {self.nearest_edge})" if self.nearest_edge not in (None, self.region) else "")
        ]
        width = max(len(step.backend.facts.name) for step in self.steps)
        for position, step in enumerate(self.steps, start=1):
            as_model = "" if step.model == self.model else f" as {step.model}"
            lines.append(f"{position}. {step.backend.facts.name:{width}}{as_model}  {reason(step)}")
        return "\n".join(lines)


def _step_as_dict(position: int, step: Step) -> dict[str, Any]:
    return {
        "position": position,
        "backend": step.backend.facts.name,
        "kind": step.backend.facts.kind,
        "region": step.backend.facts.region,
        "model": step.model,
        "standing": step.standing.value,
        "cost_ms": round(step.cost_ms, 1),
        "network_ms": round(step.network_ms, 1),
        "network_from": step.network_from,
        "edge_rtt_ms": round(step.backend.expected_rtt_ms, 1),
        "edge_rtt_from": step.backend.rtt_source,
        "reason": reason(step),
    }


def explain(
    settings: Settings,
    *,
    region: str | None,
    client_ip: str,
    model: str,
    locator: Locator,
) -> Explained:
    """Plan for one client. Raises ValueError for an argument that cannot be used."""
    if parse_address(client_ip) is None:
        raise ValueError(f"--client-ip {client_ip!r} is no IP address")
    client = locator.locate(client_ip)
    names = [known.name for known in settings.region]
    if region is not None and region not in names:
        raise ValueError(f"--region {region!r} is not in the configuration; it has {', '.join(names)}")
    nearest = _nearest(settings.region, client)
    edge_region = region or nearest or names[0]
    stated = next(known.location for known in settings.region if known.name == edge_region)
    fleet = Fleet(settings.backend, edge_region=edge_region, edge_place=stated)
    if not fleet.offers(model):
        raise ValueError(f"--model {model!r} is served by no backend; there are {', '.join(fleet.models)}")
    fallback = next((known.fallback for known in settings.model if known.name == model), ())
    steps = plan(model, fallback, fleet, client=client, near=settings.routing.near, now=time.monotonic())
    return Explained(edge_region, nearest, client_ip, client, model, steps)


def _nearest(regions: tuple[Region, ...], client: Location | None) -> str | None:
    """The region whose edge is nearest to the client, or None when that cannot be said."""
    if client is None:
        return None
    here = (client.latitude, client.longitude)
    known = [(region.name, region.location or region_location(region.name)) for region in regions]
    placed = [(rtt_between_points(here, place), name) for name, place in known if place]
    return min(placed)[1] if placed else None
