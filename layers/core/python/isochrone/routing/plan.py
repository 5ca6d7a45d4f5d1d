"""The ordered list of backends for one request, each with the reason for its place. Pure: a plan sends nothing.

Backends of the model itself come before those of its fallbacks, pools before official APIs, and what is ejected or
unreachable goes last, not away. Within these, the least expected cost goes first, in milliseconds:

    network   round trip client -> backend (near = "client") or edge -> backend (near = "edge", or client unknown)
  + detour    how much slower the measured way edge -> backend is than the expected one (near = "client")
  + slowness  how far the smoothed first token lies above what people notice
  + load      a little for each share of the backend in use, much for a queue
  + doubt     for failures since the last success

docs/decisions/0005-nearest-to-the-client.md says why distance is taken from the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from isochrone.routing.fleet import BRISK_MS, BackendState, Fleet, Offer, Point
from isochrone.routing.geo import Location
from isochrone.routing.health import Standing
from isochrone.routing.rtt import rtt_between_points

# Probes wander by some milliseconds; less than this is no detour.
DETOUR_TOLERANCE_MS = 20.0
FULL_LOAD_MS = 20.0
QUEUE_MS = 1000.0
DOUBT_MS = 250.0

Near = Literal["client", "edge"]


class Step(NamedTuple):
    """One place in a plan; costs are milliseconds. `load` is the share of the backend in use; above 1 requests wait."""

    offer: Offer
    standing: Standing
    network_ms: float
    network_from: Literal["client", "edge"]
    detour_ms: float
    slowness_ms: float
    load: float
    load_ms: float
    doubt_ms: float

    @property
    def backend(self) -> BackendState:
        """Who is to be asked."""
        return self.offer.backend

    @property
    def model(self) -> str:
        """For which model, by its public name."""
        return self.offer.model

    @property
    def cost_ms(self) -> float:
        """What the order is decided by within a group."""
        return self.network_ms + self.detour_ms + self.slowness_ms + self.load_ms + self.doubt_ms


def plan(
    model: str, fallback: Sequence[str], fleet: Fleet, *, client: Location | None, near: Near, now: float
) -> list[Step]:
    """The backends that serve `model` or one of `fallback`, best first; empty when none does."""
    ranked = []
    origin = (client.latitude, client.longitude) if client and near == "client" else None
    for rank, name in enumerate((model, *fallback)):
        for offer in fleet.offers(name):
            step = _step(offer, origin, now)
            facts = offer.backend.facts
            order = (not takes_requests(step), rank, facts.kind == "api", step.cost_ms, facts.name)
            ranked.append((order, step))
    ranked.sort(key=lambda pair: pair[0])
    return [step for _, step in ranked]


def _step(offer: Offer, origin: Point | None, now: float) -> Step:
    state = offer.backend
    if origin and state.place:
        network = _client_rtt(origin, state.place)
        excess = state.rtt_ms - state.expected_rtt_ms
        detour = excess if excess > DETOUR_TOLERANCE_MS else 0.0
    else:
        network, detour = state.rtt_ms, 0.0
    load = state.load(now)
    return Step(
        offer=offer,
        standing=offer.health.standing(now),
        network_ms=network,
        network_from="client" if origin and state.place else "edge",
        detour_ms=detour,
        slowness_ms=max(0.0, (offer.first_token_ms(now) or 0.0) - BRISK_MS),
        load=load,
        load_ms=_load_ms(load),
        doubt_ms=DOUBT_MS * offer.health.doubts(now),
    )


def takes_requests(step: Step) -> bool:
    """A backend on trial gets one request at a time, so that a sick one can hurt only that."""
    return step.standing is Standing.HEALTHY or (step.standing is Standing.TRIAL and not step.offer.trials)


def _load_ms(load: float) -> float:
    return FULL_LOAD_MS * load if load < 1 else FULL_LOAD_MS + QUEUE_MS * load


_client_rtt = lru_cache(maxsize=8192)(rtt_between_points)


def _distance(step: Step) -> str:
    if step.network_from == "edge" and step.backend.rtt_source == "unknown" and step.backend.measured_rtt_ms is None:
        return "distance unknown"
    return f"{step.network_ms:.0f} ms from the {step.network_from}"


def reason(step: Step) -> str:
    """Why this backend stands where it stands, in one short ASCII line (it also travels as a header)."""
    parts = [_distance(step)]
    if step.standing is not Standing.HEALTHY:
        parts.insert(0, step.standing.value)
    if step.detour_ms:
        parts.append(f"way from the edge {step.detour_ms:.0f} ms slower than expected")
    if step.slowness_ms:
        parts.append(f"first token {step.slowness_ms:.0f} ms slower than brisk")
    if step.load_ms >= 1:
        parts.append(f"load {step.load:.0%}")
    if step.doubt_ms:
        parts.append("failed just now")
    if step.backend.facts.kind == "api":
        parts.append("official API, the last resort")
    return ", ".join(parts)
