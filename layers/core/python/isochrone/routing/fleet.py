"""The backends as this edge sees them now: what the configuration says of each, and what was measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from isochrone.routing.health import TAKES_REQUESTS, Health
from isochrone.routing.rtt import region_location, rtt_between_points, rtt_between_regions
from isochrone.settings import Backend, Deadlines, Model

Point = tuple[float, float]

# Where nothing is known of the way to a backend (an API without region or location).
UNKNOWN_RTT_MS = 100.0
# A first token within this time counts as brisk: differences below it are noise of prompts, not of places.
BRISK_MS = 2000.0
# What a backend takes at once where the configuration does not say.
USUAL_CONCURRENCY = 32
_RECENT_PROBES = 8
_EWMA_WEIGHT = 0.3
_HALF_LIFE_SECONDS = 10.0


class BackendState:
    """One backend: its configuration in `facts`, the way to it, and its load. Milliseconds throughout."""

    __slots__ = (
        "_recent_rtts", "engine_waiting", "expected_rtt_ms", "facts", "in_flight", "offers", "place", "rtt_source",
    )  # fmt: skip

    def __init__(self, facts: Backend, *, edge_region: str, edge_place: Point | None = None) -> None:
        self.facts = facts
        self.place: Point | None = facts.location or region_location(facts.region or "")
        self.expected_rtt_ms, self.rtt_source = _expected_rtt(
            facts, self.place, edge_region, edge_place or region_location(edge_region)
        )
        self.offers: list[Offer] = []
        self.in_flight = 0
        self.engine_waiting = 0
        self._recent_rtts: deque[float] = deque(maxlen=_RECENT_PROBES)

    @property
    def measured_rtt_ms(self) -> float | None:
        """The best round trip of the last probes: the way itself, without what queues on it added."""
        return min(self._recent_rtts) if self._recent_rtts else None

    @property
    def rtt_ms(self) -> float:
        """The round trip edge -> backend to plan with.

        A probe can be answered nearer than the engine stands (a CDN's front, a tunnel, a test on one machine), so
        where the place is known, a measurement only ever adds to what the way there takes.
        """
        measured = self.measured_rtt_ms
        if measured is None:
            return self.expected_rtt_ms
        return max(measured, self.expected_rtt_ms) if self.place else measured

    def waiting(self, now: float) -> int:
        """Requests in the engine's queue; 0 where no probe has seen it of late."""
        return self.engine_waiting if self.engine_waiting and self.offers[0].health.is_probe_fresh(now) else 0

    def load(self, now: float) -> float:
        """Requests at the backend as a share of what it takes at once; above 1 they wait."""
        return (self.in_flight + self.waiting(now)) / (self.facts.max_concurrency or USUAL_CONCURRENCY)

    def on_probe(self, now: float, *, reached: bool, reason: str = "", waiting: int = 0) -> None:
        """A probe came back (or did not), and saw so many requests in the engine's queue."""
        for offer in self.offers:
            offer.health.on_probe(now, reached=reached, reason=reason)
        self.engine_waiting = waiting

    def on_rtt(self, ms: float) -> None:
        """A probe measured the round trip."""
        self._recent_rtts.append(ms)


class Offer:
    """One model at one backend: `model` is its public name, `model_there` the backend's own.

    `trials` is how many of the requests in flight began while it was on trial.
    """

    __slots__ = (
        "_first_token_at", "_first_token_ms", "_last_first_token_ms", "backend", "deadlines", "health", "model",
        "model_there", "trials",
    )  # fmt: skip

    def __init__(self, backend: BackendState, model: str, deadlines: Deadlines) -> None:
        self.backend = backend
        self.model = model
        self.model_there = backend.facts.models[model]
        self.deadlines = deadlines
        self.health = Health()
        self.trials = 0
        self._first_token_ms: float | None = None
        self._first_token_at = 0.0
        self._last_first_token_ms = BRISK_MS

    def takes_requests(self, now: float) -> bool:
        """Is it fit for requests, be it for one at a time?"""
        return self.health.standing(now) in TAKES_REQUESTS

    def on_first_token(self, ms: float, *, now: float) -> None:
        """An attempt's first token came after `ms`; what is slower than known counts at once, what is faster smoothed.

        One very long prompt must not exile a backend: a first token counts only as far as the one before was slow, too.
        """
        self.health.on_first_token(begun=now - ms / 1000)
        ms, self._last_first_token_ms = min(ms, self._last_first_token_ms), ms
        known = self.first_token_ms(now)
        self._first_token_at = now
        self._first_token_ms = ms if known is None or ms > known else known + _EWMA_WEIGHT * (ms - known)

    def first_token_ms(self, now: float) -> float | None:
        """The recent time to first token; it fades, so that a backend left alone for it gets its turn again."""
        if self._first_token_ms is None:
            return None
        return float(self._first_token_ms * 0.5 ** ((now - self._first_token_at) / _HALF_LIFE_SECONDS))


def _expected_rtt(facts: Backend, place: Point | None, edge_region: str, edge: Point | None) -> tuple[float, str]:
    """(ms, where it comes from): the measured matrix, the estimate by distance, or the constant for the unknown."""
    if facts.location is None and facts.region and (known := rtt_between_regions(edge_region, facts.region)):
        return known.ms, "matrix" if known.source == "measured" else "estimate"
    if place is None or edge is None:
        return UNKNOWN_RTT_MS, "unknown"
    return rtt_between_points(edge, place), "estimate"


class Fleet:
    """All backends of the configuration, and what they offer by model."""

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        edge_region: str,
        edge_place: Point | None = None,
        models: Sequence[Model] = (),
        deadlines: Deadlines | None = None,
    ) -> None:
        self.states = tuple(BackendState(facts, edge_region=edge_region, edge_place=edge_place) for facts in backends)
        self._by_model: dict[str, list[Offer]] = {}
        known = {model.name: model for model in models}
        for state in self.states:
            for name in state.facts.models:
                own = [state.facts.deadlines, known[name].deadlines] if name in known else [state.facts.deadlines]
                offer = Offer(state, name, (deadlines or Deadlines()).but(*own))
                state.offers.append(offer)
                self._by_model.setdefault(name, []).append(offer)

    @property
    def models(self) -> list[str]:
        """Public model names, in the order of the configuration."""
        return list(self._by_model)

    def offers(self, model: str) -> Sequence[Offer]:
        """Who serves a public model name; empty when nobody does."""
        return self._by_model.get(model, ())
