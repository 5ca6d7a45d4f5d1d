"""The backends as this edge sees them now: what the configuration says of each, and what was measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf

from isochrone.routing.circuit import CLOSED, OPEN, Chance, Circuit, CircuitNote
from isochrone.routing.ejection import Ejection, EjectionNote, may_eject, panics
from isochrone.routing.health import EJECTED, HEALTHY, TRIAL, UNREACHABLE, Fault, ProbeVerdict, Standing
from isochrone.routing.probe import Probe
from isochrone.routing.rtt import region_location, rtt_between_points, rtt_between_regions
from isochrone.routing.silence import Silence
from isochrone.routing.speed import Speed
from isochrone.settings import Backend, Deadlines, Model

Point = tuple[float, float]

# Where nothing is known of the way to a backend (an API without region or location).
UNKNOWN_RTT_MS = 100.0
# What a backend takes at once where the configuration does not say.
USUAL_CONCURRENCY = 32
# How long others go before a backend that said it is full, where it said no more; and at most, whatever it said.
BUSY_SECONDS = 1.0
BUSY_CAP_SECONDS = 25.0
# How long what an engine told of its load counts: about as long as an answer; then others are there.
LOAD_SECONDS = 15.0
_RECENT_PROBES = 8


def no_jitter() -> float:
    """The chance that leaves times as they are, for whoever needs no variation."""
    return 0.5


class BackendState:
    """One backend: its configuration in `facts`, the way to it, its load, what probes see of it, and whether it is
    ejected. Milliseconds for durations, seconds for the clock."""

    __slots__ = (
        "_own_then", "_recent_rtts", "ejection", "expected_rtt_ms", "facts", "in_flight", "measured_rtt_ms", "offers",
        "place", "probe", "rtt_ms", "rtt_source", "spent_until",
    )  # fmt: skip

    def __init__(
        self, facts: Backend, *, edge_region: str, edge_place: Point | None = None, chance: Chance = no_jitter
    ) -> None:
        self.facts = facts
        self.place: Point | None = facts.location or region_location(facts.region or "")
        self.expected_rtt_ms, self.rtt_source = _expected_rtt(
            facts, self.place, edge_region, edge_place or region_location(edge_region)
        )
        self.offers: list[Offer] = []
        self.in_flight = 0
        self._own_then = 0
        self.probe = ProbeVerdict()
        self.ejection = Ejection(chance)
        self._recent_rtts: deque[float] = deque(maxlen=_RECENT_PROBES)
        self.measured_rtt_ms: float | None = None
        """The best round trip of the last probes: the way itself, without what queues on it added."""
        self.rtt_ms = self.expected_rtt_ms
        """The round trip edge -> backend to plan with."""
        self.spent_until = -inf
        """Until then it is not asked: it has had the requests of its day."""

    def waiting(self, now: float) -> int:
        """Requests in the engine's queue; 0 where no probe has seen it of late."""
        load = self.probe.last.load
        return load.waiting if load.waiting and self.probe.is_fresh(now) else 0

    def kv_use(self, now: float) -> float:
        """The share of the engine's cache for contexts that is in use; 0 where no probe has seen it of late."""
        load = self.probe.last.load
        return load.kv_use if load.kv_use and self.probe.is_fresh(now) else 0.0

    def load(self, now: float) -> float:
        """Requests at the backend as a share of what it takes at once; above 1 they wait."""
        return self.present(now) / (self.facts.max_concurrency or USUAL_CONCURRENCY)

    def tells_load(self, now: float) -> bool:
        """Has its engine told of late how many requests it has?"""
        return self.probe.last.load.running is not None and now - self.probe.last.at < LOAD_SECONDS

    def present(self, now: float) -> int:
        """Requests at the backend, as far as we know: those of all edges, by what its engine told the last probe and by
        how many more of our own there are since; else our own and those in its queue."""
        last = self.probe.last
        load = last.load
        if load.running is None or now - last.at >= LOAD_SECONDS:
            return self.in_flight + self.waiting(now)
        told = load.running + (load.waiting or 0)
        return max(self.in_flight, told + self.in_flight - self._own_then)

    def on_probe(self, seen: Probe) -> None:
        """A probe by this edge or another came back, or did not. What is not later than the last one is no news.

        It speaks of the host, hence of all models. One that gets through ends what was brought about by what did not:
        it tested just that.
        """
        if seen.at <= self.probe.last.at:
            return
        self.probe.last = seen
        self._own_then = self.in_flight
        if seen.rtt_ms is not None:
            self.on_rtt(seen.rtt_ms)
        if seen.reached:
            self.ejection.on_reached(seen.at)
            self._circuits_reached(seen.at)
        else:
            for offer in self.offers:
                offer.circuit.on_lost(seen.at, seen.reason)

    def last_probe(self) -> Probe | None:
        """What edges tell each other of the way to it."""
        return self.probe.last if self.probe.is_there else None

    def absorb_probe(self, seen: Probe, now: float) -> None:
        """Take over what another edge's probe saw; one that is yet to come is the word of a wrong clock."""
        if seen.at <= now:
            self.on_probe(seen)

    def absorb_ejection(self, note: EjectionNote, now: float) -> None:
        """Take over an ejection by another edge, under the same condition as our own, and unless a later probe has
        come through."""
        if self.may_be_ejected(now):
            self.ejection.absorb(note, now)
        if self.probe.last.reached:
            self.ejection.on_reached(self.probe.last.at)

    def on_rtt(self, ms: float) -> None:
        """A probe measured the round trip.

        It can be answered nearer than the engine stands (a CDN's front, a tunnel, a test on one machine), so where the
        place is known, a measurement only ever adds to what the way there takes.
        """
        self._recent_rtts.append(ms)
        self.measured_rtt_ms = min(self._recent_rtts)
        self.rtt_ms = max(self.measured_rtt_ms, self.expected_rtt_ms) if self.place else self.measured_rtt_ms

    def on_connected(self, *, begun: float) -> None:
        """An attempt that began at `begun` is being answered by one of its models: so the host can be reached."""
        self.ejection.on_connected(begun=begun)
        self._circuits_reached(begun)

    def _circuits_reached(self, at: float) -> None:
        for offer in self.offers:
            if offer.circuit.failed_to_reach:
                offer.circuit.on_reached(at)

    def on_unreachable(self, now: float, reason: str, *, begun: float) -> None:
        """No connection came about: that speaks of the host, hence of all its models."""
        for offer in self.offers:
            offer.circuit.on_failure(now, reason, begun=begun, unreachable=True)

    def eject_if_due(self, now: float, reason: str) -> None:
        """Leave it aside when it fails too often, unless too many of the choices of one of its models are so already.
        `reason` is that of the last failure."""
        if (why := self.ejection.due()) and self.may_be_ejected(now):
            self.ejection.eject(now, f"{why}: {reason}")

    def may_be_ejected(self, now: float) -> bool:
        """Would that leave at least half of the choices of each of its models?"""
        return all(
            may_eject(sum(peer.backend.ejection.holds(now) for peer in offer.peers), len(offer.peers))
            for offer in self.offers
        )


class Offer:
    """One model at one backend: `model` is its public name, `model_there` the backend's own; `peers` are all offers of
    that model, this one too. `gives_reasons`: it has ended an answer with a finish_reason, so it ends all with one."""

    __slots__ = (
        "backend", "busy_until", "circuit", "deadlines", "gives_reasons", "model", "model_there", "peers", "silence",
        "speed",
    )  # fmt: skip

    def __init__(
        self,
        backend: BackendState,
        model: str,
        deadlines: Deadlines,
        *,
        peers: Sequence[Offer] = (),
        chance: Chance = no_jitter,
    ) -> None:
        self.backend = backend
        self.model = model
        self.model_there = backend.facts.models[model]
        self.deadlines = deadlines
        self.peers = peers
        self.circuit = Circuit(chance)
        self.silence = Silence()
        self.speed = Speed()
        self.gives_reasons = False
        self.busy_until = -inf

    def standing(self, now: float, *, panic: bool = False) -> Standing:
        """Where it stands; in a `panic` (see `in_panic`) ejections do not count."""
        state = self.circuit.state(now)
        if state is OPEN:
            return UNREACHABLE if self.backend.probe.is_against(now) else EJECTED
        if not panic and self.backend.ejection.holds(now):
            return EJECTED
        return HEALTHY if state is CLOSED else TRIAL

    def takes_requests(self, now: float, *, panic: bool = False) -> bool:
        """Is it fit for one more request, be it as the trial of a half-open circuit?"""
        standing = self.standing(now, panic=panic)
        return standing is HEALTHY or (standing is TRIAL and self.circuit.lets_through(now))

    def retry_in(self, now: float) -> float:
        """Seconds until it takes requests again, as far as that is a matter of time."""
        return max(self.backend.ejection.retry_in(now), self.circuit.retry_in(now))

    def why(self, now: float) -> str:
        """What was wrong with it of late; empty when nothing was."""
        backend = self.backend
        if backend.spent_until > now:
            return f"has had its {backend.facts.requests_per_day} requests of the day"
        if self.standing(now) is UNREACHABLE:
            return backend.probe.last.reason
        return backend.ejection.reason if backend.ejection.holds(now) else self.circuit.reason

    def absorb_circuit(self, note: CircuitNote, now: float) -> None:
        """Take over what another edge saw of it, unless a later probe has come through."""
        self.circuit.absorb(note, now)
        last = self.backend.probe.last
        if last.reached and self.circuit.failed_to_reach:
            self.circuit.on_reached(last.at)

    @property
    def was_tried(self) -> bool:
        """Has it ever been probed or asked?"""
        return self.circuit.tried or self.backend.probe.is_there

    # -- what attempts tell; `begun` is when they began ----------------------------------------------------------------

    def on_first_token(self, now: float, *, begun: float) -> None:
        """A stream's first token is there."""
        self.speed.on_first_token((now - begun) * 1000, now=now)
        self.silence.break_by(begun)
        self.circuit.on_first_token(now, begun=begun)
        self.backend.on_connected(begun=begun)

    def on_success(self, now: float, *, begun: float) -> None:
        """The answer is complete. Only this clears a backend: one that dies in mid-stream says a first token, too."""
        self.speed.on_answer((now - begun) * 1000, now=now)
        self.silence.break_by(begun)
        self.circuit.on_success(begun=begun)
        self.backend.on_connected(begun=begun)
        self.backend.ejection.on_success(now, begun=begun)

    def on_reply(self, *, begun: float) -> None:
        """It replied what is neither its fault nor its merit: that it is full, or that the request is wrong."""
        self.silence.break_by(begun)
        self.backend.ejection.on_connected(begun=begun)

    def on_busy(self, now: float, wait: float | None) -> None:
        """It said that it is full, and how many seconds to wait, if it did: until then others go first, so that no
        request spends an attempt on hearing it again."""
        self.busy_until = max(self.busy_until, now + min(BUSY_SECONDS if wait is None else wait, BUSY_CAP_SECONDS))

    def on_failure(self, now: float, reason: str, *, begun: float, fault: Fault) -> None:
        """It failed by the backend's own fault. What an open circuit already says of one model is not held against the
        whole backend again."""
        was_closed = self.circuit.state(now) is CLOSED
        if fault is Fault.UNREACHABLE:
            self.backend.on_unreachable(now, reason, begun=begun)
        else:
            self.circuit.on_failure(now, reason, begun=begun)
        if was_closed:
            self.backend.ejection.on_failure(now, begun=begun, fault=fault)
            self.backend.eject_if_due(now, reason)

    def on_left(self, now: float, *, begun: float, patience: float) -> str | None:
        """The caller left, or its time ended, before anything was heard; `patience` is how many seconds an attempt
        would have waited. Returns what is held against the backend for it, if anything is."""
        waited = now - begun
        silent = self.silence.add(begun, now)
        if waited >= patience:
            reason = f"had said nothing for {waited:.0f} s when its caller left"
        elif silent >= patience:
            reason = f"had said nothing for {silent:.0f} s to callers who left"
        else:
            return None
        self.on_failure(now, reason, begun=begun, fault=Fault.ANSWER)
        return reason


def in_panic(offers: Sequence[Offer], now: float) -> bool:
    """Do so many of a model's choices refuse requests that ejections must not count?"""
    if not any(offer.backend.ejection.holds(now) for offer in offers):
        return False
    return panics(sum(not offer.takes_requests(now) for offer in offers), len(offers))


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
        chance: Chance = no_jitter,
    ) -> None:
        """`chance` is for jitter: gives numbers in [0, 1)."""
        self.states = tuple(
            BackendState(facts, edge_region=edge_region, edge_place=edge_place, chance=chance) for facts in backends
        )
        self._by_model: dict[str, list[Offer]] = {}
        known = {model.name: model for model in models}
        for state in self.states:
            for name in state.facts.models:
                own = [state.facts.deadlines, known[name].deadlines] if name in known else [state.facts.deadlines]
                peers = self._by_model.setdefault(name, [])
                offer = Offer(state, name, (deadlines or Deadlines()).but(*own), peers=peers, chance=chance)
                state.offers.append(offer)
                peers.append(offer)

    @property
    def models(self) -> list[str]:
        """Public model names, in the order of the configuration."""
        return list(self._by_model)

    def offers(self, model: str) -> Sequence[Offer]:
        """Who serves a public model name; empty when nobody does."""
        return self._by_model.get(model, ())
