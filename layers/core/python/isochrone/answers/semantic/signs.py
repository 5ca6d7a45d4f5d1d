"""What is lost when a question is read as words: operators, raised digits, emoji, factorials, and telling capitals."""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, normalize

from isochrone.answers.semantic.vocabulary import CAPITALS
from isochrone.answers.semantic.words import MAX_CHARACTERS, is_little

_SYMBOLS = frozenset(("Sm", "So", "Sk"))
_SIGNS = frozenset("*/^#@\\")
# Degrees are units, a backtick is a quotation mark, and the rest says who owns a name.
_NO_SIGNS = frozenset("°`´™®©~")
_MINUS = re.compile(r"(?<![\w-])[-\u2212](?=\w)|(?<=\d)\s*[-\u2212]\s*(?=\d)|-(?=[-=>])|(?<=-)-")
_FACTORIAL = re.compile(r"(?:\d|(?<!\w)[^\W\d_])!")
# An end mark that stands for itself: "What does this mean: ?"
_ASKED_ABOUT = re.compile(r"[\s:]([^\w\s])$")
_WORD = re.compile(r"[A-Za-z]+")
_SHORT = 3


def other_signs(asked: str, known: str) -> bool:
    """Whether the two differ in a sign, or each ends with a mark of its own that is not the other's."""
    mine, theirs = _ASKED_ABOUT.search(asked.strip()), _ASKED_ABOUT.search(known.strip())
    return _signs(asked) != _signs(known) or bool(mine and theirs and mine[1] != theirs[1])


@lru_cache(maxsize=2048)
def _signs(text: str) -> tuple[str, ...]:
    """Signs in their order; minus and factorial only where they are no hyphen and no exclamation mark."""
    text = text[:MAX_CHARACTERS]
    plain = [sign for sign in map(_sign, text) if sign]
    return (*plain, "-" * len(_MINUS.findall(text)), "!" * len(_FACTORIAL.findall(text)))


def _sign(character: str) -> str:
    """The sign that a character is, without its width; a raised digit is none but stands for itself. Else empty."""
    if character.isdigit() and not character.isdecimal():
        return character
    plain = normalize("NFKC", character)[:1]
    return plain if plain in _SIGNS or (category(plain) in _SYMBOLS and plain not in _NO_SIGNS) else ""


def other_capitals(asked: str, known: str) -> bool:
    """Mb and MB, IT and it, Polish and polish. Who writes all in capitals, or none, says nothing by them."""
    if asked.isupper() or known.isupper():
        return False
    mine, theirs = _cased(asked), _cased(known)
    return any(word != theirs.get(plain, word) and _matters(word, theirs[plain]) for plain, word in mine.items())


@lru_cache(maxsize=2048)
def _cased(text: str) -> dict[str, str]:
    """Each word as it is written first, by its lower case."""
    return {word.casefold(): word for word in reversed(_WORD.findall(text[:MAX_CHARACTERS]))}


def _matters(one: str, other: str) -> bool:
    plain, either = one.casefold(), (one, other)
    if plain in CAPITALS:
        return True
    if len(plain) > 1 and is_little(plain):
        return any(word.isupper() for word in either)
    return 1 < len(plain) <= _SHORT and not any(word.islower() for word in either)
