"""Are two answers the same answer? Compared to learn whether two questions could have shared one.

Two generations of one model are seldom equal letter by letter, so equality is only the clearest case. Beyond it this is
careful: short answers are judged by what they say outright (numbers, dates, negation, opposites) and by their words;
long ones only when nearly all of their words are the same, or hardly any. Everything else cannot be told, and then
nothing is learned: a wrong lesson costs more than none. Nor from what answers anything, such as "Yes" or "I am sorry":
that two questions share it says nothing of the two.
"""

from __future__ import annotations

import re

from isochrone.answers.semantic.guards import contradiction
from isochrone.answers.semantic.words import normalised, read, unmatched

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}|[\u3400-\u9fff]|\d")
_OPAQUE = re.compile(r"[0-9a-f]{8,}|[0-9a-f-]{32,}")
_YES_OR_NO = frozenset(
    ("yes", "no", "not", "yeah", "nope", "sure", "true", "false", "correct", "不", "对", "否", "没", "行")
)
_REFUSAL = re.compile(
    r"(?:i am |i'm |we are )?(?:very |so )?sorry|unfortunately|i apologi[sz]e|as an ai"
    r"|i (?:can't|cannot|can not|am unable|am not able|'?m not able|don't|do not)\b"
    "|(?:很|非常)?抱歉|对不起|我(?:无法|不能|不知道|没有)|作为"
)
_SHORT_WORDS = 12
_SAME_SHARE, _OTHER_SHORT, _OTHER_LONG = 0.9, 0.5, 0.15
_NEAR = 0.9


def agree(one: str, other: str, cosine: float | None = None) -> bool | None:
    """Whether two answers say the same, None when that cannot be told. `cosine`: of their embeddings, if there are any.

    What a model thought before it answered is left out. Only the first 600 characters are compared word by word.
    """
    one, other = (normalised(_REASONING.sub("", text)) for text in (one, other))
    if not one or not other:
        return None
    if one != other and (_is_opaque(one) or _is_opaque(other)):
        return None
    said = one == other or _compared(one, other)
    if said and _answers_anything(one):
        return None
    if said is None or cosine is None:
        return said
    return said if said == (cosine >= _NEAR) else None


def _compared(one: str, other: str) -> bool | None:
    """By the words that carry matter."""
    mine, theirs = read(one).content, read(other).content
    missing, added = unmatched(mine, theirs), unmatched(theirs, mine)
    share = 1.0 - (len(missing) + len(added)) / (len(mine) + len(theirs) or 1)
    short = max(len(mine), len(theirs)) <= _SHORT_WORDS
    same = bool(mine) and not missing and not added if short else share >= _SAME_SHARE
    if (short or same) and contradiction(one, other):
        return False
    if same:
        return True
    return False if missing and added and share <= (_OTHER_SHORT if short else _OTHER_LONG) else None


def _answers_anything(text: str) -> bool:
    return _YES_OR_NO.issuperset(read(text).content) or bool(_REFUSAL.match(text))


def _is_opaque(text: str) -> bool:
    """A digest or an identifier: that two of them differ says nothing."""
    return not _WORD.search(text) or bool(_OPAQUE.fullmatch(text))
