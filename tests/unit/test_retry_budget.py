from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest

from isochrone.stores.memory import MemoryFleetStore
from isochrone.upstream.budget import FLOOR, WINDOW_SECONDS, RetryBudget

NOW = 1_000_000 * WINDOW_SECONDS  # a window begins
LATER = NOW + WINDOW_SECONDS


class Table(MemoryFleetStore):
    """Counts the calls; `gate` holds replies back until it is set."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW)
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None

    async def add(self, name: str, amounts: Mapping[str, float], *, expires: float) -> dict[str, float]:
        self.calls.append(name)
        sums = await super().add(name, amounts, expires=expires)
        if self.gate:
            await self.gate.wait()
        return sums


def spend(budget: RetryBudget, times: int, now: float = NOW) -> int:
    return sum(budget.withdraw(now) for _ in range(times))


def ask(budget: RetryBudget, times: int, now: float = NOW) -> None:
    for _ in range(times):
        budget.deposit(now)


# -- one edge by itself -----------------------------------------------------------------


def test_first_failures_of_a_quiet_edge_get_through() -> None:
    assert spend(RetryBudget(0.2), 10_000) == FLOOR


def test_outage_costs_at_most_the_ratio_once_that_exceeds_the_floor() -> None:
    budget = RetryBudget(0.2)
    ask(budget, 1000)
    assert spend(budget, 10_000) == 200


def test_ratio_of_nothing_allows_no_further_attempt_ever() -> None:
    budget = RetryBudget(0.0)
    ask(budget, 1000)
    assert spend(budget, 100) == 0


def test_hedges_have_no_floor() -> None:
    budget = RetryBudget(0.05, floor=0.0)
    ask(budget, 19)
    assert spend(budget, 10) == 0
    ask(budget, 1)
    assert spend(budget, 10) == 1


def test_requests_of_the_last_window_still_count_and_those_before_it_no_more() -> None:
    budget = RetryBudget(0.2)
    ask(budget, 1000)
    assert spend(budget, 1, LATER + WINDOW_SECONDS - 1) == 1
    assert spend(budget, 10_000, LATER + WINDOW_SECONDS - 1) == 199
    assert spend(budget, 10_000, LATER + WINDOW_SECONDS) == 0
    assert spend(budget, 10_000, LATER + 2 * WINDOW_SECONDS) == FLOOR


def test_quiet_windows_in_between_are_not_taken_for_the_last_one() -> None:
    budget = RetryBudget(0.2)
    ask(budget, 1000)
    assert spend(budget, 10_000, NOW + 2 * WINDOW_SECONDS) == FLOOR


def test_clock_that_steps_back_takes_nothing_away() -> None:
    budget = RetryBudget(0.2)
    ask(budget, 500)
    ask(budget, 500, NOW - 3600)
    assert spend(budget, 10_000, NOW - 3600) == 200


# -- the fleet together -----------------------------------------------------------------


async def test_edges_spend_one_budget_together() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 900)
    ask(two, 100)
    for edge in (one, two, one):
        await edge.share(table, NOW)
    assert spend(one, 1000) == 180
    for edge in (one, two):
        ask(edge, 0)
        await edge.share(table, NOW)
    ask(two, 1)
    await two.share(table, NOW)
    assert spend(two, 1000) == 2  # its part of the 20.2 that are left is less than what one request may need


async def test_rest_of_the_budget_is_spent_by_whoever_needs_it() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 500)
    await one.share(table, NOW)
    ask(two, 500)
    spent = 0
    for _ in range(100):
        await two.share(table, NOW)
        spent += spend(two, 1000)
    assert spent == 200


async def test_many_edges_that_hear_of_the_same_rest_do_not_all_spend_it() -> None:
    table, edges = Table(), [RetryBudget(0.2) for _ in range(10)]
    for _ in range(2):
        for edge in edges:
            ask(edge, 50)
            await edge.share(table, NOW)
    assert sum(spend(edge, 1000) for edge in edges) <= 200


async def test_new_edge_hears_of_the_last_window_too() -> None:
    table, old, new = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(old, 1000)
    spend(old, 190)
    await old.share(table, NOW)
    ask(new, 1, LATER)
    await new.share(table, LATER)
    assert table.calls[2:] == [f"budget/{LATER / WINDOW_SECONDS - 1:.0f}", f"budget/{LATER / WINDOW_SECONDS:.0f}"]
    assert spend(new, 100, LATER) == 2  # of the 10.2 that are left, its own part is nearly nothing


async def test_what_was_not_told_when_a_window_ended_is_told_to_that_window() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 1000)
    ask(one, 1, LATER)
    await one.share(table, LATER)
    ask(two, 1, LATER)
    await two.share(table, LATER)
    assert two._last.sums() == (1000, 0)
    assert two._this.sums() == (2, 0)


async def test_last_window_is_asked_for_once() -> None:
    table, budget = Table(), RetryBudget(0.2)
    for _ in range(3):
        ask(budget, 1)
        await budget.share(table, NOW)
    assert len(table.calls) == 4


async def test_edge_with_nothing_to_tell_makes_no_call() -> None:
    table, budget = Table(), RetryBudget(0.2)
    await budget.share(table, NOW)
    ask(budget, 1)
    await budget.share(table, NOW)
    calls = len(table.calls)
    await budget.share(table, NOW)
    assert len(table.calls) == calls


async def test_hedges_of_an_edge_that_knows_of_no_requests_of_its_own_are_none() -> None:
    table, one, two = Table(), RetryBudget(0.05, floor=0.0), RetryBudget(0.05, floor=0.0)
    ask(one, 1000)
    await one.share(table, NOW)
    ask(two, 1)
    await two.share(table, NOW)
    assert spend(two, 10) == 0
    assert spend(one, 1000) == 50


async def test_edge_without_requests_may_try_hardly_more_however_much_the_fleet_has_left() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 4)
    await one.share(table, NOW)
    assert two.withdraw(NOW)
    await two.share(table, NOW)
    assert spend(two, 100) == 2


async def test_budgets_of_different_names_do_not_mix() -> None:
    table, retries, hedges = Table(), RetryBudget(0.2), RetryBudget(0.2, floor=0.0, name="hedges")
    ask(retries, 100)
    await retries.share(table, NOW)
    ask(hedges, 5)
    await hedges.share(table, NOW)
    assert spend(hedges, 10) == 1


async def test_table_that_is_gone_leaves_the_budget_to_the_edge_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table, budget = Table(), RetryBudget(0.2)
    table.failing = True
    ask(budget, 1000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await budget.share(table, NOW)
    told = "budget: counted by this edge alone until the fleet table answers again: Table is switched off"
    assert caplog.messages == [told]
    assert spend(budget, 10_000) == 200


async def test_each_time_that_the_table_is_gone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    table, budget = Table(), RetryBudget(0.2)
    with caplog.at_level(logging.WARNING):
        for table.failing in (True, True, False, True, True):
            ask(budget, 1)
            await budget.share(table, NOW)
    assert len(caplog.records) == 2


async def test_attempts_that_are_made_while_a_telling_is_under_way_are_told_the_next_time() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 1000)
    await one.share(table, NOW)
    ask(one, 1)
    table.gate = asyncio.Event()
    telling = asyncio.create_task(one.share(table, NOW))
    await asyncio.sleep(0)
    assert spend(one, 150) == 150
    table.gate.set()
    await telling
    await one.share(table, NOW)
    ask(two, 1)
    await two.share(table, NOW)
    assert two._this.sums() == (1002, 150)


async def test_what_could_not_be_told_is_told_when_the_table_is_back() -> None:
    table, one, two = Table(), RetryBudget(0.2), RetryBudget(0.2)
    ask(one, 1000)
    spend(one, 150)
    table.failing = True
    await one.share(table, NOW)
    table.failing = False
    await one.share(table, NOW)
    ask(two, 1)
    await two.share(table, NOW)
    assert two._this.sums() == (1001, 150)


async def test_what_happens_while_a_telling_is_under_way_is_not_lost() -> None:
    table, budget = Table(), RetryBudget(0.2)
    await budget.share(table, NOW)
    table.gate = asyncio.Event()
    table.gate.set()
    ask(budget, 500)
    await budget.share(table, NOW)
    table.gate.clear()
    ask(budget, 300)
    telling = asyncio.create_task(budget.share(table, NOW))
    await asyncio.sleep(0)
    ask(budget, 200)
    assert budget._this.sums() == (1000, 0)
    calls = len(table.calls)
    await budget.share(table, NOW)  # one telling at a time
    assert len(table.calls) == calls
    table.gate.set()
    await telling
    assert budget._this.sums() == (1000, 0)
    await budget.share(table, NOW)
    assert (await table.add(f"budget/{NOW / WINDOW_SECONDS:.0f}", {"requests": 0}, expires=NOW + 60))[
        "requests"
    ] == 1000
