"""The router itself as a policy: its own plan, itinerary, circuits, ejections and slots, not a copy of them.

Only what needs a network is left out: leases of slots and circuit notes, since each region of the simulated world has
one edge, which knows all that a region's fleet table could tell it.
"""

from __future__ import annotations

from collections.abc import Callable

from isochrone.routing.fleet import Fleet, Offer
from isochrone.routing.health import Fault
from isochrone.routing.plan import Planner, Step
from isochrone.routing.priority import Priority
from isochrone.routing.probe import Probe
from isochrone.routing.slots import Slots
from isochrone.simulation.policies import Asked, Stop, Trip, Visit
from isochrone.simulation.world import World
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.itinerary import Itinerary

_FAULTS = {Cause.UNREACHABLE: Fault.UNREACHABLE, Cause.DROPPED: Fault.DROPPED}


class Ours:
    """One edge of Isochrone."""

    def __init__(self, world: World, edge: int, chance: Callable[[], float]) -> None:
        settings, here = world.settings, world.edges[edge]
        self.max_wait = settings.routing.max_wait
        self.settings = settings
        self.chance = chance
        self.slots: dict[str, Slots] = {}
        self._now = 0.0
        self._model = world.model
        self._fleet = Fleet(
            settings.backend,
            edge_region=here.region,
            edge_place=here.place,
            models=settings.model,
            deadlines=settings.deadlines,
            chance=chance,
        )
        self._planner = Planner(self._fleet, models=settings.model, routing=settings.routing, chance=chance)
        self.numbers = {state: i for i, state in enumerate(self._fleet.states)}
        for state in self._fleet.states:
            if capacity := state.facts.max_concurrency:
                self.slots[state.facts.name] = self._slots(state.facts.name, capacity)

    def _slots(self, backend: str, capacity: int) -> Slots:
        return Slots(backend, capacity, holder="edge", store=None, clock=self._clock, wall=self._clock)

    def _clock(self) -> float:
        return self._now

    def plan(self, asked: Asked, now: float) -> Trip:
        """See Policy."""
        steps = self._planner.plan(self._model, client=asked.client.location, now=now, affinity=asked.conversation)
        return _Trip(self, steps, now)

    def probed(self, backend: int, seen: Probe) -> None:
        """See Policy."""
        self._fleet.states[backend].on_probe(seen)


class _Trip:
    """A request on its itinerary."""

    __slots__ = ("_failures", "_full", "_itinerary", "_made", "_next", "_ours", "is_full")

    def __init__(self, ours: Ours, steps: list[Step], now: float) -> None:
        retry, total = ours.settings.retry, ours.settings.deadlines.total
        self.is_full = False
        self._ours = ours
        self._itinerary = Itinerary(steps, retry.attempts, now + total, {})
        self._failures: list[AttemptFailed] = []
        self._full: list[Offer] = []
        self._made = 0
        self._next: Step | None = None

    def next_stop(self, now: float) -> Stop | None:
        """See Trip."""
        ours = self._ours
        chance = ours.chance() if self._failures else 0.0
        stop = self._itinerary.next_stop(self._failures, made=self._made, now=now, chance=chance, full=self._full)
        if stop is None:
            # Whoever wakes after a wait looks at all of them again.
            self.is_full, self._full = bool(self._full), []
            return None
        self._next = stop.step
        return Stop(ours.numbers[stop.step.backend], stop.pause)

    def begin(self, backend: int, now: float) -> Visit | None:
        """See Trip."""
        step = self._next
        assert step, "a trip begins at its next stop"
        visit = _Visit.at(step, self._ours.slots.get(step.backend.facts.name), now, self._failures)
        if visit is None:
            self._full.append(step.offer)
        else:
            self._made += 1
        return visit


class _Visit:
    """What upstream.visit and routing.places do for an attempt, without a ledger: it holds a slot, and the trial where
    the circuit is half-open, until it has told the fleet how it went."""

    __slots__ = ("_begun", "_failures", "_offer", "_slots", "_trial", "patience")

    def __init__(
        self, offer: Offer, slots: Slots | None, trial: int | None, begun: float, failures: list[AttemptFailed]
    ) -> None:
        self._offer = offer
        self._slots = slots
        self._trial = trial
        self._begun = begun
        self._failures = failures
        self.patience = offer.deadlines.first_token / (1 if trial is None else 2)
        offer.backend.in_flight += 1

    @classmethod
    def at(cls, step: Step, slots: Slots | None, now: float, failures: list[AttemptFailed]) -> _Visit | None:
        """A visit, if there are a slot and, where it takes one, the trial."""
        circuit = step.offer.circuit
        trial = circuit.claim_trial(now)
        if trial is None and step.is_fit and not circuit.lets_through(now):
            return None
        if slots and not slots.take_at_hand(Priority.STANDARD):
            if trial is not None:
                circuit.free_trial(trial, now)
            return None
        return cls(step.offer, slots, trial, now, failures)

    def first_token(self, now: float) -> None:
        """See Visit."""
        self._offer.on_first_token(now, begun=self._begun)

    def succeeded(self, now: float) -> None:
        """See Visit."""
        self._offer.on_success(now, begun=self._begun)
        self._give_back(now)

    def failed(self, cause: Cause, now: float) -> None:
        """See Visit."""
        failure = AttemptFailed(cause, cause.value)
        failure.belongs_to(self._offer.backend.facts.name, self._offer.model, now=now)
        self._failures.append(failure)
        fault = _FAULTS.get(cause, Fault.ANSWER)
        self._offer.on_failure(now, cause.value, begun=self._begun, fault=fault)
        self._give_back(now)

    def _give_back(self, now: float) -> None:
        self._offer.backend.in_flight -= 1
        if self._slots:
            self._slots.give_back()
        if self._trial is not None:
            self._offer.circuit.free_trial(self._trial, now)
