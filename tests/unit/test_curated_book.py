from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isochrone.answers.completion import replay_body, replay_stream
from isochrone.answers.curated import book
from isochrone.answers.curated.book import BookError, CuratedBook
from isochrone.answers.curated.entry import Entry, expiry_of
from isochrone.answers.inquiry import Inquiry, asked_last
from isochrone.answers.known import Known
from isochrone.answers.terms import Terms
from isochrone.api.controls import CacheMode
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Operation, parse
from isochrone.api.shape import Guard
from isochrone.ledger.usage import estimate
from isochrone.settings import Limits

NOW = 1_800_000_000.0
HOURS = Entry(id="hours", phrasings=("When are you open?", "营业时间？"), answer="From 9 to 5.", version=3)


def book_of(*entries: Entry) -> CuratedBook:
    return CuratedBook(entries, estimate=estimate, written=NOW - 60)


def inquiry(
    question: str = "When are you open?",
    *,
    tenant: str = "t",
    operation: Operation = CHAT,
    mode: CacheMode = CacheMode.USE,
    **fields: Any,
) -> Inquiry:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": question}]}
    if operation is COMPLETION:
        asked = {"model": "m", "prompt": question}
    if operation is EMBEDDING:
        asked = {"model": "m", "input": question}
    ask = parse(operation, msgspec.json.encode(asked | fields), None, Guard(Limits()))
    return Inquiry(tenant, ask, None, asked_last(ask), Terms(), mode)


def said(known: Known | None) -> str | None:
    return known and known.answer.body["choices"][0]["message"]["content"]


def test_question_in_the_words_of_a_phrasing_has_the_standard_answer() -> None:
    known = book_of(HOURS).look_up(inquiry(), now=NOW)
    assert known is not None
    assert (known.mark, known.tier, known.stale_for, known.why) == (
        "curated/hours",
        "curated",
        0.0,
        "curated hours version 3",
    )
    assert (known.answer.backend, known.answer.created, known.answer.operation) == ("curated", NOW - 60, "chat")
    assert said(known) == "From 9 to 5."


@pytest.mark.parametrize(
    "words",
    [
        "when are you open",
        "  WHEN are\nyou  open ?!",
        "Ｗhen are you open．．．",
        "营业时间",
        "营业时间?",
        "营业时间 。",
    ],
)
def test_capitals_spaces_width_and_punctuation_at_the_end_make_no_difference(words: str) -> None:
    assert said(book_of(HOURS).look_up(inquiry(words), now=NOW)) == "From 9 to 5."


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("When are you open?", "When are you not open?"),
        ("What is 5?", "What is 5!"),
        ("What is 52?", "What is 5²?"),
        ("What is C?", "What is C#?"),
        ("What is C?", "What is C++?"),
        ("Is it 5?", "Is it 5%?"),
        ("résumé?", "resume?"),
    ],
)
def test_other_question_has_no_standard_answer(known: str, asked: str) -> None:
    assert book_of(Entry(id="a", phrasings=(known,), answer="x")).look_up(inquiry(asked), now=NOW) is None


def test_curly_apostrophe_is_an_apostrophe() -> None:
    assert book_of(Entry(id="a", phrasings=("What's up?",), answer="x")).look_up(inquiry("what’s up"), now=NOW)


def test_filled_placeholder_is_repeated_as_the_operator_wrote_it() -> None:
    cities = Entry(
        id="c", phrasings=("hours in {city}?",), answer="{city}: 9 to 5", variables={"city": ("Rome", "Milan")}
    )
    assert said(book_of(cities).look_up(inquiry("hours in MILAN"), now=NOW)) == "Milan: 9 to 5"
    assert book_of(cities).look_up(inquiry("hours in Paris"), now=NOW) is None


HARMLESS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "sampling": {"temperature": 1, "top_p": 0.5, "seed": 7, "presence_penalty": 1},
    "stream": {"stream": True, "stream_options": {"include_usage": True}},
    "one choice": {"n": 1},
    "empty tools": {"tools": [], "tool_choice": None, "logprobs": False},
    "text": {"response_format": {"type": "text"}},
    "system prompt": {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "when are you open"}]
    },
    "text parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "when are you open"}]}]},
    "enough room": {"max_tokens": 50},
}
NOT_PLAIN: dict[str, dict[str, Any]] = {
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {}}},
    "choices": {"n": 2},
    "logprobs": {"logprobs": True},
    "stop": {"stop": ["9"]},
    "unknown field": {"translate_to": "fr"},
    "too little room": {"max_tokens": 2},
    "too little room for an answer": {"max_completion_tokens": 2, "max_tokens": 50},
    "image": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "when are you open"}, {"type": "image_url"}]}
        ]
    },
    "earlier turns": {
        "messages": [
            {"role": "user", "content": "Tell me of the moon."},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "when are you open"},
        ]
    },
    "two questions": {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "when are you open"}]},
    "begun answer": {
        "messages": [{"role": "user", "content": "when are you open"}, {"role": "assistant", "content": "From"}]
    },
}


@pytest.mark.parametrize("fields", HARMLESS.values(), ids=HARMLESS)
def test_field_that_leaves_it_a_plain_question_changes_nothing(fields: dict[str, Any]) -> None:
    assert book_of(HOURS).look_up(inquiry(**fields), now=NOW)


@pytest.mark.parametrize("fields", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_request_for_more_than_a_plain_answer_has_no_standard_answer(fields: dict[str, Any]) -> None:
    assert book_of(HOURS).look_up(inquiry(**fields), now=NOW) is None


@pytest.mark.parametrize("mode", CacheMode)
def test_caller_who_wants_a_models_own_answer_gets_no_standard_one(mode: CacheMode) -> None:
    known = book_of(HOURS).look_up(inquiry(mode=mode), now=NOW)
    assert (known is not None) is (mode in (CacheMode.USE, CacheMode.ONLY))


def test_completion_is_answered_in_its_own_shape_and_an_embedding_not_at_all() -> None:
    known = book_of(HOURS).look_up(inquiry(operation=COMPLETION), now=NOW)
    assert known is not None
    assert known.answer.body["object"] == "text_completion"
    assert known.answer.body["choices"][0]["text"] == "From 9 to 5."
    assert book_of(HOURS).look_up(inquiry(operation=EMBEDDING), now=NOW) is None


@pytest.mark.parametrize("operation", [CHAT, COMPLETION])
def test_standard_answer_replays_as_body_and_as_stream(operation: Operation) -> None:
    known = book_of(HOURS).look_up(inquiry(operation=operation), now=NOW)
    assert known is not None
    body = msgspec.json.decode(replay_body(known.answer, request_id="r", now=NOW))
    assert body["id"].endswith("-r")
    assert body["model"] == "m"
    assert body["usage"]["completion_tokens"] > 0
    stream = replay_stream(known.answer, request_id="r", now=NOW, include_usage=True)
    assert b"From 9 to 5." in stream
    assert stream.endswith(b"data: [DONE]\n\n")


def test_entry_answers_only_for_its_tenants_and_models() -> None:
    own = book_of(Entry(id="a", phrasings=("Hi",), answer="x", tenants=("team-a", "team-b"), models=("m",)))
    assert own.look_up(inquiry("hi", tenant="team-b"), now=NOW)
    assert own.look_up(inquiry("hi", tenant="team-c"), now=NOW) is None
    assert own.look_up(inquiry("hi", tenant="team-a", model="other"), now=NOW) is None


def test_entry_for_some_goes_before_one_for_all() -> None:
    entries = [
        Entry(id="all", phrasings=("Hi",), answer="to all"),
        Entry(id="model", phrasings=("Hi",), answer="for m", models=("m",)),
        Entry(id="tenant", phrasings=("Hi",), answer="for a", tenants=("a",)),
        Entry(id="both", phrasings=("Hi",), answer="for a and m", tenants=("a",), models=("m",)),
    ]
    whole = book_of(*entries)
    for tenant, model, answer in (
        ("x", "y", "to all"),
        ("x", "m", "for m"),
        ("a", "y", "for a"),
        ("a", "m", "for a and m"),
    ):
        assert said(whole.look_up(inquiry("hi", tenant=tenant, model=model), now=NOW)) == answer


def test_expired_entry_is_not_known_and_leaves_its_place_to_a_general_one() -> None:
    special = Entry(id="sale", phrasings=("Hi",), answer="Sale!", tenants=("t",), expires="2026-12-31")
    general = Entry(id="usual", phrasings=("Hi",), answer="Hello.")
    end = expiry_of(special)
    assert said(book_of(special, general).look_up(inquiry("hi"), now=end - 1)) == "Sale!"
    assert said(book_of(special, general).look_up(inquiry("hi"), now=end)) == "Hello."
    assert book_of(special).look_up(inquiry("hi"), now=end) is None


RIVALS = [
    ({}, {}, True),
    ({"tenants": ("a", "b")}, {"tenants": ("b", "c")}, True),
    ({"tenants": ("a",)}, {"tenants": ("b",)}, False),
    ({"tenants": ("a",)}, {}, False),
    ({"tenants": ("a",), "models": ("m",)}, {"tenants": ("a",), "models": ("n",)}, False),
    ({"models": ("m",)}, {"models": ("n", "m")}, True),
]


@pytest.mark.parametrize(("one", "other", "refused"), RIVALS)
def test_two_answers_to_one_question_for_the_same_people_are_refused(
    one: dict[str, Any], other: dict[str, Any], refused: bool
) -> None:
    entries = [
        Entry(id="a", phrasings=("Hi!",), answer="x", **one),
        Entry(id="b", phrasings=("hi",), answer="y", **other),
    ]
    if not refused:
        assert len(list(book_of(*entries).candidates())) == 2
        return
    with pytest.raises(
        BookError, match="'hi' is answered by 'a' and by 'b', for the same tenants and models"
    ) as caught:
        book_of(*entries)
    assert caught.value.ids == ("a", "b")


def test_entry_that_says_the_same_phrasing_twice_is_no_rival_of_itself() -> None:
    assert said(book_of(Entry(id="a", phrasings=("Hi", "hi!"), answer="x")).look_up(inquiry("HI"), now=NOW)) == "x"


def test_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_ENTRIES", 2)
    with pytest.raises(BookError, match="more than 2 curated answers"):
        book_of(*(Entry(id=f"e{i}", phrasings=(str(i),), answer="x") for i in range(3)))
    monkeypatch.setattr(book, "MAX_QUESTIONS", 2)
    with pytest.raises(BookError, match="more than 2 questions"):
        book_of(Entry(id="a", phrasings=("1", "2", "3"), answer="x"))
