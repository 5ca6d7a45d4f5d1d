"""What may be kept and for how long, by operator, model, key and question."""

from __future__ import annotations

from math import inf

import pytest

from isochrone.answers.inquiry import asked_last, revisions_of
from isochrone.answers.terms import NOTHING, Terms, TermsBook
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask
from isochrone.settings import OwnAnswers, Settings, parse

WORLD = """
[[region]]
name = "eu-west-1"
[[backend]]
name = "one"
base_url = "http://127.0.0.1:1/v1"
models = { big = "big-7b", small = "small-1b" }
[[backend]]
name = "two"
base_url = "http://127.0.0.1:2/v1"
models = { big = "big-7b-awq" }
"""


def book(text: str = "") -> TermsBook:
    return TermsBook(settings(text))


def settings(text: str = "") -> Settings:
    return parse(WORLD + text)


def test_answers_are_kept_for_a_day_unless_something_else_is_said() -> None:
    assert book().terms("big", "What is a fox?") == Terms(exact=True, coalesce=True, ttl=86_400)


def test_a_model_may_have_its_own_terms_and_a_key_overrules_it() -> None:
    terms = book('[[model]]\nname = "big"\nanswers = { ttl = 60, semantic = true, coalesce = false }')
    own = OwnAnswers(ttl=5)
    assert terms.terms("big", "x", own=own) == Terms(exact=True, semantic=True, coalesce=False, ttl=5)
    assert terms.terms("small", "x").ttl == 86_400


def test_nothing_of_a_private_key_is_kept_whatever_else_is_said() -> None:
    terms = book('[[answers.rule]]\nname = "all"\npattern = "."\nttl = "forever"')
    assert terms.terms("big", "x", private=True) == NOTHING


def test_a_key_without_exact_answers_has_no_semantic_ones_either() -> None:
    terms = book("[answers]\nsemantic = true")
    assert terms.terms("big", "x").semantic
    assert not terms.terms("big", "x", own=OwnAnswers(exact=False)).semantic


@pytest.mark.parametrize(
    "text",
    ["weather in Oslo?", "the LATEST python?", "concurrent news.", "Next weekend", "今天几号", "What is美元汇率"],
)
def test_questions_about_now_are_true_for_a_short_time(text: str) -> None:
    assert book().terms("big", text).ttl == 300


@pytest.mark.parametrize(
    "text", ["What is a fox?", "renewable energy", "concurrent newspapers", "this weeks", "知名作家", None]
)
def test_other_questions_are_true_for_as_long_as_the_operator_says(text: str | None) -> None:
    assert book("[answers]\nttl = 77").terms("big", text).ttl == 77


def test_of_a_long_text_only_both_ends_are_read() -> None:
    filler = "a fox " * 2_000
    assert book().terms("big", f"What is new today? {filler}").ttl == 300
    assert book().terms("big", f"{filler} What is new today?").ttl == 300
    assert book().terms("big", f"{filler} today {filler}").ttl == 86_400


def test_a_short_ttl_is_not_made_longer_by_a_question_about_now() -> None:
    assert book("[answers]\nttl = 7").terms("big", "today").ttl == 7


def test_the_first_rule_that_fits_decides_also_over_a_question_about_now() -> None:
    terms = book("""
[[answers.rule]]
name = "hours"
models = ["small"]
pattern = "opening hours"
ttl = "forever"
[[answers.rule]]
name = "small"
models = ["small"]
ttl = 0
""")
    assert terms.terms("small", "the Opening Hours today").ttl == inf
    assert terms.terms("small", "What is a fox?").ttl == 0
    assert terms.terms("small", None).ttl == 0
    assert terms.terms("big", "opening hours").ttl == 86_400


def test_an_answer_past_its_time_is_worth_keeping_for_the_longer_of_both_graces() -> None:
    terms = book("[answers]\nstale_while_revalidate = 10\nstale_if_error = 3600").terms("big", "x")
    assert (terms.revalidate, terms.on_error, terms.grace) == (10, 3600, 3600)


def chat(*messages: dict[str, object]) -> Ask:
    return Ask(CHAT, "big", False, False, {"model": "big", "messages": list(messages)})


def test_what_was_asked_last_is_the_text_of_the_last_user_turn() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert asked_last(chat({"role": "system", "content": "s"}, {"role": "user", "content": "q"})) == "q"
    assert asked_last(chat({"role": "user", "content": parts})) == "a\nb"
    assert asked_last(Ask(COMPLETION, "big", False, False, {"prompt": "q"})) == "q"


def test_what_is_no_plain_text_was_not_asked() -> None:
    picture = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert asked_last(chat({"role": "user", "content": picture})) is None
    assert asked_last(chat({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})) is None
    assert asked_last(Ask(COMPLETION, "big", False, False, {"prompt": ["a", "b"]})) is None
    assert asked_last(Ask(EMBEDDING, "big", False, False, {"input": "q"})) is None


def test_another_revision_or_another_name_at_a_backend_is_another_model() -> None:
    usual = revisions_of(settings())
    stated = revisions_of(settings('[[model]]\nname = "big"\nrevision = "2"'))
    renamed = revisions_of(parse(WORLD.replace("big-7b-awq", "big-8b-awq")))
    assert len({usual["big"], stated["big"], renamed["big"]}) == 3
    assert usual["small"] == stated["small"] == renamed["small"]


def test_no_pattern_takes_longer_than_its_text_is_long() -> None:
    terms = book('[[answers.rule]]\nname = "trap"\npattern = "(a+)+$"\nttl = 7')
    assert terms.terms("big", "a" * 3_000 + "!").ttl == 86_400  # Python's own would not come back
    assert terms.terms("big", "A" * 3_000).ttl == 7
