"""How questions are read without a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.answers.semantic.words import DIMENSIONS, alike, normalised, read, sketch, unmatched


def cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(sketch(one), sketch(other), strict=True))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("What is Rust?", "what is rust"),
        ("  What   is\tRust ", "what is rust"),
        ("ｗｈａｔ ｉｓ ｒｕｓｔ？", "what is rust"),
        ("What’s Rust?", "what's rust"),
        ("怎么重置密码？", "怎么重置密码"),
    ],
)
def test_what_never_changes_an_answer_is_left_out(text: str, other: str) -> None:
    assert normalised(text) == normalised(other) == other


def test_accents_and_inner_punctuation_stay() -> None:
    assert normalised("résumé") != normalised("resume")
    assert normalised("3.14") != normalised("314")


@given(st.text(max_size=200))
def test_a_sketch_has_unit_length_whatever_is_asked(text: str) -> None:
    vector = sketch(text)
    assert len(vector) == DIMENSIONS
    length = sum(number * number for number in vector)
    assert length == 0.0 or length == pytest.approx(1.0)


def test_a_sketch_is_the_same_in_another_process() -> None:
    program = "from isochrone.answers.semantic.words import sketch; print(sketch('How do I reset 密码?'))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(sketch("How do I reset 密码?"))


def test_a_paraphrase_lies_nearer_than_another_question() -> None:
    asked = "How do I reset my password?"
    assert cosine(asked, "how can i reset my password") > 0.9
    assert cosine(asked, "I forgot my password, how do I reset it") > cosine(asked, "How do I boil an egg?") + 0.3
    assert cosine("怎么重置密码", "如何重置密码") > cosine("怎么重置密码", "怎么煮鸡蛋") + 0.3


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "cats"), ("pregnant", "pregnancy"), ("invented", "inventor"), ("lose", "lose"), ("bank", "banking")],
)
def test_forms_of_a_word_are_alike(one: str, other: str) -> None:
    assert alike(one, other)
    assert alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("austria", "australia"), ("serbia", "siberia"), ("java", "javascript"), ("2023", "2024"), ("in", "is")],
)
def test_different_words_are_not_alike(one: str, other: str) -> None:
    assert not alike(one, other)


def test_each_word_answers_for_one_only() -> None:
    assert unmatched(("water", "water", "tea"), ("water",)) == ["water", "tea"]


def test_little_words_say_how_something_is_asked() -> None:
    assert read("How can I reset my password?").content == ("reset", "password")
    assert read("请问怎么重置密码呢").content == tuple("重置密码")


def test_irregular_forms_are_read_as_their_word() -> None:
    assert read("Who bought it?").tokens == read("Who buy it?").tokens


def test_the_united_states_are_not_us() -> None:
    assert "usa" in read("Do I need a visa for the US?").content
    assert "usa" not in read("Can you help us?").content


def test_a_long_text_is_read_in_part() -> None:
    assert len(read("word " * 10_000).tokens) <= 120
