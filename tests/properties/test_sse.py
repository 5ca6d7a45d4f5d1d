"""However a stream of events is framed and cut, what a client decodes from it is the same."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.api import sse
from isochrone.api.sse import Event, EventTooLong, SseDecoder

LINE_ENDS = (b"\n", b"\r\n", b"\r")
# U+2028, U+0085 and the vertical tab end lines for str.splitlines, but not in an event stream.
texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\u2028\u0085\x0b🌍字: ")))
data_lines = texts.map(lambda text: text.replace("\r", "").replace("\n", ""))
comments = data_lines.map(lambda text: ":" + text)
other_fields = st.builds(
    lambda name, text: f"{name}: {text}", st.sampled_from(["id", "event", "retry", "x"]), data_lines
)


def framed(event: tuple[list[str], list[str]], end: bytes) -> tuple[bytes, bytes | None]:
    """An event's bytes, and the data that it carries."""
    lines, datas = event
    written = [*lines, *(f"data: {data}" for data in datas)]
    data = "\n".join(datas).encode() if datas else None
    return b"".join(line.encode() + end for line in written) + end, data


def decoded(chunks: list[bytes]) -> tuple[list[Event], bool]:
    decoder = SseDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    rest, cut = decoder.close()
    return events + rest, cut


def cut_at(whole: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[a:b] for a, b in pairwise(edges)]


events = st.lists(
    st.tuples(st.lists(comments | other_fields, max_size=2), st.lists(data_lines, max_size=3)), max_size=6
)
written_events = events.map(lambda found: [event for event in found if event[0] or event[1]])
places = st.lists(st.integers(0, 10_000), max_size=30)


@given(written_events, st.sampled_from(LINE_ENDS), st.booleans(), places)
@settings(max_examples=300)
def test_events_are_the_same_wherever_the_stream_is_cut(
    found: list[tuple[list[str], list[str]]], end: bytes, bom: bool, places: list[int]
) -> None:
    pairs = [framed(event, end) for event in found]
    whole = (b"\xef\xbb\xbf" if bom else b"") + b"".join(raw for raw, _ in pairs)
    events, cut = decoded(cut_at(whole, places))
    assert [event.data for event in events] == [data for _, data in pairs]
    assert not cut


@given(st.binary(max_size=400), places)
@settings(max_examples=300)
def test_any_bytes_decode_the_same_wherever_they_are_cut(whole: bytes, places: list[int]) -> None:
    datas = [[event.data for event in decoded(chunks)[0]] for chunks in ([whole], cut_at(whole, places))]
    assert datas[0] == datas[1]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"data:", b" ", b"x", b": c", b"\xef\xbb\xbf"])), places)
@settings(max_examples=500)
def test_bytes_of_all_events_joined_are_the_stream_that_came(pieces: list[bytes], places: list[int]) -> None:
    whole = b"data: first\n\n" + b"".join(pieces)
    decoder = SseDecoder()
    joined = b"".join(event.raw for chunk in cut_at(whole, places) for event in decoder.feed(chunk))
    assert whole.startswith(joined)
    rest, _ = decoder.close()
    joined += b"".join(event.raw for event in rest)
    # A CR at the very end could have been half of a CRLF: closing completes it.
    assert whole.startswith(joined) or joined == whole + b"\n"


@given(written_events.filter(len), st.sampled_from(LINE_ENDS), st.data())
@settings(max_examples=200)
def test_stream_cut_inside_an_event_says_so_and_never_shows_the_half(
    found: list[tuple[list[str], list[str]]], end: bytes, data: st.DataObject
) -> None:
    pairs = [framed(event, end) for event in found]
    whole = b"".join(raw for raw, _ in pairs)
    last = pairs[-1][0].rstrip(b"\r\n")
    keep = data.draw(st.integers(1, len(last)), label="bytes of the last event")
    events, cut = decoded([whole[: len(whole) - len(pairs[-1][0]) + keep]])
    assert cut
    assert [event.data for event in events] == [data for _, data in pairs[:-1]]


def test_hundred_thousand_cuts_change_nothing() -> None:
    """One long stream in all three framings, cut anew until 10^5 places were tried."""
    chance = random.Random(20261123)
    texts = ["", "plain", "é🌍字", "a\u2028b\u0085c\x0bd", ": no comment", "data: nested", " leading", "x" * 3000]
    for end in LINE_ENDS:
        pairs = [framed(([": c"] if i % 3 == 0 else [], [*texts[: i % 4], text]), end) for i, text in enumerate(texts)]
        whole = b"\xef\xbb\xbf" + b"".join(raw for raw, _ in pairs)
        expected = [data for _, data in pairs]
        for _ in range(34):
            places = [chance.randrange(len(whole)) for _ in range(1000)]
            events, cut = decoded(cut_at(whole, places))
            assert ([event.data for event in events], cut) == (expected, False)


@pytest.mark.parametrize("end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_event_of_a_mebibyte_is_whole_in_chunks_of_any_size(end: bytes) -> None:
    raw, data = framed(([], ["🌍" * 2**18]), end)
    for size in (1460, 65_536, 2**20):
        events, cut = decoded([raw[at : at + size] for at in range(0, len(raw), size)])
        assert ([event.data for event in events], cut) == ([data], False)


def test_event_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    decoder = SseDecoder()
    decoder.feed(b"data: " + b"x" * 94)
    with pytest.raises(EventTooLong):
        decoder.feed(b"x")
