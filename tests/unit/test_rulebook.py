"""Which answers a revocation covers, and how rules are made fewer without bringing anything back."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product
from math import inf
from typing import Any

import msgspec
import pytest

from isochrone.answers.completion import Answer
from isochrone.answers.rulebook import EVERYTHING, SKEW_SECONDS, Rule, Rulebook, rule_of, tidied

NOW = 1_000_000.0
DAY = 86_400.0


def answer(question: str | None = "How far is the Moon?", *, created: float = 0.0, **more: Any) -> Answer:
    return Answer("chat", "pool", created, {}, model=more.pop("model", "m"), question=question, **more)


def rulebook(*rules: Rule) -> Rulebook:
    book = Rulebook()
    book.replace({rule.key: rule for rule in rules})
    return book


def test_answer_is_known_until_somebody_takes_it_back() -> None:
    book = Rulebook()
    assert book.allows("a", "f1", answer())
    book.add(Rule("a", NOW, answer="f1"))
    assert not book.allows("a", "f1", answer())
    assert book.allows("a", "f2", answer())


def test_rule_of_one_tenant_is_nothing_to_another() -> None:
    book = rulebook(Rule("a", NOW, answer="f1"), Rule("a", NOW, pattern=EVERYTHING))
    assert book.allows("b", "f1", answer())
    assert book.stamp("b", "f1", "How far?", "m", now=NOW) == ""


@pytest.mark.parametrize(
    ("pattern", "question"),
    [
        ("how far*", "How far is the Moon?"),
        ("*MOON*", "How far is the Moon?"),
        ("how far is the moon[?!]", "How far is the Moon?"),
        ("*月亮*", "到月亮有多远？"),
        ("*café*", "Where is the CAFE\u0301?"),
        ("*first*second*", "first line\nsecond line"),
        ("*", None),
        ("*", ""),
        ("[", "["),
    ],
)
def test_pattern_is_a_glob_over_the_whole_question_whatever_its_case(pattern: str, question: str | None) -> None:
    assert not rulebook(Rule("a", NOW, pattern=pattern)).allows("a", "f", answer(question))


@pytest.mark.parametrize(
    ("pattern", "question"), [("moon", "How far is the Moon?"), ("*mars*", "How far is the Moon?"), ("?*", None)]
)
def test_pattern_that_is_not_like_the_question_leaves_the_answer_alone(pattern: str, question: str | None) -> None:
    assert rulebook(Rule("a", NOW, pattern=pattern)).allows("a", "f", answer(question))


@pytest.mark.parametrize("glob", ["*", "?b*", "*a[bc]*", "[ab]*c", "a*b?c", "*[!a]", "c[", "*[]]c*", "ab", ""])
def test_pattern_means_what_every_glob_means(glob: str) -> None:
    book = rulebook(Rule("a", NOW, pattern=glob))
    for text in map("".join, (said for length in range(5) for said in product("abc[]", repeat=length))):
        assert book.allows("a", "f", answer(text)) != fnmatchcase(text, glob), text


def test_rule_may_be_about_one_model() -> None:
    book = rulebook(Rule("a", NOW, pattern="*moon*", model="m"))
    assert not book.allows("a", "f", answer(model="m"))
    assert book.allows("a", "f", answer(model="other"))


@pytest.mark.parametrize("skew", [-SKEW_SECONDS, 0.0, SKEW_SECONDS])
def test_answer_of_before_is_covered_however_the_clock_of_its_edge_was_wrong(skew: float) -> None:
    book = rulebook(Rule("a", NOW, answer="f"))
    assert not book.allows("a", "f", answer(created=NOW + skew))


def test_answer_that_was_begun_before_is_covered_when_it_ends_long_after() -> None:
    book = rulebook(Rule("a", NOW, answer="f"))
    begun = NOW - 1
    assert not book.allows("a", "f", answer(created=begun + 600, seconds=600))


def test_answer_that_was_begun_after_it_on_any_clock_is_known_again() -> None:
    book = rulebook(Rule("a", NOW, pattern=EVERYTHING))
    assert book.allows("a", "f", answer(created=NOW + SKEW_SECONDS + 6, seconds=5))


def test_generations_are_told_apart_by_the_newest_rule_about_their_question() -> None:
    older, newer = Rule("a", NOW, pattern="*moon*"), Rule("a", NOW + 1, answer="f1")
    book = rulebook(older, newer)
    assert book.stamp("a", "f1", "To the moon", "m", now=NOW + 2) == newer.key
    assert book.stamp("a", "f2", "To the moon", "m", now=NOW + 2) == older.key
    assert book.stamp("a", "f2", "To Mars", "m", now=NOW + 2) == ""


def test_generations_are_not_told_apart_by_what_was_before_any_of_them() -> None:
    book = rulebook(Rule("a", NOW, answer="f"))
    assert book.stamp("a", "f", None, "m", now=NOW + DAY) == ""


def test_question_that_is_made_to_be_slow_to_compare_is_compared() -> None:
    """Whoever tries every way to share out the letters among the stars will not live to see it."""
    book = rulebook(Rule("a", NOW, pattern="*a" * 200 + "*b"))
    assert book.allows("a", "f", answer("a" * 20_000))


def test_rule_survives_being_kept() -> None:
    rule = Rule("a", NOW, pattern="*moon*", model="m")
    assert rule_of(msgspec.to_builtins(rule)) == rule
    assert rule_of({**msgspec.to_builtins(rule), "revoked_at": int(NOW)}) == rule


def test_rule_of_a_later_version_covers_everything_to_be_sure() -> None:
    rule = rule_of({"tenant": "a", "revoked_at": NOW, "about": "something that this version cannot see"})
    assert rule is not None
    assert not rulebook(rule).allows("a", "f", answer())


def test_what_is_no_rule_is_none() -> None:
    assert rule_of({"tenant": "a"}) is None


def after_tidying(rules: dict[str, Rule], *, now: float, life: float = inf, most: int = 500) -> dict[str, Rule]:
    tidying = tidied(rules, now=now, life=life, most=most)
    left = {key: rule for key, rule in rules.items() if key not in tidying.superfluous}
    return left | ({tidying.rule.key: tidying.rule} if tidying.rule else {})


def kept(*rules: Rule) -> dict[str, Rule]:
    return {rule.key: rule for rule in rules}


def test_rule_goes_when_a_newer_one_about_the_same_is_known_everywhere() -> None:
    older, newer = Rule("a", NOW, answer="f"), Rule("a", NOW + 5, answer="f")
    rules = kept(older, newer)
    assert after_tidying(rules, now=NOW + 10) == rules
    assert after_tidying(rules, now=NOW + DAY) == kept(newer)


def test_all_go_when_everything_was_taken_back_later() -> None:
    everything = Rule("a", NOW + 5, pattern=EVERYTHING)
    rules = kept(Rule("a", NOW, answer="f"), Rule("a", NOW + 5, pattern="*moon*", model="m"), everything)
    assert after_tidying(rules, now=NOW + DAY) == kept(everything)


def test_everything_of_one_model_makes_no_rule_about_another_superfluous() -> None:
    rules = kept(Rule("a", NOW, answer="f"), Rule("a", NOW + 5, pattern=EVERYTHING, model="m"))
    assert after_tidying(rules, now=NOW + DAY) == rules


def test_rules_that_every_answer_has_outlived_become_one() -> None:
    rules = kept(*(Rule("a", NOW + i, answer=f"f{i}") for i in range(10)), Rule("a", NOW + 2 * DAY, answer="new"))
    merged = after_tidying(rules, now=NOW + 2 * DAY, life=DAY)
    assert len(merged) == 12
    later = after_tidying(merged, now=NOW + 2 * DAY + 3600, life=DAY)
    assert [(rule.answer, rule.pattern) for rule in later.values()] == [("new", None), (None, EVERYTHING)]
    assert after_tidying(later, now=NOW + 2 * DAY + 3600, life=DAY) == later


def test_while_answers_may_live_for_ever_no_rule_is_given_up() -> None:
    rules = kept(*(Rule("a", NOW + i, answer=f"f{i}") for i in range(10)))
    assert after_tidying(rules, now=NOW + 10_000 * DAY) == rules


def test_too_many_rules_become_fewer_and_still_cover_the_same() -> None:
    rules = kept(*(Rule("a", NOW + i, answer=f"f{i}") for i in range(30)))
    fewer = rules
    for hour in range(1, 4):
        fewer = after_tidying(fewer, now=NOW + 3600 * hour, most=20)
    assert len(fewer) == 11
    book = rulebook(*fewer.values())
    assert not any(book.allows("a", f"f{i}", answer(created=NOW + i)) for i in range(30))


def test_rules_that_others_cover_are_not_asked() -> None:
    """Also while they are still in the table, so that a tenant who revokes without end slows nobody down."""
    many = [Rule("a", NOW + i, answer=f"f{i}") for i in range(5000)]
    book = rulebook(*many, Rule("a", NOW + 4990, pattern=EVERYTHING, merged_at=NOW + 5000))
    assert len(book.asked_of("a")) == 10


def test_rule_that_is_a_little_newer_than_one_about_everything_still_stands() -> None:
    book = rulebook(Rule("a", NOW, pattern=EVERYTHING), Rule("a", NOW + 60, answer="f"))
    assert not book.allows("a", "f", answer(created=NOW + 120))
    assert book.allows("a", "g", answer(created=NOW + 120))
