"""What similarity cannot see: reasons why a known answer cannot be the answer, however near the two questions are.

Each guard compares one thing that both questions say outright: code, language, numbers with their units, dates, the
kind of question, negation, opposites, the roles of two things, names. A guard objects only when it is sure that the
two differ; it never vouches that they mean the same. Embeddings of opposites lie as near as those of synonyms, which
is why no threshold can replace this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise

from isochrone.answers.semantic.amounts import other_numbers, other_units
from isochrone.answers.semantic.roles import reversed_roles
from isochrone.answers.semantic.signs import other_capitals, other_signs
from isochrone.answers.semantic.vocabulary import (
    CALENDAR,
    FAILURES_CHINESE,
    KINDS_CHINESE,
    KINDS_ENGLISH,
    LANGUAGES,
    NEGATIONS_CHINESE,
    NEGATIONS_ENGLISH,
    NOT_NEGATIONS_CHINESE,
    OPPOSITES_CHINESE,
    OPPOSITES_ENGLISH,
    QUALITIES,
    UNDOING,
    UNITS,
    VARIANTS,
)
from isochrone.answers.semantic.words import MAX_CHARACTERS, Reading, alike, is_little, read

_CODE = re.compile(
    r"```|[{}]|=>|==|\w\((?!e?s\))[\w, ]*\)|(?<!\S)[-+]{1,2}[A-Za-z][\w-]*|;\s*\n|</?\w+>|https?://|\w+@\w+\.|[A-Za-z]:\\|(?<!\w)/\w+/\w+"
)


@lru_cache(maxsize=1024)
def objection(asked: str, known: str) -> str | None:
    """Why the answer to `known` cannot be given to `asked`, in a word; None when nothing speaks against it."""
    if asked.strip() == known.strip():
        return None
    if reason := _other_spelling(asked, known):
        return reason
    one, other = read(asked), read(known)
    if one.text == other.text:
        return None
    if one.chinese != other.chinese:
        return "language"
    differences = (reason for reason, differ in _GUARDS if differ(one, other))
    return next(differences, None) or ("names" if _other_names(asked, known) else None)


def _other_spelling(asked: str, known: str) -> str | None:
    """What also tells apart questions of the same words."""
    if _CODE.search(asked) or _CODE.search(known):
        return "code"
    if other_signs(asked, known):
        return "signs"
    return "capitals" if other_capitals(asked, known) else None


def contradiction(one: str, other: str) -> bool:
    """Whether two answers (not questions) differ in what they say outright."""
    differences = (other_numbers, other_units, _other_dates, _negated, _opposed, reversed_roles)
    return any(differ(read(one), read(other)) for differ in differences)


# --- words that name one of a few ------------------------------------------------------------------------------------


def _named(table: dict[str, str]) -> Callable[[Reading], frozenset[str]]:
    """What a text names of a table; Chinese by the longest form."""
    forms = re.compile("|".join(sorted((form for form in table if not form.isascii()), key=len, reverse=True)))

    def names(reading: Reading) -> frozenset[str]:
        found = {table[token] for token in reading.tokens if token in table and token.isascii()}
        if reading.chinese:
            found |= {table[match] for match in forms.findall(reading.text)}
        return frozenset(found)

    return lru_cache(maxsize=2048)(names)


_dates = _named(CALENDAR)
_languages = _named(LANGUAGES)
_units_named = _named({form: unit for form, unit in UNITS.items() if len(form) > 1 and form not in ("am", "pm")})


def _other_dates(one: Reading, other: Reading) -> bool:
    return _dates(one) != _dates(other)


def _other_languages(one: Reading, other: Reading) -> bool:
    """The language of the answer. "French" may also be what somebody is."""
    mine, theirs = _languages(one), _languages(other)
    asked_for = one.chinese or _in_a_language(one) or _in_a_language(other)
    return mine != theirs and (asked_for or bool(mine and theirs))


def _in_a_language(reading: Reading) -> bool:
    return any(word == "in" and name in LANGUAGES for word, name in pairwise(reading.tokens))


def _other_measures(one: Reading, other: Reading) -> bool:
    """Metres against feet: each names a measure that the other does not."""
    mine, theirs = _units_named(one), _units_named(other)
    return bool(mine - theirs) and bool(theirs - mine)


# --- the kind of question --------------------------------------------------------------------------------------------


# "When will it arrive" is answered by how long it takes.
_MOMENTS = frozenset(("time", "duration"))
_WHETHER = frozenset(("whether",))
_WHETHER_ENGLISH = re.compile(
    r"(?:is|are|was|were|am|do|does|did|may|should|has|have|(?:can|could|will|would)(?! you)) "
)
_WHETHER_CHINESE = re.compile(r"吗|(?!有没有|好不好)(\w{1,2})[不没]\1|是否|能否|可否|没有$|了没$")
_HOW_IT_IS = re.compile("怎么样$|如何$")


@lru_cache(maxsize=2048)
def kinds(reading: Reading) -> frozenset[str]:
    """Which kind of answer is asked for: reason, time, place, person, amount, duration, frequency, manner; or only
    whether something is so. More than one where the first question word can mean several; none where there is none.
    """
    if reading.chinese:
        found = _first_kind(_HOW_IT_IS.sub("", reading.text), KINDS_CHINESE)
        return found or (_WHETHER if _WHETHER_CHINESE.search(reading.text) else found)
    text = " ".join(reading.tokens)
    return _WHETHER if _WHETHER_ENGLISH.match(text) else _earliest_kinds(f" {text} ")


def _earliest_kinds(text: str) -> frozenset[str]:
    """The kinds that are asked for first. "How" alone asks for the manner, "how long" does not."""
    places = {kind: [text.find(f" {form} ") for form in forms] for kind, forms in KINDS_ENGLISH}
    first = {kind: min((at for at in found if at >= 0), default=len(text)) for kind, found in places.items()}
    earliest = min(first.values())
    found = frozenset(kind for kind, at in first.items() if at == earliest < len(text))
    return found - {"manner"} or found


def _first_kind(text: str, table: Iterable[tuple[str, tuple[str, ...]]]) -> frozenset[str]:
    found = set()
    for kind, forms in table:
        for form in forms:
            if form in text:
                found.add(kind)
                text = text.replace(form, " ")
    return frozenset(found)


def _other_kind(one: Reading, other: Reading) -> bool:
    mine, theirs = kinds(one), kinds(other)
    return bool(mine) and bool(theirs) and not mine & theirs and not mine | theirs <= _MOMENTS


# --- negation --------------------------------------------------------------------------------------------------------

_A_NOT_A = re.compile(r"(\w{1,2})[不没]\1")
_HARMLESS = re.compile("|".join(NOT_NEGATIONS_CHINESE))
_NEGATING = re.compile(f"[{NEGATIONS_CHINESE}](?!$|有吗?$)")
_PREFIXES = ("un", "dis", "in", "im", "il", "ir", "non", "de", "mis", "anti")
_LESS = "less"
_UNDO = re.compile("|".join(rf"\b{form}" if form.isascii() else " ".join(form) for form in UNDOING))


@lru_cache(maxsize=2048)
def _denies(reading: Reading) -> bool:
    if any(token in NEGATIONS_ENGLISH for token in reading.tokens):
        return True
    if not reading.chinese:
        return False
    return any(failure in reading.text for failure in FAILURES_CHINESE) or bool(
        _NEGATING.search(_HARMLESS.sub(" ", _A_NOT_A.sub(" ", reading.text)))
    )


def _negated(one: Reading, other: Reading) -> bool:
    return _denies(one) != _denies(other) or any(_is_negation(a, b) for a, b in _different_words(one, other))


def _undone(one: Reading, other: Reading) -> bool:
    """Only one of two asks how to cancel, stop or turn off something."""
    return bool(_UNDO.search(" ".join(one.tokens))) != bool(_UNDO.search(" ".join(other.tokens)))


def _is_negation(one: str, other: str) -> bool:
    """lock, unlock; legal, illegal; useful, useless."""
    short, long = sorted((one, other), key=len)
    if len(short) <= 2:
        return False
    if long.endswith(_LESS) and short.startswith(long[: -len(_LESS)]):
        return True
    return long.startswith(_PREFIXES) and any(
        long.startswith(prefix) and alike(long[len(prefix) :], short) for prefix in _PREFIXES
    )


def _different_words(one: Reading, other: Reading) -> list[tuple[str, str]]:
    mine, theirs = set(one.tokens) - set(other.tokens), set(other.tokens) - set(one.tokens)
    return [(a, b) for a in mine for b in theirs]


def _other_person(one: Reading, other: Reading) -> bool:
    """我叫什么, 你叫什么. In English "you" may be anybody, and is no sign."""
    mine, theirs = (_I in one.text, _YOU in one.text), (_I in other.text, _YOU in other.text)
    return (mine != theirs and mine == theirs[::-1]) or _yours(one, other) or _yours(other, one)


def _yours(one: Reading, other: Reading) -> bool:
    """What is my name; what is your name. But: how do I find my name, how do you find your name."""
    mine, theirs = set(one.tokens), set(other.tokens)
    return (
        "my" in mine
        and "your" in theirs
        and not ("your" in mine or "my" in theirs or ("i" in mine and "you" in theirs))
    )


_I, _YOU = "我", "你"

# --- opposites -------------------------------------------------------------------------------------------------------


def _opposites(table: str) -> list[tuple[frozenset[str], frozenset[str]]]:
    sides = (line.split("|") for line in table.split("\n") if line)
    return [(frozenset(left.split()), frozenset(right.split())) for left, right in sides]


_ENGLISH = _opposites(OPPOSITES_ENGLISH)
_CHINESE = _opposites(OPPOSITES_CHINESE)


_HOW_MUCH = re.compile("多(?=[高快大重远长久深宽厚])|(?:高|长|速|温|宽|深|厚)度|大小|多少")


def _opposed(one: Reading, other: Reading) -> bool:
    if one.chinese:
        here, there = _HOW_MUCH.sub("", one.text), _HOW_MUCH.sub("", other.text)
        return any(
            _contrast(left, right, here, there) or _contrast(right, left, here, there) for left, right in _CHINESE
        )
    mine, theirs = set(one.tokens) - set(other.tokens), set(other.tokens) - set(one.tokens)
    return any((left & mine and right & theirs) or (right & mine and left & theirs) for left, right in _ENGLISH)


def _contrast(left: Iterable[str], right: Iterable[str], here: str, there: str) -> bool:
    """Whether only `here` says one side and only `there` the other."""
    return _only(left, here, there) and _only(right, there, here)


def _only(forms: Iterable[str], here: str, there: str) -> bool:
    return any(form in here and form not in there for form in forms)


def _other_qualities(one: Reading, other: Reading) -> bool:
    """The cheapest against the fastest: each names a quality that the other does not."""
    mine, theirs = _qualities(one), _qualities(other)
    return bool(mine) and bool(theirs) and not mine & theirs


_qualities = _named(QUALITIES)

# --- names -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?<![.?!]\s)(?<!^)\b[A-Z][\w'-]*")
_LATIN = re.compile(r"[A-Za-z][A-Za-z0-9+#.-]*")


@lru_cache(maxsize=2048)
def _names(text: str) -> frozenset[str]:
    """Capitalised words that begin no sentence; in Chinese every word in Latin letters. In lower case."""
    pattern = _LATIN if read(text).chinese else _NAME
    words = (word.casefold().removesuffix("'s").strip(".'-") for word in pattern.findall(text[:MAX_CHARACTERS].strip()))
    return frozenset(word for word in words if word != "i" and (len(word) == 1 or not is_little(word)))


def _other_names(asked: str, known: str) -> bool:
    """A name on one side stands nowhere on the other, and the other has a name or a word in its place, or a name of the
    other goes on: iPhone 14 Pro, iPhone 14 Pro Max."""
    mine, theirs = _strange(asked, known), _strange(known, asked)
    return bool(mine and theirs) or _goes_on(asked, mine) or _goes_on(known, theirs)


def _strange(text: str, other: str) -> set[str]:
    words = set(read(other).tokens)
    words |= {word.removesuffix("s") for word in words}
    parts = {name: re.split(r"\W", name) for name in _names(text)}
    return {
        name for name, those in parts.items() if words.isdisjoint((*those, *(part.removesuffix("s") for part in those)))
    }


def _goes_on(text: str, strange: set[str]) -> bool:
    """Whether one of the strange names stands behind another name or a number."""
    found = re.finditer(r"(?:\d|\b[A-Z][\w'-]*) +(?=([A-Z][\w'-]*))", text[:MAX_CHARACTERS])
    return any(match[1].casefold() in strange and match.start() > 0 for match in found)


# --- variants and phrasal verbs --------------------------------------------------------------------------------------


def _other_variant(one: Reading, other: Reading) -> bool:
    """iphone 14 pro, iphone 14 pro max."""
    return VARIANTS.intersection(one.tokens) != VARIANTS.intersection(other.tokens)


_PARTICLES = frozenset(("up", "off", "out", "down", "away", "over", "back"))


def _other_particle(one: Reading, other: Reading) -> bool:
    """Pick a lock, pick up a lock; look up, look out."""
    return _alone(one, other) or _alone(other, one)


def _alone(one: Reading, other: Reading) -> bool:
    """Whether a word of both has a particle in one that the other lacks."""
    return any(
        particle in _PARTICLES and particle not in other.tokens and any(alike(word, there) for there in other.content)
        for word, particle in pairwise(one.tokens)
        if not is_little(word) and word + particle not in other.tokens
    )


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("numbers", other_numbers),
    ("units", other_units),
    ("dates", _other_dates),
    ("language", _other_languages),
    ("measures", _other_measures),
    ("question", _other_kind),
    ("negation", _negated),
    ("person", _other_person),
    ("opposites", _opposed),
    ("undone", _undone),
    ("qualities", _other_qualities),
    ("reversed", reversed_roles),
    ("particle", _other_particle),
    ("variant", _other_variant),
)
