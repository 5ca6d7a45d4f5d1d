"""Whatever one hand does to an audit log whose ends are known, the check finds it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isochrone.audit.verification import verify
from tests.audits import placed, written

LOG = [*written(6), *written(4, writer="w2")]
HEADS = verify(placed(LOG)).heads


def intact(text: bytes) -> bool:
    return verify(placed([line for line in text.split(b"\n") if line]), HEADS).is_intact


TEXT = b"\n".join(LOG) + b"\n"


def test_it_is_intact_to_begin_with() -> None:
    assert intact(TEXT)


@given(st.integers(0, len(TEXT) - 2), st.integers(0, 255))
def test_any_one_changed_byte_is_found(where: int, byte: int) -> None:
    changed = TEXT[:where] + bytes([byte]) + TEXT[where + 1 :]
    assert intact(changed) == (changed == TEXT)


@given(st.integers(0, len(TEXT) - 2), st.integers(1, 2000))
def test_any_bytes_that_are_taken_out_are_found(where: int, count: int) -> None:
    changed = TEXT[:where] + TEXT[where + count :]
    assert intact(changed) == (changed.strip() == TEXT.strip())


@given(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=20).filter(lambda put: put.strip(b"\n") != b""))
def test_any_bytes_that_are_put_in_are_found(where: int, put: bytes) -> None:
    assert not intact(TEXT[:where] + put + TEXT[where:])


@given(st.integers(0, len(LOG) - 1), st.integers(0, len(LOG) - 1))
def test_lines_that_change_places_are_found_within_one_writer_and_harmless_between_two(one: int, other: int) -> None:
    lines = [*LOG]
    lines[one], lines[other] = lines[other], lines[one]
    in_order = all(
        [line for line in lines if b'"writer":"%s"' % writer in line]
        == [line for line in LOG if b'"writer":"%s"' % writer in line]
        for writer in (b"w1", b"w2")
    )
    assert intact(b"\n".join(lines)) == in_order


@given(st.lists(st.integers(0, len(LOG) - 1), max_size=6))
def test_lines_that_are_delivered_again_later_are_harmless(again: list[int]) -> None:
    assert intact(b"\n".join([*LOG, *(LOG[number] for number in again)]))
