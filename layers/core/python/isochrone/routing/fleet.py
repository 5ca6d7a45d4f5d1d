"""The backends as this edge sees them now: what the configuration says of each, and what was measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from isochrone.routing.health import Health
from isochrone.routing.rtt import region_location, rtt_between_points, rtt_between_regions
from isochrone.settings import Backend

Point = tuple[float, float]

# Where nothing is known of the way to a backend (an API without region or location).
UNKNOWN_RTT_MS = 100.0
# A first token within this time counts as brisk: differences below it are noise of prompts, not of places.
BRISK_MS = 2000.0
_RECENT_PROBES = 8
_EWMA_WEIGHT = 0.3
_HALF_LIFE_SECONDS = 10.0


class BackendState:
    """One backend: its configuration in `facts`, its health, and its load. Milliseconds throughout.

    `trials` is how many of the requests `in_flight` began while it was on trial.
    """

    __slots__ = (
        "_first_token_at", "_first_token_ms", "_last_first_token_ms", "_recent_rtts", "engine_waiting",
        "expected_rtt_ms", "facts", "health", "in_flight", "place", "rtt_source", "trials",
    )  # fmt: skip

    def __init__(self, facts: Backend, *, edge_region: str, edge_place: Point | None = None) -> None:
        self.facts = facts
        self.place: Point | None = facts.location or region_location(facts.region or "")
        self.expected_rtt_ms, self.rtt_source = _expected_rtt(
            facts, self.place, edge_region, edge_place or region_location(edge_region)
        )
        self.health = Health()
        self.in_flight = 0
        self.trials = 0
        self.engine_waiting = 0
        self._first_token_ms: float | None = None
        self._first_token_at = 0.0
        self._last_first_token_ms = BRISK_MS
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
        return self.engine_waiting if self.engine_waiting and self.health.is_probe_fresh(now) else 0

    def load(self, now: float) -> float:
        """Requests at the backend as a share of what it takes at once; above 1 they wait."""
        return (self.in_flight + self.waiting(now)) / self.facts.max_concurrency

    def on_probe(self, now: float, *, reached: bool, reason: str = "", waiting: int = 0) -> None:
        """A probe came back (or did not), and saw so many requests in the engine's queue."""
        self.health.on_probe(now, reached=reached, reason=reason)
        self.engine_waiting = waiting

    def on_rtt(self, ms: float) -> None:
        """A probe measured the round trip."""
        self._recent_rtts.append(ms)

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
    """All backends of the configuration, by model."""

    def __init__(self, backends: Sequence[Backend], *, edge_region: str, edge_place: Point | None = None) -> None:
        self.states = tuple(BackendState(facts, edge_region=edge_region, edge_place=edge_place) for facts in backends)
        self._by_model: dict[str, list[BackendState]] = {}
        for state in self.states:
            for model in state.facts.models:
                self._by_model.setdefault(model, []).append(state)

    @property
    def models(self) -> list[str]:
        """Public model names, in the order of the configuration."""
        return list(self._by_model)

    def serving(self, model: str) -> Sequence[BackendState]:
        """The backends that serve a public model name; empty when none does."""
        return self._by_model.get(model, ())
