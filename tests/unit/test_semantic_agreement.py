"""Whether two answers say the same, as far as that can be told."""

from __future__ import annotations

import pytest

from isochrone.answers.semantic.agreement import agree

LONG = " ".join(f"sentence about subject{chr(97 + n)}{chr(97 + n)}{chr(97 + n)}" for n in range(20))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "paris."),
        ("<think>Let me see</think>Paris", "Paris"),
        ("You can reset it in the settings", "You could reset it in settings"),
        (LONG, LONG + " indeed"),
    ],
)
def test_equal_but_for_what_carries_no_matter_is_the_same(one: str, other: str) -> None:
    assert agree(one, other) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Canberra", "Sydney"),
        ("Yes, you can", "No, you can not"),
        ("It takes 3 days", "It takes 5 days"),
        ("The train leaves Paris for Rome", "The train leaves Rome for Paris"),
        ("answer 17", "answer 31"),
        ("堪培拉", "悉尼"),
        (LONG + " on Monday", LONG + " on Sunday"),
        (LONG, " ".join(f"other words{chr(97 + n)}{chr(97 + n)}{chr(97 + n)}" for n in range(20))),
    ],
)
def test_what_contradicts_or_has_nothing_in_common_is_different(one: str, other: str) -> None:
    assert agree(one, other) is False
    assert agree(other, one) is False


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("", "Paris"),
        ("", ""),
        ("Canberra", "The capital of Australia is Canberra"),
        ("It opens at 9 am", "It opens at 9 am on weekdays"),
        ("a1b2c3d4e5f6", "00ff11ee22dd"),
        (LONG, " ".join(LONG.split()[:30]) + " and much more that nobody said before in this place, all new material"),
    ],
)
def test_what_cannot_be_told_teaches_nothing(one: str, other: str) -> None:
    assert agree(one, other) is None


def test_words_and_embeddings_must_not_contradict_each_other() -> None:
    assert agree("Canberra", "Sydney", cosine=0.97) is None
    assert agree("Canberra", "Sydney", cosine=0.8) is False
    assert agree("You can reset it", "You could reset it", cosine=0.7) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Yes.",
        "No, you can not.",
        "True",
        "可以",
        "不可以。",
        "I'm sorry, but I can't help with that.",
        "抱歉，我无法回答。",
    ],
)
def test_what_answers_anything_teaches_nothing_about_two_questions(answer: str) -> None:
    assert agree(answer, answer) is None


def test_what_answers_anything_may_still_differ() -> None:
    assert agree("Yes.", "No.") is False
