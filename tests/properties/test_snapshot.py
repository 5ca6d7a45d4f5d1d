"""Whatever the edges tell each other, and in whatever order: in the end all know the same, and the newest of it."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from isochrone.routing.snapshot import (
    Key,
    Part,
    Snapshot,
    document_of,
    is_worth_writing,
    merge,
    newer,
    snapshot_of,
    stamped,
)

KEYS: list[Key] = [("a", "probe"), ("a", "circuit m"), ("a", "speed m"), ("b", "probe")]

notes = st.dictionaries(
    st.sampled_from(("at", "reason", "openings")), st.integers(0, 2) | st.text(max_size=2), max_size=2
)
parts = st.builds(Part, st.integers(0, 3).map(float), notes)
snapshots = st.dictionaries(st.sampled_from(KEYS), parts)


@given(snapshots, snapshots)
def test_it_makes_no_difference_who_hears_whom(one: Snapshot, other: Snapshot) -> None:
    assert merge(one, other) == merge(other, one)


@given(snapshots, snapshots, snapshots)
def test_it_makes_no_difference_through_whom_a_word_comes(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(snapshots, snapshots)
def test_what_was_heard_already_changes_nothing(one: Snapshot, other: Snapshot) -> None:
    merged = merge(one, other)
    assert merge(merged, other) == merged
    assert not newer(other, merged)
    assert not is_worth_writing(other, merged)


@given(snapshots, snapshots)
def test_no_part_is_lost_and_none_becomes_older(one: Snapshot, other: Snapshot) -> None:
    merged = merge(one, other)
    assert set(merged) == {*one, *other}
    for known in (one, other):
        assert all(merged[key].stamp >= part.stamp for key, part in known.items())


@given(snapshots)
def test_document_says_the_same_and_nothing_of_what_nobody_knows(snapshot: Snapshot) -> None:
    document = document_of(snapshot)
    assert snapshot_of(document, KEYS) == snapshot
    assert set(snapshot_of(document, KEYS[:2])) == set(snapshot) & set(KEYS[:2])


words = st.tuples(st.integers(0, 2), st.sampled_from(KEYS), st.integers(0, 10))


@given(st.lists(words, max_size=30), st.lists(st.integers(-90, 90), min_size=3, max_size=3))
def test_last_word_on_a_part_is_the_last_one_said_whatever_the_clocks(
    said: list[tuple[int, Key, int]], skews: list[int]
) -> None:
    """Three edges with clocks apart by up to three minutes; each hears all before it speaks."""
    now, table, expected = 1000.0, dict[Key, Part](), dict[Key, dict[str, int]]()
    for number, (edge, key, pause) in enumerate(said):
        now += pause
        expected[key] = {"word": number}
        table = merge(table, {key: stamped({"word": number}, now + skews[edge], table.get(key))})
    assert {key: part.note for key, part in table.items()} == expected


@given(st.lists(snapshots, max_size=5), st.randoms(use_true_random=False))
def test_all_edges_end_with_the_same(told: list[Snapshot], random: object) -> None:
    shuffled = sorted(told, key=lambda _: random.random())  # type: ignore[attr-defined]
    empty: Snapshot = {}
    assert reduce(merge, told, empty) == reduce(merge, shuffled, empty)
