"""What holds for any curated answers: files give back what they took, and each question finds its own answer."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from isochrone.answers.curated.entry import Entry, faults
from isochrone.answers.curated.question import normalised
from isochrone.answers.curated.sheet import read, to_csv, to_jsonl

texts = st.text(st.characters(codec="utf-8"), max_size=30)
names = st.from_regex(r"[a-z][a-z0-9/-]{0,8}", fullmatch=True)
variables = st.dictionaries(st.sampled_from(["city", "城市"]), st.lists(texts, min_size=1, max_size=3).map(tuple))


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


@settings(deadline=None)
@given(st.lists(entries, max_size=4, unique_by=lambda entry: entry.id))
def test_whatever_may_be_written_is_read_again_from_either_kind_of_file(written: list[Entry]) -> None:
    for name, content in (("a.csv", to_csv(written)), ("a.jsonl", to_jsonl(written))):
        assert [row.entry for row in read(content, name=name)] == written


@given(texts)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(entries, st.integers(1, 9))
def test_version_makes_no_difference_to_what_is_said(entry: Entry, version: int) -> None:
    assert structs.replace(entry, version=version).says_the_same_as(entry)
