"""Who does what to whom, and from where to where: two questions of the same words may have it the other way round."""

from __future__ import annotations

from itertools import combinations, pairwise

from isochrone.answers.semantic.words import Reading, alike, is_little

_SYMMETRIC = frozenset(
    ("and", "or", "vs", "versus", "with", "between", "和", "与", "跟", "或", "或者", "还是", "同", "以及")
)
_DIRECTED = frozenset(("to", "from", "than", "for", "before", "after", "over", "under", "against", *"到从给比把对向于"))
_GENITIVE = "of"
_PASSIVE, _PASSIVE_CHINESE, _ACTIVE_CHINESE = "by", "被", "把"
_TOWARDS, _FROM = frozenset(("to", *"到至往去飞")), frozenset(("from", *"从自"))
_SAME_ROLE = {"into": "to", "onto": "to", "将": "把"}
_MOST_WORDS = 40


def reversed_roles(one: Reading, other: Reading) -> bool:
    """Whether two things have changed places."""
    mine = _marks(one)
    theirs = [next((word for word in mine if alike(word, mark)), mark) for mark in _marks(other)]
    return _other_ends(mine, theirs) or _other_voice(mine, theirs) or _other_order(mine, theirs)


def _marks(reading: Reading) -> list[str]:
    """The words that carry matter, and those that say what they do to each other."""
    tokens = [_SAME_ROLE.get(token, token) for token in reading.tokens]
    kept = _DIRECTED | _SYMMETRIC | _TOWARDS | {_GENITIVE, _PASSIVE, _PASSIVE_CHINESE}
    return [token for token in tokens if token in kept or not is_little(token)][:_MOST_WORDS]


def _other_ends(mine: list[str], theirs: list[str]) -> bool:
    """What one goes to is what the other comes from, or what the other has elsewhere while it goes to another."""
    for side in (_TOWARDS, _FROM):
        here, there = _after(mine, side), _after(theirs, side)
        if here and there and not here & there and here <= set(theirs) and there <= set(mine):
            return True
    return bool(_after(mine, _TOWARDS) & _after(theirs, _FROM) or _after(mine, _FROM) & _after(theirs, _TOWARDS))


def _after(tokens: list[str], side: frozenset[str]) -> set[str]:
    return {word for mark, word in pairwise(tokens) if mark in side and word not in _DIRECTED and not is_little(word)}


def _other_voice(mine: list[str], theirs: list[str]) -> bool:
    """Alice paid Bob; Alice was paid by Bob. 拉黑好友 (把好友拉黑); 被好友拉黑."""
    if (_PASSIVE_CHINESE in mine) != (_PASSIVE_CHINESE in theirs):
        return _ACTIVE_CHINESE in mine or _ACTIVE_CHINESE in theirs
    if (_PASSIVE in mine) == (_PASSIVE in theirs):
        return False
    passive, active = (mine, theirs) if _PASSIVE in mine else (theirs, mine)
    at = passive.index(_PASSIVE)
    around = passive[max(0, at - 2) : at] + passive[at + 1 : at + 2]
    whom_deed_doer = [active.index(word) for word in around if word in active]
    return len(whom_deed_doer) == 3 and whom_deed_doer == sorted(whom_deed_doer)


def _other_order(mine: list[str], theirs: list[str]) -> bool:
    """Two words changed places around something that both texts say between them.

    "Java faster than Python" and "Python faster than Java" have "faster than" between them; "账户怎么解冻" and
    "怎么解冻账户" have only moved the topic; "London and New York" may be said in any order. Where one text alone has a
    passive or a genitive, another order is what grammar asks for.
    """
    if any(mine.count(word) != theirs.count(word) for word in (_PASSIVE, _PASSIVE_CHINESE, _GENITIVE)):
        return False
    here, there = _places(mine), _places(theirs)
    placed = [(here[word], there[word]) for word in here if word in there and word not in _DIRECTED | _SYMMETRIC]
    return any(
        b_after < b and _turned(set(mine[a + 1 : a_after]), set(theirs[b_after + 1 : b]))
        for (a, b), (a_after, b_after) in combinations(placed, 2)
    )


def _turned(between: set[str], between_there: set[str]) -> bool:
    return bool(between & between_there) and not _SYMMETRIC & (between | between_there)


def _places(tokens: list[str]) -> dict[str, int]:
    """Where each word stands that occurs once."""
    return {token: place for place, token in enumerate(tokens) if tokens.count(token) == 1}
