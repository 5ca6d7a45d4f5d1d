"""THREAT_MODEL.md: each threat names code and tests that are there, and says what remains."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from tests.docs.repository import ROOT, known_tests, page

PAGE = page("THREAT_MODEL.md")
_HEAD = ["threat", "handled in", "tests", "what remains"]


def rows() -> list[list[str]]:
    """The cells of every threat, over all tables of threats."""
    tables = re.split(r"\n\s*\n", PAGE.text)
    lines = [table.strip().splitlines() for table in tables if table.startswith("| " + " | ".join(_HEAD))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for table in lines for line in table[2:]]


every_threat = pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", " ", row[0])[:40])


def in_backticks(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_there_is_a_row_for_each_promise_about_security() -> None:
    """Two about load, four about state and fourteen about attacks."""
    assert len(rows()) >= 20


@every_threat
def test_threat_is_handled_by_code_that_is_there(row: list[str]) -> None:
    places = in_backticks(row[1])
    assert places
    assert [place for place in places if not _is_there(place)] == []


def _is_there(place: str) -> bool:
    return (ROOT / place).exists() if "/" in place else find_spec(place) is not None


@every_threat
def test_threat_has_tests_that_are_there(row: list[str]) -> None:
    tests = in_backticks(row[2])
    assert tests
    assert sorted(set(tests) - known_tests()) == []


@every_threat
def test_threat_says_what_remains(row: list[str]) -> None:
    assert len(row[3].split()) >= 3
