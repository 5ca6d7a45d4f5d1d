"""Standard questions put in another way: which ones are still the same, and which never are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isochrone.answers.curated.book import CuratedBook
from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.wording import Wordings, put_in_other_words
from isochrone.answers.terms import Terms
from isochrone.ledger.usage import estimate
from tests.unit.test_curated_book import NOW, inquiry, said

TWINS = Path(__file__).parents[1] / "data"
SEMANTIC = Terms(semantic=True)


def book_of(*phrasings: str) -> CuratedBook:
    entries = [Entry(id=f"e{i}", phrasings=(phrasing,), answer="x") for i, phrasing in enumerate(phrasings)]
    return CuratedBook(entries, estimate=estimate, likeness=Wordings)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("What are your opening hours?", "Hi, what are the opening hours please"),
        ("What are your opening hours?", "Could you tell me: what are your opening hours?"),
        ("How do I reset my password?", "how to reset my password, thanks!"),
        ("How do I reset my password?", "Hello. How can I reset my password please?"),
        ("Where is the office?", "Where's your office?"),
        ("I can't log in", "I cannot log in."),
        ("How do I get a refund?", "What is the process to get a refund?"),
        ("Which free apps are the best to learn Spanish?", "What are the best free apps for learning Spanish?"),
        ("学生可以贷款吗", "学生能不能贷款"),
        ("你们的营业时间是什么?", "您好,请问营业时间是啥呢?"),
        ("如何重置密码?", "请问怎么重置 密码呀"),
        ("你们什么时候开门", "你们何时开门"),
    ],
)
def test_question_put_in_another_way_has_the_standard_answer_where_similar_ones_do(known: str, asked: str) -> None:
    similar = inquiry(asked)._replace(terms=SEMANTIC)
    found = book_of(known).look_up(similar, now=NOW)
    assert said(found) == "x"
    assert found is not None
    assert found.why == "curated e0 version 1, similar question"
    assert book_of(known).look_up(inquiry(asked), now=NOW) is None


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("What are your opening hours?", "What are your closing hours?"),
        ("What are your opening hours?", "What are not your opening hours?"),
        ("What do you sell?", "What do I sell?"),
        ("Do I pay you?", "Do you pay me?"),
        ("flights from Paris to Rome", "flights from Rome to Paris"),
        ("How do I log in?", "How do I log out?"),
        ("How do I reset my password?", "Can I reset my password?"),
        ("How do I reset my password?", "How do I reset your password?"),
        ("How old are you?", "How are you?"),
        ("Is 5 enough?", "Is 6 enough?"),
        ("你能帮我吗", "我能帮你吗"),
        ("C++ courses", "C courses"),
        ("How do I accept a contract?", "How do I access a contract?"),
        ("Is personal data kept?", "Is personnel data kept?"),
        ("如何开户", "如何销户"),
        ("我能给你打电话吗", "你能给我打电话吗"),
        ("可以退款吗", "不可以退款吗"),
        ("Please", "Hello"),
    ],
)
def test_question_that_only_looks_alike_never_has_it(known: str, asked: str) -> None:
    for one, other in ((known, asked), (asked, known)):
        assert book_of(one).look_up(inquiry(other)._replace(terms=SEMANTIC), now=NOW) is None


def test_question_that_two_entries_could_answer_is_left_to_a_model() -> None:
    both = book_of("What is the price?", "What is your price?")
    assert both.look_up(inquiry("what's a price")._replace(terms=SEMANTIC), now=NOW) is None
    assert said(both.look_up(inquiry("what is your price")._replace(terms=SEMANTIC), now=NOW)) == "x"


@pytest.mark.parametrize("question", ["", "please", "请", "how are you", "???"])
def test_question_of_little_words_alone_is_known_in_the_same_words_only(question: str) -> None:
    assert not put_in_other_words(question, "Who are you?")
    assert not put_in_other_words("Who are you?", question)


def test_entry_for_one_tenant_answers_no_other_in_whatever_words() -> None:
    own = CuratedBook(
        [Entry(id="a", phrasings=("How to pay?",), answer="x", tenants=("a",))], estimate=estimate, likeness=Wordings
    )
    assert own.look_up(inquiry("how do i pay", tenant="a")._replace(terms=SEMANTIC), now=NOW)
    assert own.look_up(inquiry("how do i pay", tenant="b")._replace(terms=SEMANTIC), now=NOW) is None


@pytest.mark.parametrize(("language", "least"), [("en", 60), ("zh", 60)])
def test_no_twin_is_taken_for_the_question_that_it_looks_like(language: str, least: int) -> None:
    lines = (TWINS / f"twins_{language}.jsonl").read_text(encoding="utf-8").splitlines()
    twins = [json.loads(line) for line in lines]
    taken = [(one["ask"], other) for one in twins for other in one["other"] if put_in_other_words(other, one["ask"])]
    assert taken == []
    assert sum(put_in_other_words(same, one["ask"]) for one in twins for same in one["same"]) >= least
