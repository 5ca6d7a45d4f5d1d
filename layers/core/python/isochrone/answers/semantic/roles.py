"""Who does what to whom, and from where to where: two questions of the same words may have it the other way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

from isochrone.answers.semantic.vocabulary import PERSONS
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
# "Replace milk with water" has a direction, "mix milk with water" has none.
_EXCHANGES = ("replac", "substitut", "exchang")
_SUBJECT_AND_OBJECT = (("i", "me"), ("we", "us"), ("he", "him"), ("they", "them"))
# "Tell me how": the person has no part in what is asked.
_ADDRESSED = frozenset(("tell", "show", "give", "help", "let", "for", "to"))
_INTERROGATIVES = frozenset(("who", "whom", "which", "what"))
_DO_SUPPORT = frozenset(("do", "does", "did"))


def reversed_roles(one: Reading, other: Reading) -> bool:
    """Whether two things have changed places."""
    mine = _marks(one)
    theirs = [next((word for word in mine if alike(word, mark)), mark) for mark in _marks(other)]
    return (
        _other_ends(mine, theirs)
        or _other_voice(mine, theirs)
        or _other_order(mine, theirs)
        or _exchanged(one.tokens, other.tokens)
        or _other_deed(one.tokens, other.tokens)
        or _other_object(one.tokens, other.tokens)
    )


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
    if _of_another_grammar(mine, theirs):
        return False
    here, there = _places(mine), _places(theirs)
    placed = [(here[word], there[word]) for word in here if word in there and word not in _DIRECTED | _SYMMETRIC]
    return any(
        b_after < b and _turned(set(mine[a + 1 : a_after]), set(theirs[b_after + 1 : b]))
        for (a, b), (a_after, b_after) in combinations(placed, 2)
    )


def _of_another_grammar(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    return any(mine.count(word) != theirs.count(word) for word in (_PASSIVE, _PASSIVE_CHINESE, _GENITIVE))


def _turned(between: set[str], between_there: set[str]) -> bool:
    return bool(between & between_there) and not _SYMMETRIC & (between | between_there)


def _places(tokens: list[str]) -> dict[str, int]:
    """Where each word stands that occurs once."""
    return {token: place for place, token in enumerate(tokens) if tokens.count(token) == 1}


def _exchanged(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Of the words that both have, two that carry matter stand in each other's place around the same words."""
    if _of_another_grammar(mine, theirs):
        return False
    mine, theirs = mine[:_MOST_WORDS], theirs[:_MOST_WORDS]
    theirs = [word if word in mine else next((one for one in mine if alike(one, word)), word) for word in theirs]
    here, there = Counter(mine), Counter(theirs)
    both = {word for word in here if here[word] == there[word]}
    one, other = _without_ends([w for w in mine if w in both], [w for w in theirs if w in both])
    length = len(one)
    return any(
        one[:a] == other[length - a :] and one[a : length - b] == other[b : length - a]
        for b in range(1, length - 1)
        if other[:b] == one[length - b :] and _is_party(other[:b])
        for a in range(1, length - b)
        if _is_party(one[:a]) and _is_directed(one[a : length - b], mine)
    )


def _without_ends(one: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """Without what both begin and end with."""
    while one and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return one, other


_ASKING = frozenset(
    (
        "how",
        "what",
        "why",
        "when",
        "where",
        "which",
        "怎么",
        "怎样",
        "如何",
        "为什么",
        "什么",
        "哪",
        "哪个",
        "哪里",
        "多少",
    )
)


def _is_party(words: Sequence[str]) -> bool:
    """Whether they name somebody or something, and are no "how do I". An article alone is the letter A."""
    named = words == ["a"] or any(word in PERSONS or not is_little(word) for word in words)
    return named and _ASKING.isdisjoint(words)


_COPULAS = frozenset(("is", "are", "was", "were", "是", "离", "距"))


def _is_directed(between: Sequence[str], text: Sequence[str]) -> bool:
    exchange = any(word.startswith(_EXCHANGES) for word in text)
    ties = (_SYMMETRIC | _COPULAS) - ({"with"} if exchange else set())
    return ties.isdisjoint(between)


def _other_deed(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Who killed Hamlet; whom did Hamlet kill."""
    return {_asks_for_the_doer(mine), _asks_for_the_doer(theirs)} == {True, False}


def _asks_for_the_doer(tokens: Sequence[str]) -> bool | None:
    """True for who does it, False for whom it is done to, None where that is not what is asked or not clear."""
    if not tokens or tokens[0] not in _INTERROGATIVES:
        return None
    if _DO_SUPPORT.intersection(tokens[1:4]):
        return False
    noun = tokens[0] in ("which", "what")
    following = tokens[1 : 3 if noun else 2]
    return True if following and not any(map(is_little, following)) else None


def _other_object(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """How do I teach my son; how does my son teach me."""
    here, there = _parts(mine), _parts(theirs)
    return any({here[pair], there[pair]} == {(True, False), (False, True)} for pair in _SUBJECT_AND_OBJECT)


def _parts(tokens: Sequence[str]) -> dict[tuple[str, str], tuple[bool, bool]]:
    addressed = {word for before, word in pairwise(tokens) if before in _ADDRESSED}
    return {
        (one, other): (one in tokens, other in tokens and other not in addressed) for one, other in _SUBJECT_AND_OBJECT
    }
