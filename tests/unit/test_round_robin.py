from __future__ import annotations

from collections import Counter

import pytest

from isochrone.routing.round_robin import RoundRobin
from isochrone.routing.shares import Shares


def turns_of(shares: Shares | None = None, **numbers: int) -> RoundRobin[str]:
    turns: RoundRobin[str] = RoundRobin(shares or Shares())
    for tenant, number in numbers.items():
        for i in range(number):
            turns.join(f"{tenant}{i}", tenant)
    return turns


def served(turns: RoundRobin[str], times: int) -> list[str]:
    order = []
    for _ in range(times):
        who = turns.next()
        assert who is not None
        turns.serve(who)
        order.append(who)
    return order


def costing(**seconds: float) -> Shares:
    """The places of each tenant are held for so long."""
    shares = Shares()
    for _ in range(500):
        for tenant, held in seconds.items():
            shares.on_held(tenant, held)
    return shares


def test_tenants_take_turns_however_many_each_has_waiting() -> None:
    assert served(turns_of(a=100, b=2, c=1), 7) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_those_of_a_tenant_are_first_come_first_served() -> None:
    assert served(turns_of(a=3), 3) == ["a0", "a1", "a2"]


def test_turns_are_as_many_as_the_weight_says() -> None:
    turns = turns_of(Shares({"a": 3.0, "b": 0.5}), a=100, b=100, c=100)
    count = Counter(who[0] for who in served(turns, 90))
    assert count == {"a": 60, "c": 20, "b": 10}


def test_tenant_whose_answers_take_longer_has_fewer_turns_and_as_much_time() -> None:
    turns = turns_of(costing(slow=9.0, quick=1.0), slow=100, quick=100)
    count = Counter(who[0] for who in served(turns, 100))
    assert count["s"] == pytest.approx(10, abs=1)


def test_tenant_that_was_away_has_saved_no_turns() -> None:
    turns = turns_of(a=50, b=1)
    served(turns, 20)
    for i in range(1, 20):
        turns.join(f"b{i}", "b")
    assert Counter(who[0] for who in served(turns, 20)) == {"a": 10, "b": 10}


def test_newcomer_among_many_has_its_turn_after_one_of_each() -> None:
    turns = turns_of(a=100, b=100, c=100, d=100, e=100, f=100, g=100)
    served(turns, 3)
    turns.join("z0", "z")
    assert "z0" in served(turns, 8)


def test_whose_turn_it_is_stays_so_until_it_is_served_or_leaves() -> None:
    turns = turns_of(Shares({"b": 0.1}), a=3, b=3)
    assert {turns.next() for _ in range(20)} == {"a0"}
    turns.leave("a0")
    assert {turns.next() for _ in range(20)} == {"a1"}


def test_whoever_leaves_takes_no_turn_and_holds_up_nobody() -> None:
    turns = turns_of(a=2, b=2)
    for who in ("a0", "a1", "b0", "b0", "nobody"):
        turns.leave(who)
    assert (len(turns), served(turns, 1), turns.next()) == (1, ["b1"], None)


def test_rounds_in_which_nobody_can_pay_are_not_walked_one_by_one() -> None:
    shares = costing(**{"slow": 1000.0, "usual": 1.0})
    shares._weights = {"slow": 0.01}
    turns, visits = turns_of(shares, slow=1), 0
    visit = turns._visit

    def counted() -> None:
        nonlocal visits
        visits += 1
        visit()

    turns._visit = counted  # type: ignore[method-assign]
    assert served(turns, 1) == ["slow0"]
    assert visits <= 2


@pytest.mark.parametrize(("tenant", "ahead"), [("a", 13), ("b", 5), ("c", 2)], ids=["most", "some", "none"])
def test_how_many_are_ahead_follows_from_the_turns(tenant: str, ahead: int) -> None:
    assert turns_of(a=10, b=2).ahead_of(tenant) == ahead - (tenant == "a")


# -- what a request costs ----------------------------------------------------------------------------------------------


def test_tenant_of_whom_nothing_is_known_costs_the_usual() -> None:
    assert costing(a=4.0).cost("b") == 1.0


def test_costs_are_bounded_whatever_was_measured() -> None:
    shares = costing(**{f"usual{i}": 1.0 for i in range(20)}, endless=1e6, brief=1e-6)
    assert shares.cost("endless") <= 32
    assert shares.cost("brief") >= 1 / 32


def test_places_that_were_held_for_no_time_cost_the_usual() -> None:
    assert costing(a=0.0).cost("a") == 1.0


def test_weights_are_bounded() -> None:
    shares = Shares({"tiny": 1e-9, "vast": 1e9})
    assert (shares.weight("tiny"), shares.weight("vast"), shares.weight("other")) == (0.01, 100.0, 1.0)


def test_what_is_remembered_of_tenants_is_bounded() -> None:
    shares = Shares()
    for i in range(5000):
        shares.on_held(str(i), 1.0)
    assert len(shares._own) == 1024
