"""A text that many read: everybody gets every byte once, whatever is packed meanwhile."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from isochrone.answers import flight_text
from isochrone.answers.flight_text import Cursor, FlightText, without_usage
from tests.upstream import KEEP_ALIVE, USAGE, chunk, event

USAGE_ONLY = event({"choices": [], "usage": USAGE})
AWKWARD = [
    KEEP_ALIVE,
    b"data: [DONE]\n\n",
    b"data: not json with usage\n\n",
    chunk({"content": 'the word "usage" in a text'}),
    chunk({"content": "x"}, usage=None),
    chunk(finish="stop", usage=USAGE),
    b'data: {"usage":\ndata: null,"choices":[]}\n\n',
    b'data:{"choices":[{}]}\r\n\r\n',
    b'data: {"choices":[]}\r\r',
]
USAGES = [USAGE_ONLY, USAGE_ONLY.replace(b"\n\n", b"\r\n\r\n"), b'data: {"usage":{"total_tokens":1}}\n\n']
events = st.lists(st.sampled_from([*AWKWARD, *USAGES]), max_size=12)


@given(events)
def test_exactly_the_events_that_tell_only_the_usage_are_left_out(told: list[bytes]) -> None:
    assert without_usage(b"".join(told)) == b"".join(one for one in told if one not in USAGES)


pieces = st.lists(st.lists(st.sampled_from([*AWKWARD, *USAGES]), min_size=1, max_size=3).map(b"".join), max_size=60)


@given(pieces, st.lists(st.integers(0, 3), max_size=120))
def test_every_reader_gets_every_byte_once_in_whole_events(said: list[bytes], turns: list[int]) -> None:
    """Turn 0 says the next piece, the others read: one of them with usage, one without, one comes late."""
    with patch.object(flight_text, "BLOCK_BYTES", 200):
        text = FlightText()
        cursors = {1: Cursor(text, usage=True), 2: Cursor(text, usage=False)}
        heard: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
        left = list(said)
        for turn in turns:
            if turn == 0 and left:
                text.say(left.pop(0))
            elif turn:
                cursor = cursors.setdefault(turn, Cursor(text, usage=True))
                heard[turn] += filter(None, [cursor.next()])
        for piece in left:
            text.say(piece)
        for turn in (1, 2, 3):
            heard[turn] += iter(cursors.setdefault(turn, Cursor(text, usage=True)).next, None)
        whole = b"".join(said)
        assert text.whole() == whole
        assert [b"".join(heard[turn]) for turn in (1, 2, 3)] == [whole, without_usage(whole), whole]
        assert [cursor.offset for cursor in cursors.values()] == [len(whole)] * 3


def test_a_long_stream_takes_a_tenth_of_its_room() -> None:
    text = FlightText()
    for number in range(20_000):
        text.say(chunk({"content": f" word{number}"}))
    assert text.size > 3_000_000
    assert text.bytes_held < text.size / 10 + 2 * flight_text.BLOCK_BYTES
