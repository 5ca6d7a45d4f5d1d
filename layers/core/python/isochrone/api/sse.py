"""Server-sent events, decoded incrementally over bytes (WHATWG HTML, section 9.2.6).

Only LF, CRLF and CR end a line: text may hold U+2028 and U+0085, and a chunk may end inside a character, so nothing
is decoded to text here. `feed` gives whole events with their own bytes, so that a relay can pass on exactly what came.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
# A blank line ends an event: two line ends in a row. A CR at the very end may be half of a CRLF: wait for more.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_LONGEST_END = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event: `raw` is its bytes with the blank line, `data` its data lines joined by LF (None: comment only)."""

    raw: bytes
    data: bytes | None


class EventTooLong(ValueError):
    """More than MAX_EVENT_BYTES came without an end of event."""


class SseDecoder:
    """Feed it chunks cut anywhere; it gives back the events that are whole."""

    __slots__ = ("_buffer", "_started")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order. Raises EventTooLong."""
        if self._started and not self._buffer and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            return _plain_events(chunk)
        # An end can straddle the old bytes and the new ones, but not reach further back than its own length.
        unscanned = max(0, len(self._buffer) - _LONGEST_END)
        self._buffer += chunk
        if not self._started and not self._skip_bom():
            return []
        events = self._take_events(unscanned)
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> tuple[list[Event], bool]:
        """At the end of the stream: (what a last lone CR completes, True when the stream was cut inside an event)."""
        ended = self._buffer.endswith((b"\r\r", b"\n\r"))
        events = self.feed(b"\n") if ended else []
        return events, bool(self._buffer.strip(b"\r\n"))

    def _skip_bom(self) -> bool:
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._started = True
        return True

    def _take_events(self, unscanned: int) -> list[Event]:
        events, start = [], 0
        while found := _EVENT_END.search(self._buffer, max(start, unscanned)):
            raw = bytes(self._buffer[start : found.end()])
            start = found.end()
            events.append(Event(raw, _data_of(raw)))
        del self._buffer[:start]
        return events


def _plain_events(chunk: bytes) -> list[Event]:
    """Of whole events whose lines end with LF: nearly every chunk of a real engine, and most often only one event."""
    if chunk.find(b"\n") == len(chunk) - 2 and chunk.startswith(b"data: "):
        return [Event(chunk, chunk[6:-2])]
    return [Event(lines + b"\n\n", _data_of(lines)) for lines in chunk[:-2].split(b"\n\n")]


def _data_of(raw: bytes) -> bytes | None:
    """The values of the data lines (one leading space removed), joined by LF."""
    if raw.startswith(b"data: ") and b"\n" not in raw and b"\r" not in raw:
        return raw[6:]
    lines = []
    for line in _LINE_END.split(raw):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None
