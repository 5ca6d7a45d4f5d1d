from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.upstream.surrogates import Mender, may_hold_halves, mend


@pytest.mark.parametrize(
    ("data", "mended"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDE00 a"', rb'"\ufffd a"'),
        (rb'"a \uD83D b"', rb'"a \ufffd b"'),
        (rb'"\ude00\ud83d"', rb'"\ufffd\ufffd"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\ud55c\uae00"', rb'"\ud55c\uae00"'),
        ('"😀 한글"'.encode(), '"😀 한글"'.encode()),
    ],
)
def test_half_a_character_becomes_one_that_stands_for_it(data: bytes, mended: bytes) -> None:
    assert mend(data) == mended


@pytest.mark.parametrize(
    ("first", "second", "mended"),
    [
        (rb'"a\ud83d"', rb'"\ude00b"', [rb'"a"', rb'"\ud83d\ude00b"']),
        (rb'"a\ud83d"', rb'"b\ude00"', [rb'"a"', rb'"b\ufffd"']),
        (rb'"a\ud83d b"', rb'"\ude00"', [rb'"a\ufffd b"', rb'"\ufffd"']),
        (rb'"\ud83d"', rb'"\ud83d"', [rb'""', rb'""']),
    ],
)
def test_halves_at_the_seam_of_two_events_are_joined(first: bytes, second: bytes, mended: list[bytes]) -> None:
    mender = Mender()
    assert [mender.mend(first), mender.mend(second)] == mended


def test_first_half_waits_for_the_next_event_only() -> None:
    mender = Mender()
    assert [mender.mend(data) for data in (rb'"\ud83d"', rb'"\ud55c"', rb'"\ude00"')][-1] == rb'"\ufffd"'


@given(st.text(st.characters(), max_size=20))
def test_whatever_is_said_can_be_read_once_it_is_mended(said: str) -> None:
    data = json.dumps(said).encode()
    assert may_hold_halves(data) or "\\ud" not in data.decode()
    expected = said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(mend(data)) == expected


@given(st.text(st.characters(min_codepoint=0x1F300, max_codepoint=0x1F6FF) | st.characters(codec="ascii")))
def test_text_cut_anywhere_by_utf_16_units_is_whole_again(said: str) -> None:
    units = said.encode("utf-16-le")
    mender = Mender()
    pieces = [units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)]
    told = [json.dumps(piece).encode() for piece in pieces]
    assert "".join(json.loads(mender.mend(one) if may_hold_halves(one) else one) for one in told) == said
