"""The console's pure parts: sums over ledgers, rates, and the merged picture."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from isochrone.routing import health
from local.console import reports
from local.console.reports import Attempt, Status
from local.console.snapshot import EdgeView, merge, worst
from local.console.tally import RATE_SECONDS, SHOWN, Rate, Tally
from tests.fake_edge import attempt, seen


def page(*numbers: int, **facts: Any) -> list[Attempt]:
    """A ledger's page, newest first as given."""
    return msgspec.convert([attempt(number, **facts) for number in numbers], list[Attempt])


def test_attempt_that_is_listed_again_is_counted_once() -> None:
    tally = Tally()
    for numbers in ((2, 1), (3, 2, 1), (3, 2, 1)):
        tally.take("eu-west-1", page(*numbers))
    totals = {"attempts": 3, "input_tokens": 30, "output_tokens": 15, "cost": 1.5, "since": 1001.0}
    assert tally.totals() == totals


def test_second_attempt_of_one_request_counts_too() -> None:
    tally = Tally()
    tally.take("eu-west-1", page(1) + page(1, attempt=2, backend="pool-us", cost=0.25))
    assert tally.totals()["cost"] == 0.75


def test_tokens_that_no_engine_told_count_as_none() -> None:
    tally = Tally()
    tally.take("eu-west-1", page(1, input_tokens=None, output_tokens=None))
    assert (tally.totals()["attempts"], tally.totals()["input_tokens"]) == (1, 0)


def test_newest_attempts_of_all_edges_come_first_with_their_edge_and_there_are_not_too_many() -> None:
    tally = Tally()
    tally.take("eu-west-1", page(*range(40, 0, -2)))
    tally.take("us-east-1", page(*range(39, 0, -2)))
    newest = [(one["request_id"], one["edge"]) for one in tally.newest()]
    assert newest[:3] == [("request-40", "eu-west-1"), ("request-39", "us-east-1"), ("request-38", "eu-west-1")]
    assert len(newest) == SHOWN


def test_full_page_of_nothing_but_news_may_hide_a_gap() -> None:
    tally = Tally()
    assert not tally.has_gap("eu-west-1", page(2, 1), limit=2)  # the first look begins where it begins
    tally.take("eu-west-1", page(2, 1))
    assert tally.has_gap("eu-west-1", page(5, 4), limit=2)
    assert not tally.has_gap("eu-west-1", page(3, 2), limit=2)
    assert not tally.has_gap("eu-west-1", page(3), limit=2)


def test_rate_is_growth_over_time() -> None:
    rate = Rate()
    assert rate.per_second() == 0
    rate.mark(100.0, 7)
    assert rate.per_second() == 0
    rate.mark(104.0, 15)
    assert rate.per_second() == 2


def test_rate_forgets_what_is_long_ago() -> None:
    rate = Rate()
    for now, count in ((0.0, 0), (5.0, 1000), (5.0 + RATE_SECONDS, 1000)):
        rate.mark(now, count)
    assert rate.per_second() == 0


def test_rate_begins_anew_with_a_counter_that_does() -> None:
    rate = Rate()
    for now, count in ((0.0, 500), (1.0, 2), (2.0, 5)):
        rate.mark(now, count)
    assert rate.per_second() == 3


def view(name: str, *backends: dict[str, Any], failure: str = "", **facts: Any) -> EdgeView:
    """An edge of which the console knows this."""
    status = {"edge": name, "version": "1", "ready": True, "backends": backends, "counters": {}, **facts}
    return EdgeView(name, "http://127.0.0.1:1", failure, msgspec.convert(status, Status))


def merged(*edges: EdgeView, **direct: str) -> dict[str, Any]:
    return merge(edges, {name.replace("_", "-"): how for name, how in direct.items()}, Tally(), now=1.0)


def test_load_is_summed_over_edges_but_the_engines_queue_is_one() -> None:
    picture = merged(view("eu-west-1", seen(in_flight=2, waiting=3)), view("us-east-1", seen(in_flight=1, waiting=4)))
    assert (picture["backends"][0]["in_flight"], picture["backends"][0]["waiting"]) == (3, 4)


def test_backend_has_the_worst_standing_that_an_edge_gives_it_and_says_which() -> None:
    picture = merged(
        view("eu-west-1", seen()), view("us-east-1", seen(standing="ejected")), view("ap-southeast-1", seen())
    )
    assert (picture["backends"][0]["standing"], picture["backends"][0]["seen_by"]) == ("ejected", ["us-east-1"])


def test_standings_are_ordered_and_nobodys_view_is_unknown() -> None:
    assert worst(["healthy", "unreachable", "trial"]) == "unreachable"
    assert worst(["trial", "ejected"]) == "ejected"
    assert worst(["healthy", "trial"]) == "trial"
    assert worst([]) == "unknown"


def test_console_knows_every_standing_that_an_edge_can_give() -> None:
    assert set(get_args(reports.Standing)) == {standing.value for standing in health.Standing}


def test_what_a_silent_edge_said_of_health_is_no_longer_shown_but_its_backends_stay_on_the_map() -> None:
    picture = merged(view("eu-west-1", seen(standing="ejected"), failure="silent"))
    assert picture["edges"][0]["state"] == "unreachable"
    assert picture["edges"][0]["sees"] == {}
    assert [(one["name"], one["standing"]) for one in picture["backends"]] == [("pool-eu", "unknown")]
    assert picture["backends"][0]["place"] == picture["edges"][0]["place"] is not None


def test_pool_that_does_not_answer_is_unreachable_whatever_edges_still_think() -> None:
    picture = merged(view("eu-west-1", seen()), pool_eu="refused")
    assert (picture["backends"][0]["standing"], picture["backends"][0]["failure"]) == ("unreachable", "refused")


def test_pool_that_nobody_asked_directly_is_not_said_to_answer() -> None:
    edge = view("eu-west-1", seen(), seen("pool-us"), seen("pool-ap"))
    answers = {one["name"]: one["answers"] for one in merged(edge, pool_eu="", pool_us="silent")["backends"]}
    assert answers == {"pool-eu": True, "pool-us": False, "pool-ap": False}


def test_edge_that_drains_is_neither_well_nor_gone() -> None:
    assert merged(view("eu-west-1", ready=False))["edges"][0]["state"] == "draining"


def test_backend_without_a_place_is_in_the_picture_but_not_on_the_map() -> None:
    picture = merged(view("eu-west-1", seen("api", kind="api", region=None, location=None)))
    assert (picture["backends"][0]["name"], picture["backends"][0]["place"]) == ("api", None)


@pytest.mark.parametrize(("family", "expected"), [("answered", {"200": 3, "503": 1}), ("cache", {"hit": 2})])
def test_counters_are_shown_by_family(family: str, expected: dict[str, int]) -> None:
    counters = {"answered_200": 3, "answered_503": 1, "cache_hit": 2, "status_200": 70, "streams_broken": 1}
    assert merged(view("eu-west-1", counters=counters))["edges"][0][family] == expected
