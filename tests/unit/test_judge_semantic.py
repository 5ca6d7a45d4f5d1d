"""Which fixed threshold scripts/judge_semantic.py holds beside ours."""

from __future__ import annotations

from judge_semantic import Score, best


def score(name: str, right: int, wrong: int) -> Score:
    return Score(name, right, wrong, ideal=200, requests=400)


def test_of_thresholds_that_are_precise_enough_the_one_that_finds_most_is_best() -> None:
    assert best([score("0.9", 150, 50), score("0.95", 98, 2), score("0.99", 50, 0)]).name == "best 0.95"


def test_where_no_threshold_is_precise_enough_the_most_precise_one_is_best() -> None:
    assert best([score("0.9", 150, 50), score("0.95", 95, 5), score("0.99", 50, 5)]).name == "best 0.95"
