"""Are two answers the same answer? Compared to learn whether two questions could have shared one.

Two generations of one model are hardly ever equal letter by letter, so equality is only the clearest case. The rest is
decided conservatively: what both say outright (numbers, dates, negation, opposites, names, code) must not contradict,
and enough of it must be the same. Where neither is clear, nothing is learned.
"""

from __future__ import annotations

import re

from isochrone.answers.semantic.guards import contradiction
from isochrone.answers.semantic.words import normalised, read, unmatched

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)
_SAME_SHARE, _OTHER_SHARE = 0.8, 0.35
_SAME_COSINE, _OTHER_COSINE = 0.97, 0.86
_SHORT = 3


def agree(one: str, other: str, cosine: float | None = None) -> bool | None:
    """Whether two answers say the same, None when that cannot be told. `cosine`: of their embeddings, if there are any.

    What a model thought before it answered is left out.
    """
    one, other = (normalised(_REASONING.sub("", text)) for text in (one, other))
    if one == other:
        return True
    if not one or not other or contradiction(one, other):
        return False
    share = _share(one, other)
    if share >= _SAME_SHARE and (cosine is None or cosine >= _SAME_COSINE):
        return True
    if share <= _OTHER_SHARE and (cosine is None or cosine <= _OTHER_COSINE):
        return False
    return None


def _share(one: str, other: str) -> float:
    """Which share of the words that carry matter both have (Dice's coefficient)."""
    mine, theirs = read(one).content, read(other).content
    missing = len(unmatched(mine, theirs)) + len(unmatched(theirs, mine))
    return 1.0 - missing / (len(mine) + len(theirs) or 1)
