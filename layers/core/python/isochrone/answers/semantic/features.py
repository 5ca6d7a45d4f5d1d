"""What is measured on two questions, beside their cosine, to say how likely one answer serves both.

Every feature is symmetric and about -1 to 4, so one prior variance suits them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log

from isochrone.answers.semantic.guards import kinds
from isochrone.answers.semantic.words import Reading, read, unmatched

NAMES = (
    "one",
    "distance",
    "gap",
    "crowd",
    "overlap",
    "only_one_side",
    "both_sides",
    "little",
    "shared",
    "kind",
    "same_words",
    "length",
)
_MOST = 4.0
_CLOSEST = 0.002
_ALONE = 0.8
# "How can I" and "what is the way to" ask the same.
_COMMON_KINDS = frozenset(("manner", "whether"))


def features(asked: str, known: str, cosine: float, rivals: Sequence[float] = ()) -> tuple[float, ...]:
    """The numbers that NAMES names, in that order. `cosine` is that of their embeddings, `rivals` those of the other
    neighbours: where a topic is crowded, near means little.
    """
    near = [max(_ALONE, rival) for rival in rivals] or [_ALONE]
    return (
        1.0,
        -log(1.0 - cosine + _CLOSEST) - 3.0,
        20.0 * (cosine - max(near)),
        20.0 * (cosine - sum(near) / len(near)),
        *_of_words(asked, known),
    )


@lru_cache(maxsize=1024)
def _of_words(asked: str, known: str) -> tuple[float, ...]:
    """Those that need no embedding."""
    one, other = read(asked), read(known)
    mine, theirs = unmatched(one.content, other.content), unmatched(other.content, one.content)
    strange = len(unmatched(one.little, other.little)) + len(unmatched(other.little, one.little))
    return (
        _overlap(one.text, other.text),
        min(_MOST, abs(len(mine) - len(theirs))),
        min(_MOST, len(mine), len(theirs)),
        min(_MOST, strange / 2),
        log(1.0 + len(one.content) - len(mine)),
        float(bool((kinds(one) ^ kinds(other)) - _COMMON_KINDS)),
        _same_words(one, other),
        abs(log((1 + len(one.text)) / (1 + len(other.text)))),
    )


def _overlap(one: str, other: str) -> float:
    """Dice's coefficient of the pairs of characters."""
    mine, theirs = _pairs(one), _pairs(other)
    return 2 * len(mine & theirs) / (len(mine) + len(theirs) or 1)


def _pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(len(text) - 1)}


def _same_words(one: Reading, other: Reading) -> float:
    """1.0 when the words that carry matter are the same in the same order, 0.5 in another order, else 0.0."""
    if one.content == other.content:
        return 1.0
    return 0.5 if sorted(one.content) == sorted(other.content) else 0.0
