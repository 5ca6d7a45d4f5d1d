"""Halves of characters that engines send, mended so that the rest of an answer is not lost with them. Pure.

JSON can escape half of a character beyond U+FFFF alone (`"\\ud83d"`), although that is no text and few readers take it.
An engine that cuts its text by UTF-16 units sends the second half with the next event: there the two are joined.
"""

from __future__ import annotations

import re

_HALF = b"\\ufffd"  # U+FFFD stands for what is no character
_ESCAPE = re.compile(
    rb"""\\(?:
        u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}    # a whole character
        | (?P<first>u[dD][89abAB][0-9a-fA-F]{2})
        | (?P<second>u[dD][c-fC-F][0-9a-fA-F]{2})
        | .
    )""",
    re.DOTALL | re.VERBOSE,
)


def may_hold_halves(data: bytes | bytearray) -> bool:
    """Quick, and true of Korean too."""
    return b"\\ud" in data or b"\\uD" in data


def mend(data: bytes) -> bytes:
    """JSON without halves of characters."""
    return _ESCAPE.sub(lambda found: _HALF if found["first"] or found["second"] else found[0], data)


class Mender:
    """Fed the data of every event of one stream that `may_hold_halves`."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first = b""

    def mend(self, data: bytes) -> bytes:
        """JSON without halves of characters. One at the end of a text waits for the other at the start of the next."""
        known, self._first = self._first, b""

        def whole(found: re.Match[bytes]) -> bytes:
            start, end = found.span()
            if found["first"] and data[end : end + 1] == b'"':
                self._first = found[0]
                return b""
            if found["second"] and known and data[start - 1 : start] == b'"':
                return known + found[0]
            return _HALF if found["first"] or found["second"] else found[0]

        return _ESCAPE.sub(whole, data)
