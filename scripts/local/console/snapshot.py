"""All edges and backends in one picture: what the page shows, merged from what each edge says for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isochrone.routing.rtt import region_location
from local.console.projection import place
from local.console.reports import Point, Seen, Status
from local.console.tally import Rate, Tally

_FROM_GOOD_TO_BAD = ("healthy", "trial", "ejected", "unreachable")


@dataclass
class EdgeView:
    """One edge as the console sees it. `failure` is empty while it answers; `status` is what it said last."""

    name: str
    url: str
    failure: str = "unasked"
    status: Status | None = None
    rate: Rate = field(default_factory=Rate)

    @property
    def sees(self) -> dict[str, Seen]:
        """Its backends by name; nothing while it is silent, because old news of health are no news."""
        return {} if self.failure or self.status is None else {seen.name: seen for seen in self.status.backends}


def merge(edges: Sequence[EdgeView], direct: Mapping[str, str], tally: Tally, *, now: float) -> dict[str, Any]:
    """The picture at `now` (epoch seconds). `direct` has how each pool that was asked directly fails, or ""."""
    known = _known_backends(edges)
    return {
        "at": now,
        "edges": [_edge(edge) for edge in edges],
        "backends": [_backend(facts, edges, direct.get(name)) for name, facts in known.items()],
        "models": sorted({model for facts in known.values() for model in facts.models}),
        "totals": tally.totals(),
        "attempts": tally.newest(),
    }


def _known_backends(edges: Iterable[EdgeView]) -> dict[str, Seen]:
    """Every backend that any edge ever spoke of."""
    return {seen.name: seen for edge in edges if edge.status for seen in edge.status.backends}


def _edge(edge: EdgeView) -> dict[str, Any]:
    status = None if edge.failure else edge.status
    return {
        "name": edge.name,
        "url": edge.url,
        "state": _state(edge),
        "failure": edge.failure or None,
        "version": status and status.version,
        "place": _place(region_location(edge.name)),
        "per_second": round(edge.rate.per_second(), 2) if status else None,
        "answered": status.family("answered") if status else {},
        "cache": status.family("cache") if status else {},
        "sees": {name: _view(seen) for name, seen in edge.sees.items()},
    }


def _state(edge: EdgeView) -> str:
    if edge.failure or edge.status is None:
        return "unreachable"
    return "healthy" if edge.status.ready else "draining"


def _view(seen: Seen) -> dict[str, Any]:
    return {
        "standing": seen.standing,
        "why": seen.why,
        "in_flight": seen.in_flight,
        "rtt_ms": seen.rtt_ms,
        "rtt_from": seen.rtt_from,
        "first_token_ms": seen.first_token_ms,
    }


def _backend(facts: Seen, edges: Iterable[EdgeView], failure: str | None) -> dict[str, Any]:
    seen = {edge.name: edge.sees[facts.name] for edge in edges if facts.name in edge.sees}
    standing = "unreachable" if failure else worst(one.standing for one in seen.values())
    troubled = [name for name, one in seen.items() if one.standing == standing != "healthy"]
    return {
        "name": facts.name,
        "kind": facts.kind,
        "region": facts.region,
        "models": facts.models,
        "place": _place(facts.location),
        "standing": standing,
        "seen_by": troubled,
        "failure": failure or None,
        "answers": failure == "",
        "in_flight": sum(one.in_flight for one in seen.values()),
        # The engine's own queue is the same for every edge.
        "waiting": max((one.waiting for one in seen.values()), default=0),
    }


def worst(standings: Iterable[str]) -> str:
    """The worst of several edges' views; "unknown" where no edge has one."""
    return max(standings, key=_FROM_GOOD_TO_BAD.index, default="unknown")


def _place(point: Point | None) -> tuple[float, float] | None:
    return place(*point) if point else None
