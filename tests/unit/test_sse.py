"""What the rules of event streams say about single lines, and about how a stream begins and ends."""

from __future__ import annotations

import pytest

from isochrone.api import sse
from isochrone.api.sse import Event, EventTooLong, SseDecoder

FIRST = b"data: first\n\n"


@pytest.fixture
def decoder() -> SseDecoder:
    """In the middle of a stream."""
    decoder = SseDecoder()
    decoder.feed(FIRST)
    return decoder


@pytest.mark.parametrize(
    ("lines", "data"),
    [
        (b"data:x", b"x"),
        (b"data: x", b"x"),
        (b"data:  x", b" x"),
        (b"data:", b""),
        (b"data: ", b""),
        (b"data", b""),
        (b"data\ndata", b"\n"),
        (b"data: a\ndata\ndata:b", b"a\n\nb"),
        (b"database: x", None),
        (b"DATA: x", None),
        (b": data: x", None),
        (b"id: 7", None),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_data_of_an_event_is_what_its_data_lines_say(
    decoder: SseDecoder, lines: bytes, data: bytes | None, end: bytes
) -> None:
    raw = lines.replace(b"\n", end) + 2 * end
    events = [*decoder.feed(raw), *decoder.close()[0]]
    assert [event.data for event in events] == [data]


@pytest.mark.parametrize("raw", [b"data: x\n\n", b"data:x\n\n", b"id: 7\ndata: x\n\n", b"data: x\r\n\r\n"])
def test_bytes_of_an_event_are_those_that_came(decoder: SseDecoder, raw: bytes) -> None:
    assert decoder.feed(raw) == [Event(raw, b"x")]
    assert decoder.feed(2 * raw) == 2 * [Event(raw, b"x")]


def test_events_of_one_chunk_may_end_their_lines_differently(decoder: SseDecoder) -> None:
    events = decoder.feed(b"data: a\r\n\r\ndata: b\r\rdata: c\n\n")
    assert [event.data for event in events] == [b"a", b"b", b"c"]


def test_blank_line_too_many_belongs_to_no_data(decoder: SseDecoder) -> None:
    assert [event.data for event in decoder.feed(b"data: x\n\n\n") if event.data is not None] == [b"x"]
    assert [event.data for event in decoder.feed(b"data: y\n\n") if event.data is not None] == [b"y"]


def test_blank_lines_that_keep_a_connection_open_are_passed_on_at_once() -> None:
    assert SseDecoder().feed(b"\n\n") == [Event(b"\n\n", None)]


def test_byte_order_mark_is_skipped_only_at_the_beginning(decoder: SseDecoder) -> None:
    assert decoder.feed(b"\xef\xbb\xbfdata: x\n\n")[0].data is None
    fresh = SseDecoder()
    assert [event for byte in b"\xef\xbb\xbfdata: x\n\n" for event in fresh.feed(bytes([byte]))] == [
        Event(b"data: x\n\n", b"x")
    ]


@pytest.mark.parametrize("end", [b"\r\r", b"\n\r", b"\r\n\r"])
def test_lone_carriage_return_at_the_very_end_ends_the_last_event(decoder: SseDecoder, end: bytes) -> None:
    """It could have been half of a CRLF for as long as more could come."""
    assert decoder.feed(b"data: x" + end) == []
    events, cut = decoder.close()
    assert ([event.data for event in events], cut) == ([b"x"], False)


@pytest.mark.parametrize("rest", [b"d", b"X", b" ", b"\t", b"data: half", b"data: half\n", b"data: half\r\n"])
def test_rest_without_an_end_is_a_cut(decoder: SseDecoder, rest: bytes) -> None:
    assert decoder.feed(rest) == []
    assert decoder.close() == ([], True)


@pytest.mark.parametrize("rest", [b"", b"\n", b"\r\n", b"\r"])
def test_single_line_end_after_the_last_event_is_no_cut(decoder: SseDecoder, rest: bytes) -> None:
    decoder.feed(rest)
    assert decoder.close() == ([], False)


def test_event_that_is_too_long_is_said_to_be(decoder: SseDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words stand in the ledger and in the error that the client gets."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    with pytest.raises(EventTooLong, match="an event of more than 100 bytes"):
        decoder.feed(b"data: " + b"x" * 95)
