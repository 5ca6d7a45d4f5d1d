"""What a text is about: YAKE (Campos et al. 2020) for languages with spaces, TextRank (Mihalcea and Tarau 2004) over
the words of jieba for Chinese."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from isochrone.light import language

NEEDS = ("yake_rust", "rjieba", *language.NEEDS)
MAX_CHARS = 20_000
_KEYWORDS = 10

_HAN = re.compile("[\u3400-\u9fff]")
# A Han character says about as much as a word of three letters.
_LETTERS_PER_HAN = 3
# Those that YAKE has lists of stop words for, and people write with spaces.
_WITH_SPACES = frozenset("ar da de en es fi fr it nl pl pt ru sv tr".split())  # noqa: SIM905
_SURE = 0.5
_PHRASE_WORDS = 3

# Parts of speech that can be a keyword: nouns and names, verbs, abbreviations, words in Latin letters.
_TELLING = re.compile("n|v|j|eng")
_NEIGHBOURHOOD = 5
_DAMPING = 0.85
_ROUNDS = 10


def run(text: str, _: object = None) -> dict[str, Any]:
    """At most ten keywords, the most telling first, and the language they were looked for in."""
    if _HAN.search(text) and _LETTERS_PER_HAN * len(_HAN.findall(text)) > len(text) / 2:
        return {"keywords": _ranked(text)[:_KEYWORDS], "language": "zh"}
    written_in = _language_of(text)
    found = _extractor(written_in).get_n_best(text, n=_KEYWORDS)
    return {"keywords": [phrase for phrase, _ in found], "language": written_in}


def _language_of(text: str) -> str:
    for best in language.guess(text)[:1]:
        if best.confidence >= _SURE and best.language in _WITH_SPACES:
            return best.language
    return "en"


@cache
def _extractor(written_in: str) -> Any:
    from yake_rust import Yake  # noqa: PLC0415

    return Yake(language=written_in, ngrams=_PHRASE_WORDS)


def _ranked(text: str) -> list[str]:
    """Words by the weight that they lend each other; equals in the order in which they come."""
    neighbours: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    words = list(_telling_words(text))
    for one, other in _pairs(words):
        neighbours[one][other] += 1
        neighbours[other][one] += 1
    weights = dict.fromkeys(words, 1.0)
    lent = {word: sum(found.values()) for word, found in neighbours.items()}
    for _ in range(_ROUNDS):
        weights = {
            word: 1 - _DAMPING + _DAMPING * sum(weights[by] * n / lent[by] for by, n in neighbours[word].items())
            for word in weights
        }
    return sorted(weights, key=weights.__getitem__, reverse=True)


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, word in enumerate(words):
        for other in words[place + 1 : place + _NEIGHBOURHOOD]:
            if other != word:
                yield word, other


def _telling_words(text: str) -> Iterator[str]:
    from rjieba import tag  # noqa: PLC0415

    for word, part_of_speech in tag(text):
        if len(word) > 1 and _TELLING.match(part_of_speech):
            yield word
