"""What `GET /v1/status` says: the backends as this edge sees them and why, and the client as this edge sees it."""

from __future__ import annotations

from typing import Any

from isochrone.errand import Caller
from isochrone.pipeline import Rooms
from isochrone.routing.fleet import BackendState, Offer
from isochrone.routing.hybrid import Hybrid


def of(rooms: Rooms, caller: Caller, *, now: float, only_own: bool) -> dict[str, Any]:
    """Plain data, for JSON; `now` is on the clock of the fleet, in seconds. `only_own`: of answers, what the caller's
    own tenant had."""
    tenant = caller.principal.tenant if only_own else None
    return {
        "backends": [_backend(state, now) for state in rooms.fleet.states],
        "models": [_model(name, hybrid) for name, hybrid in rooms.planner.hybrids.items()],
        "ledger": {"waiting": len(rooms.book), "lost": rooms.book.lost, "unwritten": rooms.book.unwritten},
        "fleet": _sharing(rooms),
        "answers": {
            **rooms.savings.status(tenant),
            "similar": rooms.desk.similar(tenant),
            "revoked": rooms.desk.revoked(tenant),
            "curated": rooms.desk.standards(),
        },
        "audit": {"waiting": len(rooms.audit), "lost": rooms.audit.lost, "unwritten": rooms.audit.unwritten},
        "keys": rooms.front.identity.status(),
        "limits": rooms.front.limiter.news(),
        "policies": rooms.front.policies.status() if rooms.front.policies else None,
        "client": _client(caller),
    }


def _backend(state: BackendState, now: float) -> dict[str, Any]:
    """The backend as its best offer stands, and each of its offers."""
    facts, measured = state.facts, state.measured_rtt_ms
    offers = [_offer(offer, now) for offer in state.offers]
    best = next((offer for offer in offers if offer["healthy"]), offers[0])
    return {
        "name": facts.name,
        "kind": facts.kind,
        "region": facts.region,
        "location": state.place,
        "models": list(facts.models),
        **{name: best[name] for name in ("healthy", "standing", "why", "ejected_for_s", "first_token_ms")},
        "in_flight": state.in_flight,
        "max_concurrency": facts.max_concurrency,
        "waiting": state.waiting(now),
        "kv_use": state.kv_use(now),
        "rtt_ms": round(state.expected_rtt_ms if measured is None else measured, 3),
        "rtt_from": state.rtt_source if measured is None else "probe",
        "ejected": state.ejection.holds(now),
        "probe": _probe(state, now),
        "offers": offers,
    }


def _offer(offer: Offer, now: float) -> dict[str, Any]:
    return {
        "model": offer.model,
        "healthy": offer.takes_requests(now),
        "standing": offer.standing(now).value,
        "why": offer.why(now) or None,
        "circuit": offer.circuit.state(now).name.lower().replace("_", "-"),
        "failures_in_a_row": offer.circuit.failures_in_a_row,
        "ejected_for_s": round(offer.retry_in(now), 1),
        "first_token_ms": _rounded(offer.speed.first_token_ms(now)),
    }


def _probe(state: BackendState, now: float) -> dict[str, Any] | None:
    """What the last probe saw, by this edge or by another one of the region; None before the first."""
    seen = state.last_probe()
    if seen is None:
        return None
    return {
        "reached": seen.reached,
        "age_s": round(max(0.0, now - seen.at), 1),
        "connect_ms": _rounded(seen.way.connect_ms),
        "tls_ms": _rounded(seen.way.tls_ms),
        "first_byte_ms": _rounded(seen.first_byte_ms),
    }


def _model(name: str, hybrid: Hybrid) -> dict[str, Any]:
    """Which kind of backend goes first for it just now."""
    return {"name": name, "primary": hybrid.primary, "on_standby": hybrid.is_on_standby}


def _sharing(rooms: Rooms) -> dict[str, Any]:
    """Does this edge know what the others of its region see? And how many of its requests wait for a place."""
    exchange, places = rooms.exchange, rooms.means.places
    return {
        "shared": exchange is not None,
        "failures": exchange.failures if exchange else 0,
        "waiting": places.waiting if places else 0,
    }


def _client(caller: Caller) -> dict[str, Any]:
    place = caller.location
    return {
        "address": caller.address or None,
        "country": place and place.country,
        "city": place and place.city,
        "location": place and [place.latitude, place.longitude],
    }


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)
