"""Which answers are made in advance, when, and at what cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.warming.forecast import HORIZON, HOUR, Forecast
from isochrone.warming.plan import Held, Means, Plan, plan, quiet_hours

DAY = 86_400.0
MIDNIGHT = 1_795_392_000.0  # UTC
# Work from 8 to 20 h, sleep otherwise.
LOAD = [1.0] * 8 + [50.0] * 12 + [1.0] * 4
MEANS = Means(dollars=1.0, spent=0.0, requests=100, interval=900.0, second_worth=0.001)


def always(chance: float = 0.9) -> Forecast:
    return Forecast("popular", int(MIDNIGHT // HOUR), (chance,) * HORIZON, "22 asks a day")


def held(mark: str = "m1", **more: Any) -> Held:
    usual: dict[str, Any] = {
        "tenant": "a",
        "mark": mark,
        "model": "m",
        "seconds": 5.0,
        "cost": 0.001,
        "ttl": DAY,
        "fresh_until": MIDNIGHT + 15 * HOUR,
        "forecast": always(),
    }
    return Held(**(usual | more))


def planned(*all_held: Held, now: float = MIDNIGHT, **more: Any) -> Plan:
    return plan(all_held, LOAD, MEANS._replace(**more), now=now)


def test_an_answer_is_made_in_the_last_quiet_run_before_it_expires() -> None:
    (line,) = planned(held()).lines
    assert line.at == MIDNIGHT + 8 * HOUR - 900
    assert line.why == "22 asks a day; 100% that it is asked for once it has expired; 07 h is quiet"


def test_where_no_hour_is_quiet_before_it_expires_the_last_run_does_it() -> None:
    now = MIDNIGHT + 10 * HOUR
    (line,) = planned(held(fresh_until=now + 3600, ttl=3600.0), now=now).lines
    assert line.at == now + 3600 - 900
    assert line.why.endswith("no quiet hour before it expires")


def test_an_answer_that_expires_before_the_next_run_is_due_now() -> None:
    (line,) = planned(held(fresh_until=MIDNIGHT + 10)).due(MIDNIGHT)
    assert line.at == MIDNIGHT


def test_what_is_planned_for_later_is_not_due_now() -> None:
    found = planned(held())
    assert (found.due(MIDNIGHT), len(found.lines)) == ([], 1)


def test_an_answer_that_is_hardly_asked_for_again_is_left_to_expire() -> None:
    found = planned(held(forecast=always(0.001)))
    assert (found.lines, found.left) == ((), {"unlikely": 1})


def test_an_answer_is_left_to_expire_where_the_wait_is_worth_less_than_its_cost() -> None:
    found = planned(held(forecast=always(0.1), cost=1.0, seconds=0.1))
    assert found.left == {"not worth it": 1}


def test_an_answer_that_was_just_made_is_not_made_again() -> None:
    young = held(fresh_until=MIDNIGHT + 540, ttl=600.0, forecast=always(1.0))
    assert planned(young).left == {"fresh enough for now": 1}
    old = held(fresh_until=MIDNIGHT + 300, ttl=600.0, forecast=always(1.0))
    assert [line.at for line in planned(old).lines] == [MIDNIGHT]


def test_a_quiet_hour_that_is_too_early_is_not_taken() -> None:
    """From 7 h, a life of 12 h would add but 4 h to that until 15 h."""
    (line,) = planned(held(ttl=12 * HOUR)).lines
    assert line.at == MIDNIGHT + 14.75 * HOUR


def test_where_a_second_is_worth_nothing_nothing_is_made_in_advance() -> None:
    assert planned(held(), second_worth=0.0).left == {"not worth it": 1}


def test_each_answer_that_is_left_alone_says_why() -> None:
    rare = held("rare", forecast=always(0.001), ttl=HOUR * 1.0, fresh_until=MIDNIGHT + 1, question="Who?")
    dear = held("dear", forecast=always(0.1), cost=1.0, seconds=0.1)
    young = held("young", fresh_until=MIDNIGHT + 540, ttl=600.0)
    found = planned(rare, dear, young)
    assert {one.mark: one.why for one in found.alone} == {
        "rare": "unlikely",
        "dear": "not worth it",
        "young": "fresh enough for now",
    }
    assert found.left == {"unlikely": 1, "not worth it": 1, "fresh enough for now": 1}
    (said,) = (one for one in found.alone if one.mark == "rare")
    assert (said.tenant, said.model, said.question) == ("a", "m", "Who?")
    assert said.chance == pytest.approx(0.001, abs=1e-5)


def test_a_line_says_what_it_is_expected_to_save_and_what_it_costs() -> None:
    (line,) = planned(held(forecast=always(0.6), ttl=HOUR * 1.0, fresh_until=MIDNIGHT + 1)).lines
    assert line.chance == pytest.approx(0.6, abs=1e-3)
    assert line.saves == pytest.approx(line.chance * (0.001 + 5.0 * 0.001))
    assert line.seconds == pytest.approx(line.chance * 5.0)
    assert line.gain == pytest.approx(line.saves - 0.001)


def test_a_run_makes_no_more_than_its_number_of_requests_and_the_run_before_it_takes_the_others() -> None:
    found = planned(*(held(f"m{number}") for number in range(5)), requests=2)
    latest = MIDNIGHT + 8 * HOUR - 900
    assert [line.at for line in found.lines] == [latest - 1800, latest - 900, latest - 900, latest, latest]


def test_a_day_spends_no_more_than_its_budget_and_what_pays_best_comes_first() -> None:
    dear, cheap, middle = held("dear", cost=0.5), held("cheap", cost=0.2), held("middle", cost=0.3)
    dear, cheap, middle = (one._replace(seconds=1000.0) for one in (dear, cheap, middle))
    found = planned(dear, middle, cheap, dollars=1.0, spent=0.4)
    assert {line.mark for line in found.lines} == {"cheap", "middle"}
    assert found.left == {"over budget": 1}


def test_tomorrow_has_a_budget_of_its_own() -> None:
    today, tomorrow = held("today"), held("tomorrow", fresh_until=MIDNIGHT + DAY + 15 * HOUR, ttl=2 * DAY)
    found = planned(today, tomorrow, dollars=0.001)
    assert [line.mark for line in found.lines] == ["today", "tomorrow"]


def test_when_all_is_spent_nothing_is_made() -> None:
    assert planned(held(), dollars=1.0, spent=1.0).lines == ()


def test_an_answer_that_costs_nothing_fits_into_any_budget() -> None:
    assert len(planned(held(cost=0.0), dollars=0.0).lines) == 1


def test_a_span_that_nobody_asks_in_is_not_paid_for() -> None:
    """Asked for at 9 h only: made anew at 7 h, its answer would serve from 15 h to 7 h of the next day."""
    nine = Forecast("periodic", int(MIDNIGHT // HOUR), tuple(0.9 * (h % 24 == 9) for h in range(HORIZON)), "at 9 h")
    assert planned(held(forecast=nine)).lines[0].at == MIDNIGHT + 14.75 * HOUR
    assert planned(held(forecast=nine, ttl=17 * HOUR)).left == {"unlikely": 1}


def test_hours_are_quiet_that_have_no_more_load_than_the_middle_one() -> None:
    assert quiet_hours(LOAD) == frozenset((*range(8), *range(20, 24)))
    assert quiet_hours([0.0] * 24) == frozenset(range(24))


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.floats(0, 100), st.floats(0, 1), st.floats(-DAY, 3 * DAY), st.floats(1, 5 * DAY)),
        max_size=30,
    ),
    st.floats(0, 3),
    st.floats(0, 3),
    st.integers(1, 5),
)
def test_no_plan_breaks_its_bounds(
    answers: list[tuple[float, float, float, float, float]], dollars: float, spent: float, requests: int
) -> None:
    all_held = [
        held(f"m{i}", cost=cost, seconds=seconds, forecast=always(chance), fresh_until=MIDNIGHT + left, ttl=ttl)
        for i, (cost, seconds, chance, left, ttl) in enumerate(answers)
    ]
    found = planned(*all_held, dollars=dollars, spent=spent, requests=requests)
    assert len(found.lines) + sum(found.left.values()) == len(all_held)
    runs: dict[float, int] = {}
    days: dict[int, float] = {}
    for line in found.lines:
        runs[line.at] = runs.get(line.at, 0) + 1
        days[int(line.at // DAY)] = days.get(int(line.at // DAY), 0.0) + line.cost
        assert line.at >= MIDNIGHT
        assert line.gain > 0
        assert line.chance >= 0.5
    assert all(count <= requests for count in runs.values())
    today = int(MIDNIGHT // DAY)
    assert days.get(today, 0.0) <= max(0.0, dollars - spent) + 1e-9
    assert all(cost <= dollars + 1e-9 for cost in days.values())
