"""The ordered list of offers for one request, each with the reason for its place. Pure: a plan sends nothing.

Where the request may be answered at all comes first (`residency`); the plan is an order of what is left, and drops
nothing more. From the strongest rule to the weakest:

 1. what takes requests, before what is ejected, before what probes do not reach
 2. what has not just answered that it is full (429): hearing it again costs an attempt
 3. the model itself, before its fallbacks in their order
 4. what has room, before what is full
 5. a canary whose turn it is; then the primary kind of backend before the one that stands by (`hybrid`); in each kind,
    a canary whose turn it is not goes last
 6. the near-equals, in an order of their own; then the rest by the least expected cost

The cost is the expected time to the first token, in milliseconds:

    network   round trip client -> backend (near = "client") or edge -> backend (near = "edge", or client unknown)
  + detour    how much slower the measured way edge -> backend is than the expected one (near = "client")
  + slowness  how far the smoothed first token lies above what people notice
  + wait      until a place is free: requests in the way x the usual time of an answer / places
  + memory    for a KV cache that is nearly full: the engine is about to put requests off
  + load      a little for each share of the backend in use
  + doubt     for failures since the last success
  + price     `routing.price_ms` for each dollar per million tokens, in and out

Near-equals cost, when nobody uses them, less than `routing.near_equal_ms` more than the best, are no dearer, and make
nobody wait longer than that. Among them goes first who has probably read the beginning of the prompt (`affinity`),
unless it is clearly more loaded than the others, else the less loaded of two drawn by lot (Mitzenmacher 2001): the
least loaded of all would draw every edge at once.

docs/decisions/0005-nearest-to-the-client.md says why distance is taken from the client, and
docs/decisions/0010-who-goes-first.md why the order is this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal

from msgspec import Struct

from isochrone.routing.affinity import score
from isochrone.routing.circuit import Chance
from isochrone.routing.daily import all_spent
from isochrone.routing.fleet import USUAL_CONCURRENCY, BackendState, Fleet, Offer, Point, in_panic
from isochrone.routing.geo import Location
from isochrone.routing.health import HEALTHY, TRIAL, UNREACHABLE, Standing
from isochrone.routing.hybrid import Hybrid, Kind
from isochrone.routing.residency import Regions, is_inside, narrowed, not_allowed
from isochrone.routing.rtt import rtt_between_points
from isochrone.settings import Model, Routing

# Probes wander by some milliseconds; less than this is no detour.
DETOUR_TOLERANCE_MS = 20.0
FULL_LOAD_MS = 20.0
DOUBT_MS = 250.0
# How long an answer holds its place where nobody has measured it.
USUAL_ANSWER_MS = 8000.0
# From here on a KV cache counts as load; what is put off then waits about as long as for a place.
KV_CACHE_FREE = 0.9
KV_CACHE_FULL_MS = 1000.0
# An affine backend is left when it is loaded above this, or above so many times what its equals are, and one request.
AFFINITY_MAX_LOAD = 0.9
AFFINITY_SPREAD = 1.25

Near = Literal["client", "edge"]
Role = Literal["primary", "standby", "stand-in", "slow primary"]
Choice = Literal["", "affinity", "less loaded", "near-equal", "canary", "idle canary"]


class Step(Struct, eq=False, gc=False):
    """One place in a plan; costs are milliseconds, and `cost_ms` is the sum of all of them: `idle_ms` of what does not
    depend on who uses the backend now, and wait, memory and load.

    `load` is the share of the backend in use; above 1 requests wait. `is_full` says that it has no place left at all,
    `is_busy` that it has just said so itself.
    `choice` is what decided among near-equals, or that a canary has its turn or has not.
    """

    offer: Offer
    standing: Standing
    is_fit: bool
    role: Role
    network_from: Near
    network_ms: float
    detour_ms: float
    slowness_ms: float
    doubt_ms: float
    price_ms: float
    wait_ms: float
    memory_ms: float
    load_ms: float
    idle_ms: float
    cost_ms: float
    load: float
    is_full: bool
    is_busy: bool
    choice: Choice = ""

    @property
    def backend(self) -> BackendState:
        """Who is to be asked."""
        return self.offer.backend

    @property
    def model(self) -> str:
        """For which model, by its public name."""
        return self.offer.model

    @property
    def weight(self) -> float:
        """What it takes beside its equals."""
        return self.offer.backend.facts.weight


class Planner:
    """Plans for one edge: what the configuration rules, and which kind of backend stands in for which just now."""

    def __init__(self, fleet: Fleet, *, models: Sequence[Model] = (), routing: Routing, chance: Chance) -> None:
        self._fleet = fleet
        self._routing = routing
        self._chance = chance
        self._models = {model.name: model for model in models}
        self._has_canaries = any(state.facts.share for state in fleet.states)
        self._has_caps = any(state.facts.requests_per_day for state in fleet.states)
        self.hybrids = {name: _hybrid(self._models.get(name)) for name in fleet.models}

    def plan(
        self, model: str, *, client: Location | None, now: float, regions: Regions = None, affinity: int | None = None
    ) -> list[Step]:
        """Who is asked for `model`, best first; empty when nobody serves it.

        `regions` may see the request (None: all), `affinity` is the digest of its beginning. Raises Forbidden when
        somebody serves the model, but nobody where the request may be answered; Saturated when all who may answer it
        have had their requests of the day.
        """
        origin = (client.latitude, client.longitude) if client and self._routing.near == "client" else None
        if model in self._models:
            regions = narrowed(regions, self._models[model].regions)
        groups: dict[tuple[int, ...], list[Step]] = {}
        for rank, name in enumerate((model, *self.fallback_of(model))):
            offers = self.eligible(name, regions)
            if self._has_caps:
                offers = [offer for offer in offers if offer.backend.spent_until <= now]
            roles = self._roles(name, now)
            drawn = self._canary(offers) if self._has_canaries else None
            panic = in_panic(offers, now)
            for offer in offers:
                step = self._step(offer, roles[offer.backend.facts.kind], origin, now, panic=panic)
                groups.setdefault(_group(step, rank, drawn), []).append(step)
        if not groups and self._fleet.offers(model):
            if inside := self.eligible(model, regions):
                raise all_spent([offer.backend for offer in inside], model, now=now)
            raise not_allowed(f"no backend that serves {model!r} stands in {', '.join(sorted(regions or ()))}")
        key = affinity if self._routing.affinity else None
        return [step for group in sorted(groups) for step in self._ordered(groups[group], key)]

    def fallback_of(self, model: str) -> Sequence[str]:
        """The models to try after it."""
        return self._models[model].fallback if model in self._models else ()

    def eligible(self, model: str, regions: Regions) -> Sequence[Offer]:
        """Who may answer for a model: its own rule binds it also where it is a fallback."""
        if model in self._models:
            regions = narrowed(regions, self._models[model].regions)
        offers = self._fleet.offers(model)
        return offers if regions is None else [o for o in offers if is_inside(o.backend.facts.region, regions)]

    def _roles(self, model: str, now: float) -> Mapping[Kind, Role]:
        if (hybrid := self.hybrids.get(model)) is None:
            return _AS_USUAL["pool"]
        if hybrid.is_due(now):
            hybrid.judge(now, partial(self._first_tokens, model, hybrid.primary))
        if hybrid.is_on_standby and hybrid.first(self._chance()) != hybrid.primary:
            return _STAND_IN[hybrid.primary]
        return _AS_USUAL[hybrid.primary]

    def _first_tokens(self, model: str, kind: Kind, since: float) -> list[float]:
        offers = (offer for offer in self._fleet.offers(model) if offer.backend.facts.kind == kind)
        return [ms for offer in offers for ms in offer.speed.first_tokens(since)]

    def _canary(self, offers: Sequence[Offer]) -> Offer | None:
        """The canary whose turn it is."""
        canaries = [(offer, share) for offer in offers if (share := offer.backend.facts.share)]
        drawn = self._chance() if canaries else 1.0
        for offer, share in canaries:
            drawn -= share
            if drawn < 0:
                return offer
        return None

    def _step(self, offer: Offer, role: Role, origin: Point | None, now: float, *, panic: bool) -> Step:
        state = offer.backend
        facts = state.facts
        if origin and state.place:
            network_from: Near = "client"
            network = _client_rtt(origin, state.place)
            excess = state.rtt_ms - state.expected_rtt_ms
            detour = excess if excess > DETOUR_TOLERANCE_MS else 0.0
        else:
            network_from, network, detour = "edge", state.rtt_ms, 0.0
        standing = offer.standing(now, panic=panic)
        tells_load = state.tells_load(now)
        # An engine that tells its load says by that how long one waits; the rest of a first token is its prompt's.
        slowness = 0.0 if tells_load else offer.speed.slowness_ms(now)
        doubt = DOUBT_MS * offer.circuit.doubts(now)
        price = self._routing.price_ms * (facts.price.input + facts.price.output)
        idle = network + detour + slowness + doubt + price
        present, places = state.present(now), facts.max_concurrency or USUAL_CONCURRENCY
        # What waits in an engine that has places left is news of some seconds ago: all edges would flee it at once.
        ahead = present + 1 - places if tells_load else max(state.waiting(now), state.in_flight + 1 - places)
        wait = _wait_ms(offer, ahead, places) if ahead > 0 else 0.0
        kv_use = state.probe.last.load.kv_use
        memory = _memory_ms(state.kv_use(now)) if kv_use and kv_use > KV_CACHE_FREE else 0.0
        load = present / places
        load_ms = FULL_LOAD_MS * load if load < 1 else FULL_LOAD_MS
        return Step(
            offer,
            standing,
            standing is HEALTHY or (standing is TRIAL and offer.circuit.lets_through(now)),
            role,
            network_from,
            network,
            detour,
            slowness,
            doubt,
            price,
            wait,
            memory,
            load_ms,
            idle,
            idle + wait + memory + load_ms,
            load,
            facts.max_concurrency is not None and (present if tells_load else state.in_flight) >= places,
            now < offer.busy_until,
        )

    def _ordered(self, steps: list[Step], affinity: int | None) -> list[Step]:
        """One group: the near-equals as they share the work, then the rest by cost."""
        if len(steps) == 1:
            return steps
        near, rest = _near_equals(steps, self._routing.near_equal_ms)
        if len(near) > 1:
            near = _by_affinity(near, affinity) if affinity is not None else _by_lot(near, self._chance)
        return near + sorted(rest, key=_by_cost)


_AS_USUAL: Mapping[Kind, Mapping[Kind, Role]] = {
    "pool": {"pool": "primary", "api": "standby"},
    "api": {"api": "primary", "pool": "standby"},
}
_STAND_IN: Mapping[Kind, Mapping[Kind, Role]] = {
    "pool": {"pool": "slow primary", "api": "stand-in"},
    "api": {"api": "slow primary", "pool": "stand-in"},
}
_SECOND: frozenset[Role] = frozenset({"standby", "slow primary"})


def _hybrid(model: Model | None) -> Hybrid:
    return Hybrid(model.primary, model.standby_above_ms) if model else Hybrid()


def _group(step: Step, rank: int, drawn: Offer | None) -> tuple[int, ...]:
    """The rules 1 to 5 as a number each; marks canaries on the way."""
    unfit = not step.is_fit and (2 if step.standing is UNREACHABLE else 1)
    if step.offer is drawn:
        step.choice = "canary"
        return unfit, step.is_busy, rank, step.is_full, 0
    is_idle = step.offer.backend.facts.share is not None
    if is_idle:
        step.choice = "idle canary"
    return unfit, step.is_busy, rank, step.is_full, 1, step.role in _SECOND, is_idle


def _wait_ms(offer: Offer, ahead: int, places: int) -> float:
    """Until there is a place: those in the way leave one after the other, all places together."""
    facts = offer.backend.facts
    if facts.kind == "api" and not facts.max_concurrency:
        return 0.0  # it has no end of places
    return ahead * (offer.speed.answer_ms or USUAL_ANSWER_MS) / places


def _memory_ms(kv_use: float) -> float:
    return KV_CACHE_FULL_MS * (kv_use - KV_CACHE_FREE) / (1 - KV_CACHE_FREE) if kv_use > KV_CACHE_FREE else 0.0


_client_rtt = lru_cache(maxsize=8192)(rtt_between_points)


def _by_cost(step: Step) -> tuple[float, str]:
    """By name where costs are equal, so that a plan can be told again."""
    return step.cost_ms, step.offer.backend.facts.name


def _near_equals(steps: list[Step], tolerance_ms: float) -> tuple[list[Step], list[Step]]:
    """Those that are hardly worse than the best one when nobody uses it, and no dearer; and the rest.

    So more load takes one away, and never adds one: no backend moves forward by what is asked of it.
    """
    best = min(steps, key=_by_idle_cost)
    limit = best.idle_ms + tolerance_ms
    near: list[Step] = []
    rest: list[Step] = []
    for step in steps:
        is_near = step.idle_ms + step.wait_ms + step.memory_ms < limit and step.price_ms <= best.price_ms
        (near if is_near else rest).append(step)
    return near, rest


def _by_idle_cost(step: Step) -> tuple[float, float]:
    return step.idle_ms, step.price_ms


def _by_affinity(near: list[Step], key: int) -> list[Step]:
    """By who has probably read the beginning of the prompt; who is clearly more loaded than the others goes last."""
    those = [(step, step.offer.backend.facts) for step in near]
    fair = AFFINITY_SPREAD * sum([step.load for step in near]) / sum([facts.weight for _, facts in those])
    ranked = []
    for step, facts in those:
        one = 1 / (facts.max_concurrency or USUAL_CONCURRENCY)
        is_crowded = step.load > AFFINITY_MAX_LOAD or step.load > fair * facts.weight + one
        ranked.append((is_crowded, -score(facts.name, facts.weight, key), facts.name, step))
        step.choice = step.choice or "near-equal"
    near = [step for _, _, _, step in sorted(ranked)]
    if near[0].choice == "near-equal":
        near[0].choice = "affinity"
    return near


def _by_lot(near: list[Step], chance: Chance) -> list[Step]:
    """The less loaded of two, drawn by weight, first; the rest by cost."""
    near = sorted(near, key=_by_cost)
    for step in near:
        step.choice = step.choice or "near-equal"
    first = _drawn(near, chance())
    second = _drawn([step for step in near if step is not first], chance())
    best = second if second.load * first.weight < first.load * second.weight else first
    if best.choice == "near-equal":
        best.choice = "less loaded"
    return [best, *(step for step in near if step is not best)]


def _drawn(steps: Sequence[Step], chance: float) -> Step:
    left = chance * sum(step.weight for step in steps)
    for step in steps:
        left -= step.weight
        if left < 0:
            return step
    return steps[-1]


def takes_requests(step: Step) -> bool:
    """Is it fit for one more request, be it as the trial of a half-open circuit?"""
    return step.is_fit


def _distance(step: Step) -> str:
    if step.network_from == "edge" and step.backend.rtt_source == "unknown" and step.backend.measured_rtt_ms is None:
        return "distance unknown"
    return f"{step.network_ms:.0f} ms from the {step.network_from}"


_ROLE_WORDS: Mapping[Role, str] = {
    "primary": "",
    "standby": "stands by",
    "stand-in": "stands in for a slow primary",
    "slow primary": "primary, but slow of late",
}
_CHOICE_WORDS: Mapping[Choice, str] = {
    "": "",
    "affinity": "likely knows the prompt's beginning",
    "less loaded": "less loaded of two as near",
    "near-equal": "another is as near",
    "canary": "canary, its turn",
    "idle canary": "canary, not its turn",
}


def reason(step: Step) -> str:
    """Why this backend stands where it stands, in one short ASCII line (it also travels as a header)."""
    state, facts = step.standing, step.backend.facts
    parts = [
        "" if state is HEALTHY else state.value,
        _CHOICE_WORDS[step.choice],
        _distance(step),
        f"way from the edge {step.detour_ms:.0f} ms slower than expected" if step.detour_ms else "",
        f"first token {step.slowness_ms:.0f} ms slower than brisk" if step.slowness_ms else "",
        f"load {step.load:.0%}" if step.load_ms >= 1 else "",
        "says that it is full" if step.is_busy else "",
        f"full ({facts.max_concurrency} at once)" if step.is_full else "",
        f"waits {step.wait_ms:.0f} ms for a place" if step.wait_ms >= 1 else "",
        "its cache is nearly full" if step.memory_ms else "",
        "failed just now" if step.doubt_ms else "",
        "official API, the last resort" if facts.kind == "api" and step.role == "standby" else _ROLE_WORDS[step.role],
    ]
    return ", ".join(part for part in parts if part)
