from __future__ import annotations

from itertools import count

import pytest

from isochrone.routing.line import Line
from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares

HIGH, STANDARD, LOW = Priority.HIGH, Priority.STANDARD, Priority.LOW


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, LOW), (3, LOW), (4, STANDARD), (5, STANDARD), (7, STANDARD), (8, STANDARD), (9, HIGH), (10, HIGH)],
)
def test_number_falls_into_its_class(number: int, expected: Priority) -> None:
    assert Priority.of(number) is expected


@pytest.mark.parametrize(
    ("slots", "low", "standard"),
    [(1, 1, 1), (2, 1, 2), (4, 3, 4), (5, 4, 5), (19, 15, 19), (20, 16, 19), (100, 80, 95)],
)
def test_less_urgent_classes_leave_some_slots_to_the_urgent(slots: int, low: int, standard: int) -> None:
    assert [one.limit(slots) for one in (LOW, STANDARD, HIGH)] == [low, standard, slots]


# -- the order in a line -----------------------------------------------------------------------------------------------


def served(line: Line[str], times: int) -> str:
    order = ""
    for _ in range(times):
        turn = line.next()
        assert turn
        line.serve(turn.who, turn.priority)
        order += turn.who[0]
    return order


def line_of(**numbers: int) -> Line[str]:
    line: Line[str] = Line(Shares())
    for name, number in numbers.items():
        for i in range(number):
            line.join(f"{name}{i}", Priority[name.upper()], "acme")
    return line


def test_classes_take_turns_eight_to_three_to_one() -> None:
    line = line_of(high=100, standard=100, low=100)
    for _ in range(4):
        order = served(line, 12)
        assert (order.count("h"), order.count("s"), order.count("l")) == (8, 3, 1)


def test_first_come_is_first_served_within_a_class() -> None:
    line = line_of(standard=3)
    order = []
    while turn := line.next():
        line.serve(turn.who, turn.priority)
        order.append(turn.who)
    assert order == ["standard0", "standard1", "standard2"]


def test_class_alone_has_every_turn() -> None:
    assert served(line_of(low=5), 5) == "lllll"


def test_low_gets_its_turn_although_high_ones_are_never_two_at_a_time() -> None:
    line = line_of(low=1)
    fresh = count(1)
    order = ""
    while "l" not in order:
        line.join(f"high{next(fresh)}", HIGH, "acme")
        order += served(line, 1)
    assert order == "h" * 8 + "l"


def test_whoever_comes_to_an_empty_class_inherits_no_debt() -> None:
    line = line_of(high=9, low=1)
    assert served(line, 9).count("l") == 1
    line.join("low1", LOW, "acme")
    assert served(line, 1) == "h"


def test_turn_before_a_higher_class_has_that_ones_right() -> None:
    line = line_of(low=1)
    assert line.next() == ("low0", LOW, LOW)
    line.join("standard0", STANDARD, "acme")
    assert line.next() == ("standard0", STANDARD, STANDARD)
    for i in range(1, 4):
        served(line, 1)
        line.join(f"standard{i}", STANDARD, "acme")
    assert line.next() == ("low0", LOW, HIGH)


def test_turn_that_found_no_place_is_not_used_up() -> None:
    line = line_of(high=1, low=1)
    assert {line.next() for _ in range(20)} == {("high0", HIGH, HIGH)}


@pytest.mark.parametrize(
    ("waiting", "priority", "ahead"),
    [
        ({}, LOW, 0),
        ({"low": 3}, LOW, 3),
        ({"high": 100, "standard": 100}, LOW, 11),
        ({"high": 2, "standard": 1}, LOW, 3),
        ({"high": 100, "low": 1}, LOW, 17),
        ({"standard": 100, "low": 100}, HIGH, 0),
        ({"high": 100}, STANDARD, 2),
    ],
)
def test_how_many_are_ahead_follows_from_the_turns(waiting: dict[str, int], priority: Priority, ahead: int) -> None:
    assert line_of(**waiting).ahead_of(priority, "acme") == ahead


def test_tenants_take_turns_within_a_class_and_classes_as_ever() -> None:
    line: Line[str] = Line(Shares())
    for i in range(20):
        line.join(f"high-a{i}", HIGH, "a")
    line.join("high-b", HIGH, "b")
    line.join("low-b", LOW, "b")
    order = []
    for _ in range(10):
        turn = line.next()
        assert turn
        line.serve(turn.who, turn.priority)
        order.append(turn.who)
    assert order[1] == "high-b"
    assert "low-b" in order[:9]


def test_who_is_ahead_counts_a_tenants_own_first() -> None:
    line: Line[str] = Line(Shares())
    for i in range(20):
        line.join(str(i), STANDARD, "noisy")
    line.join("20", STANDARD, "quiet")
    assert (line.ahead_of(STANDARD, "noisy"), line.ahead_of(STANDARD, "quiet"), line.ahead_of(STANDARD, "new")) == (
        21,
        3,
        2,
    )
