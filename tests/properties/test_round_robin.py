"""Turns of tenants beside the promises of deficit round robin, for any order of events."""

from __future__ import annotations

from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isochrone.routing.round_robin import RoundRobin
from isochrone.routing.shares import Shares

TENANTS = ("a", "b", "c")
tenants = st.sampled_from(TENANTS)
weights = st.sampled_from([0.05, 0.5, 1.0, 3.0])
costs = st.sampled_from([0.1, 1.0, 2.5, 32.0])


class Given(Shares):
    """Costs that stand."""

    def __init__(self, weights: dict[str, float], costs: dict[str, float]) -> None:
        super().__init__(weights)
        self.costs = costs

    def cost(self, tenant: str) -> float:
        return self.costs[tenant]


class RoundRobinMachine(RuleBasedStateMachine):
    """The model: who waits, by tenant, and what each two tenants got since both of them were waiting."""

    @initialize(weights=st.tuples(weights, weights, weights), costs=st.tuples(costs, costs, costs))
    def tenants_are(self, weights: tuple[float, ...], costs: tuple[float, ...]) -> None:
        self.shares = Given(dict(zip(TENANTS, weights, strict=True)), dict(zip(TENANTS, costs, strict=True)))
        self.turns: RoundRobin[int] = RoundRobin(self.shares)
        self.waiting: dict[str, list[int]] = {tenant: [] for tenant in TENANTS}
        self.got: dict[tuple[str, str], dict[str, float]] = {}
        self.arrivals = 0

    @rule(tenant=tenants, number=st.integers(1, 30))
    def some_come(self, tenant: str, number: int) -> None:
        for _ in range(number):
            self.arrivals += 1
            self.turns.join(self.arrivals, tenant)
            self.waiting[tenant].append(self.arrivals)

    @rule(tenant=tenants, choice=st.integers(0, 100))
    def one_leaves(self, tenant: str, choice: int) -> None:
        if waiting := self.waiting[tenant]:
            self.turns.leave(waiting.pop(choice % len(waiting)))
            self._forget(tenant)

    @rule(number=st.integers(1, 40))
    def turns_are_had(self, number: int) -> None:
        for _ in range(min(number, len(self.turns))):
            who = self.turns.next()
            assert who is not None
            assert who == self.turns.next()
            self._serve(who)

    def _serve(self, who: int) -> None:
        tenant = next(tenant for tenant, waiting in self.waiting.items() if who in waiting)
        assert self.waiting[tenant][0] == who
        both = [pair for pair in combinations(TENANTS, 2) if all(self.waiting[one] for one in pair)]
        for pair in both:
            got = self.got.setdefault(pair, dict.fromkeys(pair, 0.0))
            if tenant in pair:
                got[tenant] += self.shares.cost(tenant) / self.shares.weight(tenant)
        self.turns.serve(who)
        self.waiting[tenant].pop(0)
        self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        if not self.waiting[tenant]:
            self.got = {pair: got for pair, got in self.got.items() if tenant not in pair}

    @invariant()
    def nobody_is_lost(self) -> None:
        if hasattr(self, "turns"):
            assert len(self.turns) == sum(map(len, self.waiting.values()))
            assert (self.turns.next() is None) == (not len(self.turns))

    @invariant()
    def nobody_is_ahead_by_more_than_a_visit_and_a_request(self) -> None:
        """And so nobody is starved. The bound of the paper's theorem 2, for weights: what is counted is cost / weight,
        and each may begin and end its visits with less than one request in credit."""
        if not hasattr(self, "turns"):
            return
        for pair, got in self.got.items():
            requests = sum(self.shares.cost(one) / self.shares.weight(one) for one in pair)
            assert abs(got[pair[0]] - got[pair[1]]) <= 2 + 2 * requests + 1e-6

    @invariant()
    def nobody_saves_credit(self) -> None:
        if hasattr(self, "turns"):
            for tenant, credit in self.turns._credit.items():
                assert -1e-6 <= credit <= self.shares.cost(tenant) + self.shares.weight(tenant) + 1e-6


TestRoundRobin = RoundRobinMachine.TestCase
TestRoundRobin.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
