"""What detectors give: where in a text something stands, and what it is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple

from isochrone.patterns import Pattern

# By each detector, in one request. Each costs some 10 us, and a body may be full of them.
MOST_LOOKED_AT = 10_000

# Is `text[start:end]`, which looks like it, what it looks like?
Check = Callable[[str, int, int], bool]


class Found(NamedTuple):
    """`text[start:end]` is personal data; `label` is what its placeholder is called."""

    start: int
    end: int
    label: str


class TooMuch(ValueError):
    """More looks like personal data than can be looked at while others wait."""


class Detector(NamedTuple):
    """`pattern` finds what looks like it: its last group that fits, or all where it has none. `check` decides."""

    label: str
    pattern: Pattern
    check: Check

    def find(self, text: str) -> Iterator[Found]:
        """In the order of the text. Raises TooMuch."""
        for count, match in enumerate(self.pattern.finditer(text)):
            if count == MOST_LOOKED_AT:
                raise TooMuch
            start, end = match.span(match.lastindex or 0)
            if self.check(text, start, end):
                yield Found(start, end, self.label)


class Finder:
    """Several detectors. Of two that find something in one place, that is right which begins earlier; of those that
    begin together, the one that is named first."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = detectors

    def find(self, text: str) -> list[Found]:
        """In the order of the text, none over another. Takes time linear in the length of the text. Raises TooMuch."""
        if not text.isascii():
            text = plain_digits(text)
        claims = [one for detector in self._detectors for one in detector.find(text)]
        found: list[Found] = []
        for one in sorted(claims, key=_start_of):
            if not found or one.start >= found[-1].end:
                found.append(one)
        return found

    def find_in(self, texts: Sequence[str]) -> list[list[Found]]:
        """What is found in each, at the cost of one text. Raises TooMuch."""
        every: list[list[Found]] = [[] for _ in texts]
        begins = list(accumulate((len(text) + len(_BETWEEN) for text in texts), initial=0))
        for one in self.find(_BETWEEN.join(texts)):
            at = bisect_right(begins, one.start) - 1
            every[at].append(Found(one.start - begins[at], one.end - begins[at], one.label))
        return every

    def holds(self, texts: Sequence[str]) -> bool:
        """Is there anything in one of them?"""
        try:
            return bool(self.find(_BETWEEN.join(texts)))
        except TooMuch:
            return True


# No shape goes over it.
_BETWEEN = "\n\0\n"
_start_of = attrgetter("start")

# Chinese input methods write digits as wide as characters: U+FF10 to U+FF19, and U+FF20 for the @.
_WIDE = {0xFF10 + digit: str(digit) for digit in range(10)} | {0xFF20: "@", 0xFF0B: "+", 0xFF0D: "-"}
_WIDE_SIGNS = frozenset(map(chr, _WIDE))


def plain_digits(text: str) -> str:
    """The same text, as long as before, with wide digits and signs as ASCII has them."""
    return text if _WIDE_SIGNS.isdisjoint(text) else text.translate(_WIDE)
