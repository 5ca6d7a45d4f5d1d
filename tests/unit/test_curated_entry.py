from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from isochrone.answers.curated.entry import Entry, expiry_of, faults, sayings


def entry(**more: Any) -> Entry:
    return Entry(**({"id": "hours", "phrasings": ("When are you open?",), "answer": "From 9 to 5."} | more))


def test_entry_with_the_least_that_is_needed_has_no_fault_and_says_one_thing() -> None:
    assert list(faults(entry())) == []
    assert list(sayings(entry())) == [("When are you open?", "From 9 to 5.")]


def test_placeholder_of_a_phrasing_takes_each_of_its_values_and_the_answer_repeats_it() -> None:
    asked = entry(
        phrasings=("opening hours in {city}", "{city} {day}?"),
        answer="{city}: 9 to 5, call {phone}. {{ok}}",
        variables={"city": ("Rome", "米兰"), "day": ("today",), "phone": ("+39 1",)},
    )
    assert list(faults(asked)) == []
    assert list(sayings(asked)) == [
        ("opening hours in Rome", "Rome: 9 to 5, call +39 1. {ok}"),
        ("opening hours in 米兰", "米兰: 9 to 5, call +39 1. {ok}"),
        ("Rome today?", "Rome: 9 to 5, call +39 1. {ok}"),
        ("米兰 today?", "米兰: 9 to 5, call +39 1. {ok}"),
    ]


@pytest.mark.parametrize(
    ("wrong", "field", "message"),
    [
        ({"id": "a b"}, "id", "must be letters"),
        ({"id": "时间"}, "id", "must be letters"),
        ({"phrasings": ()}, "phrasings", "there is none"),
        ({"phrasings": ("x",) * 101}, "phrasings", "more than 100"),
        ({"phrasings": ("",)}, "phrasings", "'' asks nothing"),
        (
            {
                "phrasings": (
                    "Hi",
                    "?!。",
                )
            },
            "phrasings",
            "'?!。' asks nothing",
        ),
        ({"phrasings": ("two\nlines",)}, "phrasings", "in one line"),
        ({"phrasings": ("x" * 1001,)}, "phrasings", "more than 1,000 characters"),
        ({"phrasings": ("What\x00?",)}, "phrasings", "has the control character U+0000 at character 5"),
        ({"answer": "red: \x1b[31m"}, "answer", "has the control character U+001B at character 6"),
        ({"variables": {"a": ("x\x7f",)}}, "variables", "has the control character U+007F at character 2"),
        ({"answer": " \n"}, "answer", "is empty"),
        ({"answer": "x" * 50_001}, "answer", "more than 50,000 characters"),
        ({"tenants": ("a b",)}, "tenants", "'a b' is no name"),
        ({"models": ("",)}, "models", "'' is no name"),
        ({"language": "English!"}, "language", "no language tag"),
        ({"expires": "31/12/2026"}, "expires", "no date such as 2026-12-31"),
        ({"answer": "in {city}"}, "answer", "{city} is unknown"),
        ({"phrasings": ("in {city}?",)}, "phrasings", "{city} is unknown"),
        ({"answer": "if (x) { y }"}, "answer", "{ y } is no placeholder"),
        ({"answer": "{a.b}", "variables": {"a": ("1",)}}, "answer", "{a.b} is no placeholder"),
        ({"answer": "{a:>10}", "variables": {"a": ("1",)}}, "answer", "{a} is no placeholder"),
        ({"answer": "brace }"}, "answer", "write {{ and }} for braces"),
        ({"answer": "{}", "variables": {"a": ("1",)}}, "answer", "{} is no placeholder"),
        ({"answer": "{a}", "variables": {"a": ("1", "2")}}, "answer", "not every phrasing says which"),
        ({"answer": "{a}", "variables": {"a": ()}}, "variables", "a has no value"),
        ({"answer": "{a}", "variables": {"a": ("1 | 2",)}}, "variables", "no '|'"),
        ({"answer": "{a}", "variables": {"a": ("x" * 100_001,)}}, "variables", "100,000 characters"),
        ({"variables": {"a b": ("1",)}}, "variables", "no name for a placeholder"),
        ({"variables": {"a": ("1",)}}, "variables", "no phrasing and no answer has {a}"),
    ],
    ids=str,
)
def test_fault_is_named_with_its_field(wrong: dict[str, Any], field: str, message: str) -> None:
    found = list(faults(entry(**wrong)))
    assert any(fault.field == field and message in fault.message for fault in found), found


def test_phrasing_that_stands_for_too_many_questions_is_a_fault() -> None:
    many = tuple(map(str, range(32)))
    asked = entry(phrasings=("{a} and {b}",), variables={"a": many, "b": many})
    assert [fault.message for fault in faults(asked)] == ["'{a} and {b}' stands for more than 1,000 questions"]


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-12-31T18:00", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("2026-12-31T18:00+01:00", datetime(2026, 12, 31, 17, tzinfo=UTC)),
    ],
)
def test_date_counts_to_its_end_and_a_moment_to_itself(expires: str, moment: datetime) -> None:
    assert expiry_of(entry(expires=expires)) == moment.timestamp()


def test_entry_without_an_end_lasts_for_ever() -> None:
    assert expiry_of(entry()) == inf
