"""docs/routing.md knows every cause and standing, every word of a reason, and the numbers of the code."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

import pytest

from isochrone.routing import plan
from isochrone.routing.circuit import State
from isochrone.routing.health import Standing
from isochrone.upstream.failure import AttemptFailed, Cause
from tests.docs.repository import Section, constants, page

PAGE = page("docs/routing.md")


def rows_of(section: Section) -> list[list[str]]:
    """The cells of every row of a section's tables, without their heads."""
    lines = [line for line in section.text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


CAUSES = {row[0].strip("`"): row for row in rows_of(PAGE.section("What becomes of each failure"))[1:]}
NUMBERS = rows_of(PAGE.section("Numbers that cannot be set"))[1:]


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.name)
def test_every_cause_of_a_failed_attempt_has_its_row_and_what_it_means_for_health(cause: Cause) -> None:
    blames = CAUSES[cause.name][3].startswith("yes")
    assert AttemptFailed(cause, "").against_health is blames


def test_every_standing_and_every_state_of_a_circuit_is_described() -> None:
    rows = {row[0].strip("`") for row in rows_of(PAGE.section("Health"))}
    states = {state.name.lower().replace("_", "-") for state in State}
    assert states | {standing.value for standing in Standing} <= rows


def test_every_word_that_a_reason_can_have_is_described() -> None:
    text = PAGE.section("See why").text
    written = constants(ast.parse(inspect.getsource(plan.reason).replace(str(plan.reason.__doc__), "")))
    # Names of kinds and roles, separators and formats are no words of a reason.
    words = [word for word in written if not re.fullmatch(r"[a-z]+|\W*|\.0.", word)]
    assert "load " in words
    assert [
        word for word in (*plan._ROLE_WORDS.values(), *plan._CHOICE_WORDS.values(), *words) if word not in text
    ] == []


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row[2].strip("`"))
def test_number_is_that_of_the_code(row: list[str]) -> None:
    _, value, where = row
    module, _, name = where.strip("`").rpartition(".")
    assert float(value) == getattr(import_module(module), name)


def test_share_of_places_and_turns_of_a_class_are_those_of_the_code() -> None:
    from isochrone.routing.priority import Priority

    rows = [row for row in rows_of(PAGE.section("When all are full")) if row[1].upper() in Priority.__members__]
    assert len(rows) == len(Priority)
    for numbers, name, turns, share in rows:
        priority = Priority[name.upper()]
        assert {Priority.of(int(number)) for number in re.findall(r"\d+", numbers)} == {priority}
        assert priority.weight == int(turns)
        assert priority.limit(100) == int(share.replace("all", "100").rstrip(" %"))
