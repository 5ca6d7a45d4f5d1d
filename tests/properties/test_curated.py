"""What holds for any curated answers: files give back what they took, and each question finds its own answer."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from isochrone.answers.curated.book import CuratedBook
from isochrone.answers.curated.entry import Entry, faults, sayings
from isochrone.answers.curated.question import normalised
from isochrone.answers.curated.sheet import read, to_csv, to_jsonl
from isochrone.ledger.usage import estimate

texts = st.text(st.characters(codec="utf-8"), max_size=30)
names = st.from_regex(r"[a-z][a-z0-9/-]{0,8}", fullmatch=True)
variables = st.dictionaries(st.sampled_from(["city", "城市"]), st.lists(texts, min_size=1, max_size=3).map(tuple))


# Other tests may want the machine at the same time, and most random texts are no entry.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def entry_of(**fields: Any) -> Entry:
    return Entry(**fields)


entries = st.builds(
    entry_of,
    id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    phrasings=st.lists(texts | st.just("in {city}"), min_size=1, max_size=3).map(tuple),
    answer=texts,
    tenants=st.lists(names, max_size=2).map(tuple),
    models=st.lists(names, max_size=2).map(tuple),
    language=st.sampled_from(["", "en", "zh-Hans"]),
    expires=st.sampled_from(["", "2026-12-31", "2026-12-31T18:00+01:00"]),
    variables=variables,
).filter(lambda entry: not list(faults(entry)))


@unhurried
@given(st.lists(entries, max_size=4, unique_by=lambda entry: entry.id))
def test_whatever_may_be_written_is_read_again_from_either_kind_of_file(written: list[Entry]) -> None:
    for name, content in (("a.csv", to_csv(written)), ("a.jsonl", to_jsonl(written))):
        assert [row.entry for row in read(content, name=name)] == written


@unhurried
@given(texts)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@unhurried
@given(entries)
def test_every_question_of_an_entry_finds_one_of_its_answers_to_it(entry: Entry) -> None:
    book = CuratedBook([entry], estimate=estimate)
    whose = {"tenant": next(iter(entry.tenants), "t"), "model": next(iter(entry.models), "m")}
    told = [(normalised(saying.question), saying.answer) for saying in sayings(entry)]
    for question, answer in sayings(entry):
        found = book.standard_for(f"  {question.upper()} ?", **whose, now=0)
        if normalised(question) != normalised(question.upper()):
            continue  # some letters have no capitals, or several
        assert found is not None
        assert (normalised(question), found.answer) in told
        assert answer in [standard.answer for standard in book.candidates()]


@unhurried
@given(entries, st.integers(1, 9))
def test_version_makes_no_difference_to_what_is_said(entry: Entry, version: int) -> None:
    assert structs.replace(entry, version=version).says_the_same_as(entry)
