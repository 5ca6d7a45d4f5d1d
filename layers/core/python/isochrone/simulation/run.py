"""One policy in one scenario: requests go through edges to engines as they go through the router's pipeline.

Each further attempt is paid out of the edge's retry budget, and an attempt whose first token does not come within its
patience is given up. A stream that breaks off is begun anew elsewhere and its caller does not notice, as the router's
recovery has it. All policies have all of that: what is compared is how they choose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from random import Random
from typing import NamedTuple

from isochrone.routing.engines import EngineLoad
from isochrone.routing.probe import Probe
from isochrone.settings import Settings
from isochrone.simulation.agenda import Agenda
from isochrone.simulation.engine import Engine, Hosted, Job, Pool, Rates, Stage
from isochrone.simulation.figures import Figures, Sums
from isochrone.simulation.policies import Asked, Policy, Stop, Trip, Visit
from isochrone.simulation.scenarios import SCENARIOS, replayed_replies, usual_replies
from isochrone.simulation.traffic import Arrival, Source, arrivals
from isochrone.simulation.troubles import Troubles
from isochrone.simulation.world import Population, World, build_world, dice
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.failure import Cause

MakePolicy = Callable[[World, int, Callable[[], float]], Policy]

# Of the prompts of a real chat trace 36.6 % had been read before (Mooncake): 60 % of the requests go on with a
# conversation, and 60 % of their prompts stood in the one before.
_FOLLOW_UPS = 0.6
_SHARED = 0.6
_RECENT_TALKS = 256
_API_DECODE = 45.0
_CROWD_SECONDS = 2.0
# Regret is worked out for one request in so many: it takes a look at every pool.
_LOOK_EVERY = 16


class Terms(NamedTuple):
    """What a simulation is asked for. `scenario` is its name; `rate` and `cv` as for `traffic.arrivals`."""

    scenario: str
    settings: Settings
    model: str
    requests: int
    clients: int
    seed: int
    source: Source
    rate: float | None
    cv: float
    probe_seconds: float


class _Request:
    """A request under way. `at` is when it came to its edge, `heard` when the first token did, on the edge's clock."""

    __slots__ = (
        "at", "client", "conversation", "edge", "heard", "input_tokens", "is_waiting", "last_cause", "output_tokens",
        "shared", "trip", "waits_until",
    )  # fmt: skip

    trip: Trip

    def __init__(self, at: float, talk: _Talk, edge: int, arrival: Arrival, shared: int) -> None:
        self.at = at
        self.client = talk.client
        self.conversation = talk.number
        self.edge = edge
        self.input_tokens = arrival.input_tokens
        self.output_tokens = arrival.output_tokens
        self.shared = shared
        self.heard: float | None = None
        self.last_cause: Cause | None = None
        self.is_waiting = False
        self.waits_until = inf


class _Attempt(Job):
    """A job, whose it is, and where."""

    __slots__ = ("backend", "request", "visit")

    def __init__(self, request: _Request, backend: int, visit: Visit, *, began: float, way: float) -> None:
        super().__init__(
            request.input_tokens,
            request.output_tokens,
            began=began,
            way=way,
            conversation=request.conversation,
            shared=request.shared,
        )
        self.request = request
        self.backend = backend
        self.visit = visit


class _Talk(NamedTuple):
    """One client's conversation."""

    number: int
    client: int


class _Edge(NamedTuple):
    """One edge's own: its policy, its retry budget, and who waits there for a place."""

    policy: Policy
    budget: RetryBudget
    waiting: deque[_Request]


def simulate(name: str, make_policy: MakePolicy, terms: Terms, say: Callable[[int], None]) -> Figures:
    """The figures of one policy, called `name`: the same for the same terms. `say` hears how many requests have been
    made, after each tenth of them."""
    return _Simulation(make_policy, terms, say).run(name)


class _Simulation:
    def __init__(self, make_policy: MakePolicy, terms: Terms, say: Callable[[int], None]) -> None:
        self._terms = terms
        self._say = say
        self._tenth = max(1, terms.requests // 10)
        self._world = build_world(terms.settings, terms.model, clients=terms.clients, seed=terms.seed)
        self._agenda = Agenda()
        self._sums = Sums()
        self._engines = [self._build_engine(i) for i in range(len(self._world.nodes))]
        self._edges = [self._build_edge(make_policy, i) for i in range(len(self._world.edges))]
        self._troubles = Troubles(self._agenda, self._engines, SCENARIOS[terms.scenario].incidents(self._world))
        self._population = Population(self._world, self._dice("who asks").random)
        self._chance = self._dice("who goes on").random
        self._talks = 0
        self._recent: deque[_Talk] = deque(maxlen=_RECENT_TALKS)
        self._is_open = True

    def _dice(self, purpose: str) -> Random:
        return dice(self._terms.seed, purpose)

    def _build_engine(self, i: int) -> Engine:
        if self._world.settings.backend[i].kind == "pool":
            chance = self._dice(f"pool {i}").random
            return Pool(self._agenda, self, self._world.nodes[i], rates=Rates(), chance=chance)
        replies = replayed_replies() if SCENARIOS[self._terms.scenario].replay else usual_replies
        return Hosted(self._agenda, self, replies, decode=_API_DECODE)

    def _build_edge(self, make_policy: MakePolicy, i: int) -> _Edge:
        policy = make_policy(self._world, i, self._dice(f"edge {i}").random)
        return _Edge(policy, RetryBudget(self._terms.settings.retry.budget_ratio), deque())

    def run(self, name: str) -> Figures:
        """Everything from the first request to the end of the last."""
        terms = self._terms
        self._probe_all(None)
        for arrival in arrivals(terms.source, self._dice("traffic"), rate=terms.rate, cv=terms.cv):
            if self._sums.requests >= terms.requests:
                break
            self._agenda.run_until(arrival.at)
            self._come(arrival)
        seconds = self._agenda.now
        self._is_open = False
        self._troubles.stop()
        self._agenda.run_until(inf)
        return self._sums.result(
            name, seconds=seconds, nodes=sum(self._world.nodes[pool] for pool in self._world.pools)
        )

    # -- requests come -------------------------------------------------------------------------------------------------

    def _come(self, arrival: Arrival) -> None:
        self._ask(arrival, self._talk(arrival.at))
        crowd = self._troubles.crowd
        if crowd and self._chance() < crowd.amount:
            joins = arrival._replace(at=arrival.at + self._chance() * _CROWD_SECONDS)
            self._agenda.at(joins.at, self._join, joins)

    def _join(self, arrival: Arrival) -> None:
        """One more, from where the crowd is."""
        crowd = self._troubles.crowd
        if crowd and self._sums.requests < self._terms.requests:
            self._ask(arrival, self._new_talk(self._population.pick_at(crowd.where)))

    def _talk(self, now: float) -> _Talk:
        """A conversation that goes on, or a new one."""
        if self._recent and self._chance() < _FOLLOW_UPS:
            return self._recent[int(self._chance() * len(self._recent))]
        return self._new_talk(self._population.pick(now))

    def _new_talk(self, client: int) -> _Talk:
        self._talks += 1
        talk = _Talk(self._talks, client)
        self._recent.append(talk)
        return talk

    def _ask(self, arrival: Arrival, talk: _Talk) -> None:
        client = self._world.clients[talk.client]
        request = _Request(arrival.at, talk, client.edge, arrival, int(_SHARED * arrival.input_tokens))
        self._sums.asked(arrival.at)
        if self._sums.requests % self._tenth == 0:
            self._say(self._sums.requests)
        edge = self._edges[client.edge]
        edge.budget.deposit(arrival.at)
        request.trip = edge.policy.plan(Asked(client, talk.number), arrival.at)
        self._go_on(request)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _go_on(self, request: _Request) -> None:
        stop = request.trip.next_stop(self._agenda.now)
        if stop is None:
            self._wait_or_give_up(request)
        elif stop.pause:
            self._agenda.at(self._agenda.now + stop.pause, self._visit, (request, stop))
        else:
            self._visit((request, stop))

    def _visit(self, errand: tuple[_Request, Stop]) -> None:
        request, stop = errand
        now = self._agenda.now
        visit = request.trip.begin(stop.backend, now)
        if visit is None:
            self._go_on(request)
            return
        if request.last_cause is None and self._sums.requests % _LOOK_EVERY == 0:
            self._look(request, stop.backend)
        self._sums.attempts += 1
        way = self._world.edges[request.edge].ways[stop.backend]
        attempt = _Attempt(request, stop.backend, visit, began=now, way=way)
        gives_up_at = now + visit.patience
        if self._engines[stop.backend].submit(attempt) > gives_up_at:
            self._agenda.at(gives_up_at, self._lose_patience, attempt)

    def _lose_patience(self, attempt: _Attempt) -> None:
        if attempt.gone or attempt.stage is Stage.WRITING:
            return
        self._engines[attempt.backend].cancel(attempt)
        self.failed(attempt, Cause.SILENT)

    def first_token(self, job: Job) -> None:
        """See Watcher."""
        attempt = _as_attempt(job)
        now = self._agenda.now + attempt.way / 2
        attempt.visit.first_token(now)
        if attempt.request.heard is None:
            attempt.request.heard = now

    def done(self, job: Job) -> None:
        """See Watcher."""
        attempt = _as_attempt(job)
        attempt.visit.succeeded(self._agenda.now)
        self._settle(attempt)
        self._wake(attempt.request.edge)

    def failed(self, job: Job, cause: Cause) -> None:
        """See Watcher."""
        attempt, now = _as_attempt(job), self._agenda.now
        attempt.visit.failed(cause, now)
        self._sums.wasted += now - attempt.began
        request = attempt.request
        request.last_cause = cause
        if self._edges[request.edge].budget.withdraw(now):
            self._go_on(request)
        else:
            self._sums.failed += 1
        self._wake(request.edge)

    def _settle(self, attempt: _Attempt) -> None:
        request = attempt.request
        to_edge = self._world.clients[request.client].way
        heard = request.heard if request.heard is not None else self._agenda.now
        self._sums.answered(request.at, ttft=heard - request.at + to_edge, rtt=to_edge + attempt.way)
        facts = self._world.settings.backend[attempt.backend]
        if facts.kind == "api":
            self._sums.by_api += 1
            self._sums.dollars += (
                request.input_tokens * facts.price.input + request.output_tokens * facts.price.output
            ) / 1e6

    def _look(self, request: _Request, chosen: int) -> None:
        """What the first choice costs against the best that there was."""
        if chosen not in self._world.pools:
            return
        ways = self._world.edges[request.edge].ways
        expected = {
            pool: ways[pool] + self._engines[pool].expected_seconds(request.input_tokens) for pool in self._world.pools
        }
        if expected[chosen] < inf:
            self._sums.regret += expected[chosen] - min(expected.values())
            self._sums.regrets += 1

    # -- when everybody is full ----------------------------------------------------------------------------------------

    def _wait_or_give_up(self, request: _Request) -> None:
        edge, now = self._edges[request.edge], self._agenda.now
        if request.waits_until == inf:
            request.waits_until = now + edge.policy.max_wait
        if request.trip.is_full and now < request.waits_until:
            request.is_waiting = True
            edge.waiting.append(request)
            self._agenda.at(request.waits_until, self._stop_waiting, request)
        elif request.trip.is_full:
            self._sums.saturated += 1
        else:
            self._sums.failed += 1

    def _stop_waiting(self, request: _Request) -> None:
        if request.is_waiting:
            request.is_waiting = False
            self._edges[request.edge].waiting.remove(request)
            self._sums.saturated += 1

    def _wake(self, edge: int) -> None:
        """A place came free: the one who waits longest has it."""
        waiting = self._edges[edge].waiting
        if waiting:
            request = waiting.popleft()
            request.is_waiting = False
            self._go_on(request)

    # -- probes --------------------------------------------------------------------------------------------------------

    def _probe_all(self, _: None) -> None:
        now = self._agenda.now
        loads = [EngineLoad(waiting=engine.waiting, running=engine.running) for engine in self._engines]
        for place, edge in zip(self._world.edges, self._edges, strict=True):
            for i, engine in enumerate(self._engines):
                reason = "" if engine.reached else "no answer to a probe"
                rtt_ms = place.ways[i] * 1000 if engine.reached else None
                edge.policy.probed(i, Probe(now, engine.reached, reason, rtt_ms, load=loads[i]))
        for i in range(len(self._edges)):
            self._wake(i)
        if self._is_open:
            self._agenda.at(now + self._terms.probe_seconds, self._probe_all, None)


def _as_attempt(job: Job) -> _Attempt:
    assert isinstance(job, _Attempt)
    return job
