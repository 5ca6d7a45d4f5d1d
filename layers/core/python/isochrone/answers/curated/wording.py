"""Questions that differ only in how they are put: the strictest kind of similarity, decided without a model.

Every word that carries matter must be there, in the same order, but for its endings. Only little words may differ,
which say how something is asked; of these, some carry matter after all ("log in", "log out"), and so does who does
something to whom ("do I pay you"). What else might differ is left to the guards of semantic answers.

The lists were made on public pairs and on pairs of our own with twins that only look alike: of 4,350 questions that are
another one, the rule took one for the same. docs/curated.md has the figures.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from isochrone.answers.curated.book import Standard
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.words import Reading, read

_PERSONS = {
    **dict.fromkeys(("i", "me", "my", "mine", "we", "us", "our"), 1),
    **dict.fromkeys(("我", "我们", "我想", "帮我", "给我", "告诉我"), 1),
    **dict.fromkeys(("you", "your", "你", "你们", "您"), 2),
    **dict.fromkeys(("he", "him", "his", "she", "her", "they", "them", "their", "他", "她", "他们"), 3),
}
_MATTER_TOO = (
    frozenset({"in", "out", "up", "off", "on", "only", "again", "best", "old", "far", "long", "often", "else", "than"})
    | {"and", "or", "if", "use", "used", "someone", "somebody", "one", "possible", "allowed", "must", "need", "want"}
    | {"上", "里", "还", "要", "不"}
)
_SUFFIX = re.compile(r"(?<=[a-z]{3})(?:ing|ed|es|s)$")
_LAST = re.compile(r"e$|(?<=([b-df-hj-np-tv-z]))\1$")


def put_in_other_words(asked: str, known: str) -> bool:
    """Do the two ask the same, but for how it is put?"""
    one, other = read(asked), read(known)
    return (
        _matter(one) == _matter(other) != ()
        and _little_that_matter(one) == _little_that_matter(other)
        and _one_in_the_other(_persons(one), _persons(other))
        and objection(asked, known) is None
    )


class Wordings:
    """Standard questions by the words that carry their matter."""

    def __init__(self, standards: Iterable[Standard]) -> None:
        self._by_words: dict[tuple[str, ...], list[Standard]] = defaultdict(list)
        for standard in standards:
            self._by_words[_matter(read(standard.question))].append(standard)

    def standard_for(self, question: str, *, tenant: str, model: str, now: float) -> Standard | None:
        """Who answers a question that is put in other words; None also where several could."""
        found = [
            standard
            for standard in self._by_words.get(_matter(read(question)), ())
            if standard.applies(tenant, model, now) and put_in_other_words(question, standard.question)
        ]
        nearest = min((standard.generality for standard in found), default=None)
        best = {standard.id: standard for standard in found if standard.generality == nearest}
        return best.popitem()[1] if len(best) == 1 else None


def _matter(reading: Reading) -> tuple[str, ...]:
    """The words that carry matter, each without its endings: opened, opening, opens."""
    return tuple(_LAST.sub("", _SUFFIX.sub("", word)) for word in reading.content)


def _little_that_matter(reading: Reading) -> list[str]:
    return [word for word in reading.little if word in _MATTER_TOO]


def _persons(reading: Reading) -> list[int]:
    return [_PERSONS[word] for word in reading.little if word in _PERSONS]


def _one_in_the_other(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether the shorter is left of the longer when some are taken out: "tell me how I pay", "how do I pay"."""
    shorter, longer = sorted((one, other), key=len)
    rest = iter(longer)
    return all(person in rest for person in shorter)
