"""A plan in words: what `isochrone plan` prints. Nothing is sent and nothing is measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from isochrone.admission.address import parse_address
from isochrone.api.errors import Forbidden
from isochrone.routing.affinity import digest
from isochrone.routing.fleet import Fleet, Offer
from isochrone.routing.geo import Location, Locator
from isochrone.routing.plan import Planner, Step, reason
from isochrone.routing.residency import Regions, eligible
from isochrone.routing.rtt import region_location, rtt_between_points
from isochrone.settings import Model, Region, Settings

_COSTS = ("network", "detour", "slowness", "wait", "memory", "load", "doubt", "price")
_SHOWN_FROM_MS = 0.5


class Excluded(NamedTuple):
    """Who serves the model, or a fallback of it, and may not be asked."""

    offer: Offer
    why: str


class Explained(NamedTuple):
    """The plan of `region`'s edge for one client; `prompt` says whether the beginning of one was given."""

    region: str
    nearest_edge: str | None
    address: str
    client: Location | None
    model: Model
    regions: Regions
    prompt: bool
    steps: list[Step]
    excluded: list[Excluded]

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        place = self.client
        return {
            "edge": self.region,
            "nearest_edge": self.nearest_edge,
            "model": self.model.name,
            "client": {
                "address": self.address,
                "country": place and place.country,
                "city": place and place.city,
                "location": place and [place.latitude, place.longitude],
            },
            "regions": None if self.regions is None else sorted(self.regions),
            "hybrid": {"primary": self.model.primary, "standby_above_ms": self.model.standby_above_ms},
            "near_equals": self.near_equals,
            "plan": [_step_as_dict(position, step) for position, step in enumerate(self.steps, start=1)],
            "excluded": [_excluded_as_dict(each) for each in self.excluded],
        }

    @property
    def near_equals(self) -> list[str]:
        """Who could as well stand first."""
        near = takewhile(lambda step: step.choice in ("affinity", "less loaded", "near-equal"), self.steps)
        return [step.backend.facts.name for step in near]

    def as_text(self) -> str:
        """For people."""
        width = max(len(name) for name in self._names())
        steps = (self._step_as_text(position, step, width) for position, step in enumerate(self.steps, start=1))
        return "\n".join([self._heading(), *steps, *self._left_out(width), *self._rules()])

    def _names(self) -> list[str]:
        offers = [step.offer for step in self.steps] + [each.offer for each in self.excluded]
        return [offer.backend.facts.name for offer in offers]

    def _heading(self) -> str:
        place = self.client
        where = ", ".join(filter(None, (place.city, place.country))) if place else "unknown place"
        nearest = f" (nearest edge: {self.nearest_edge})" if self.nearest_edge not in (None, self.region) else ""
        asked = f"client {self.address} ({where or f'{place}'}), model {self.model.name}"
        return f"{asked}, edge {self.region}{nearest}"

    def _step_as_text(self, position: int, step: Step, width: int) -> str:
        name = f"{step.backend.facts.name:{width}}{self._as_model(step.offer)}"
        return f"{position}. {name}  {reason(step)}{_sum_of(step)}"

    def _as_model(self, offer: Offer) -> str:
        return "" if offer.model == self.model.name else f" as {offer.model}"

    def _left_out(self, width: int) -> Iterable[str]:
        for offer, why in self.excluded:
            yield f"-  {offer.backend.facts.name:{width}}{self._as_model(offer)}  not asked: {why}"

    def _rules(self) -> Iterable[str]:
        if self.near_equals:
            how = "the prompt's beginning decides" if self.prompt else "the less loaded of two drawn by lot goes first"
            yield f"near-equals: {', '.join(self.near_equals)}; {how}"
        for step in self.steps:
            facts = step.backend.facts
            if facts.share:
                yield f"canary: {facts.share * 100:g} % of the requests for {step.model} go to {facts.name} first"
        if (limit := self.model.standby_above_ms) is not None:
            primary, standby = ("pools", "APIs") if self.model.primary == "pool" else ("APIs", "pools")
            yield f"hybrid: {standby} before {primary} while the {primary}' p95 to a first token is above {limit:g} ms"


def _sum_of(step: Step) -> str:
    """`, cost 81 ms: 80 network, 1 price`, where it is more than the network."""
    parts = [f"{ms:.0f} {name}" for name, ms in _costs_of(step).items() if ms >= _SHOWN_FROM_MS or name == "network"]
    return f", cost {step.cost_ms:.0f} ms: {', '.join(parts)}" if len(parts) > 1 else ""


def _costs_of(step: Step) -> dict[str, float]:
    return {name: getattr(step, f"{name}_ms") for name in _COSTS}


def _step_as_dict(position: int, step: Step) -> dict[str, Any]:
    facts = step.backend.facts
    return {
        "position": position,
        "backend": facts.name,
        "kind": facts.kind,
        "region": facts.region,
        "model": step.model,
        "standing": step.standing.value,
        "takes_requests": step.is_fit,
        "full": step.is_full,
        "busy": step.is_busy,
        "role": step.role,
        "choice": step.choice or None,
        "weight": facts.weight,
        "share": facts.share,
        "cost_ms": round(step.cost_ms, 1),
        "costs_ms": {name: round(ms, 1) for name, ms in _costs_of(step).items()},
        "network_ms": round(step.network_ms, 1),
        "network_from": step.network_from,
        "edge_rtt_ms": round(step.backend.expected_rtt_ms, 1),
        "edge_rtt_from": step.backend.rtt_source,
        "reason": reason(step),
    }


def _excluded_as_dict(each: Excluded) -> dict[str, Any]:
    facts = each.offer.backend.facts
    return {"backend": facts.name, "region": facts.region, "model": each.offer.model, "why": each.why}


def explain(
    settings: Settings,
    *,
    region: str | None,
    client_ip: str,
    model: str,
    locator: Locator,
    regions: Sequence[str] = (),
    prompt: str | None = None,
) -> Explained:
    """Plan for one client, for a request that may be answered in `regions` only and begins with `prompt`.

    Raises ValueError for an argument that cannot be used.
    """
    client = _client(client_ip, locator)
    nearest = _nearest(settings.region, client)
    edge = _edge(settings.region, region, nearest)
    fleet = Fleet(settings.backend, edge_region=edge.name, edge_place=edge.location, models=settings.model)
    if not fleet.offers(model):
        raise ValueError(f"--model {model!r} is served by no backend; there are {', '.join(fleet.models)}")
    facts = next((known for known in settings.model if known.name == model), Model(name=model))
    planner = Planner(fleet, models=settings.model, routing=settings.routing, chance=_drawing_no_canary)
    try:
        allowed = eligible((), facts.regions, regions)
        affinity = digest({"messages": [{"role": "user", "content": prompt}]}) if prompt else None
        steps = planner.plan(model, client=client, now=time.monotonic(), regions=allowed, affinity=affinity)
    except Forbidden as error:
        raise ValueError(error.message) from None
    excluded = [each for name in (model, *facts.fallback) for each in _excluded(planner, fleet, name, allowed)]
    return Explained(edge.name, nearest, client_ip, client, facts, allowed, bool(prompt), steps, excluded)


def _drawing_no_canary() -> float:
    return 1.0 - 1e-9


def _client(address: str, locator: Locator) -> Location | None:
    if parse_address(address) is None:
        raise ValueError(f"--client-ip {address!r} is no IP address")
    return locator.locate(address)


def _edge(regions: Sequence[Region], asked: str | None, nearest: str | None) -> Region:
    by_name = {known.name: known for known in regions}
    if asked is not None and asked not in by_name:
        raise ValueError(f"--region {asked!r} is not in the configuration; it has {', '.join(by_name)}")
    return by_name[asked or nearest or regions[0].name]


def _excluded(planner: Planner, fleet: Fleet, model: str, regions: Regions) -> Iterable[Excluded]:
    asked = planner.eligible(model, regions)
    for offer in fleet.offers(model):
        if offer not in asked:
            place = offer.backend.facts.region
            yield Excluded(offer, f"{place} is no region for this request" if place else "it is in no region")


def _nearest(regions: tuple[Region, ...], client: Location | None) -> str | None:
    """The region whose edge is nearest to the client, or None when that cannot be said."""
    if client is None:
        return None
    here = (client.latitude, client.longitude)
    known = [(region.name, region.location or region_location(region.name)) for region in regions]
    placed = [(rtt_between_points(here, place), name) for name, place in known if place]
    return min(placed)[1] if placed else None
