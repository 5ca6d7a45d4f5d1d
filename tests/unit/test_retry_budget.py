from __future__ import annotations

from isochrone.upstream.budget import FLOOR_PER_SECOND, RetryBudget


def spend(budget: RetryBudget, times: int) -> int:
    return sum(budget.withdraw() for _ in range(times))


def test_first_failures_of_a_quiet_edge_get_through() -> None:
    assert spend(RetryBudget(0.2, now=0.0), 5) == 5


def test_outage_costs_at_most_the_ratio_once_the_floor_is_spent() -> None:
    budget = RetryBudget(0.2, now=0.0)
    spend(budget, 10_000)
    for _ in range(1000):
        budget.deposit(0.0)
    assert spend(budget, 10_000) in (99, 100)  # the cap; 1000 requests would have paid for 200


def test_floor_comes_back_with_time() -> None:
    budget = RetryBudget(0.2, now=0.0)
    spend(budget, 10_000)
    budget.deposit(1.0)
    assert spend(budget, 10_000) == FLOOR_PER_SECOND


def test_ratio_of_nothing_allows_no_further_attempt_ever() -> None:
    budget = RetryBudget(0.0, now=0.0)
    budget.deposit(1000.0)
    assert spend(budget, 100) == 0


def test_clock_that_steps_back_takes_nothing_away() -> None:
    budget = RetryBudget(0.2, now=100.0)
    budget.deposit(50.0)
    assert spend(budget, 5) == 5
