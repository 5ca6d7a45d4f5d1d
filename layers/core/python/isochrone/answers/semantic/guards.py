"""What similarity cannot see: reasons why a known answer cannot be the answer, however near the two questions are.

Each guard compares one thing that both questions say outright: code, language, numbers with their units, dates, the
kind of question, negation, opposites, the roles of two things, names. A guard objects only when it is sure that the
two differ; it never vouches that they mean the same. Embeddings of opposites lie as near as those of synonyms, which
is why no threshold can replace this.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import combinations

from isochrone.answers.semantic.vocabulary import (
    CALENDAR,
    KINDS_CHINESE,
    KINDS_ENGLISH,
    LANGUAGES,
    NEGATIONS_CHINESE,
    NEGATIONS_ENGLISH,
    NOT_NEGATIONS_CHINESE,
    NUMBERS_ENGLISH,
    OPPOSITES_CHINESE,
    OPPOSITES_ENGLISH,
    UNITS,
)
from isochrone.answers.semantic.words import MAX_CHARACTERS, Reading, alike, is_little, read

_CODE = re.compile(r"```|[{}]|=>|==|\w\(\)|;\s*\n|</?\w+>|https?://|\w+@\w+\.|[A-Za-z]:\\|(?<!\w)/\w+/\w+")


def objection(asked: str, known: str) -> str | None:
    """Why the answer to `known` cannot be given to `asked`, in a word; None when nothing speaks against it."""
    one, other = read(asked), read(known)
    if one.text == other.text:
        return None
    if _CODE.search(asked) or _CODE.search(known):
        return "code"
    if one.chinese != other.chinese:
        return "language"
    differences = (reason for reason, differ in _GUARDS if differ(one, other))
    return next(differences, None) or ("names" if _other_names(asked, known) else None)


def contradiction(one: str, other: str) -> bool:
    """Whether two answers (not questions) differ in what they say outright."""
    return any(
        differ(read(one), read(other)) for differ in (_other_numbers, _other_units, _other_dates, _negated, _opposed)
    )


# --- numbers ---------------------------------------------------------------------------------------------------------

_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_CHINESE_NUMBER = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")
_IDIOMS = re.compile(
    r"万一|一下|一般|一样|一起|一直|一定|一些|一点|统一|唯一|第一时间|千万别|三星|十分|万能|百度|零钱|零食|零售|一共|一边|一旦|四川|九寨"
)
_UNIT = re.compile("|".join(map(re.escape, sorted(UNITS, key=len, reverse=True))))
_NUMBER = re.compile(r"(?P<sign>[$€£¥])?(?P<digits>\d+(?:[.,:/]\d+)*)\s*(?P<unit>[a-z]+|[%°℃]|[\u3400-\u9fff]{0,3})")
Amounts = Counter[tuple[float | str, str]]
Values = Counter[float | str]


def _spoken(run: str) -> int:
    """三千五百 -> 3500; a row of digits (二零二四) as it is read."""
    if not any(character in _CHINESE_POWERS for character in run):
        return int("".join(str(_CHINESE_DIGITS[character]) for character in run))
    total = part = digit = 0
    for character in run:
        if character in _CHINESE_DIGITS:
            digit = _CHINESE_DIGITS[character]
        elif (power := _CHINESE_POWERS[character]) >= 10_000:
            total, part, digit = (total + (part + digit or 1)) * power, 0, 0
        else:
            part, digit = part + (digit or 1) * power, 0
    return total + part + digit


def _value(digits: str) -> float | str:
    """A number, or the text itself for times, dates and versions."""
    plain = digits.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits) else digits
    try:
        return float(plain)
    except ValueError:
        return digits


def _unit(after: str) -> str:
    whole = UNITS.get(after)
    if whole or not after or after.isascii():
        return whole or ""
    match = _UNIT.match(after)
    return UNITS[match[0]] if match else ""


@lru_cache(maxsize=2048)
def _amounts(reading: Reading) -> Amounts:
    text = reading.text
    if reading.chinese:
        text = _CHINESE_NUMBER.sub(lambda run: f"{_spoken(run[0])}", _IDIOMS.sub(" ", text))
    else:
        text = re.sub(r"[a-z]+", lambda word: str(NUMBERS_ENGLISH.get(word[0], word[0])), text)
    found: Amounts = Counter()
    for match in _NUMBER.finditer(text):
        unit = UNITS.get(match["sign"] or "", "") or _unit(match["unit"])
        found[_value(match["digits"]), unit] += 1
    return found


def _other_numbers(one: Reading, other: Reading) -> bool:
    """A single thing may be counted or not: "a banana", "one banana", 一个. A written 1 counts."""
    mine, theirs = _values(one), _values(other)
    return mine != theirs and _counted(one, mine) != _counted(other, theirs)


def _values(reading: Reading) -> Values:
    values: Values = Counter()
    for (value, _), times in _amounts(reading).items():
        values[value] += times
    return values


def _counted(reading: Reading, values: Values) -> Values:
    return values if "1" in reading.tokens else Counter({value: n for value, n in values.items() if value != 1})


def _other_units(one: Reading, other: Reading) -> bool:
    mine, theirs = dict(_amounts(one)), dict(_amounts(other))
    return any(
        unit and unit_there and unit != unit_there
        for (value, unit) in mine
        for (value_there, unit_there) in theirs
        if value == value_there and (value, unit) not in theirs and (value_there, unit_there) not in mine
    )


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
    return _languages(one) != _languages(other)


def _other_measures(one: Reading, other: Reading) -> bool:
    """Metres against feet: each names a measure that the other does not."""
    mine, theirs = _units_named(one), _units_named(other)
    return bool(mine - theirs) and bool(theirs - mine)


# --- the kind of question --------------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)
def kinds(reading: Reading) -> frozenset[str]:
    """Which kinds of answer are asked for: reason, time, place, person, amount, duration, frequency, manner."""
    if reading.chinese:
        return _first_kind(reading.text, KINDS_CHINESE)
    padded = f" {' '.join(reading.tokens)} "
    return frozenset(kind for kind, forms in KINDS_ENGLISH if any(f" {form} " in padded for form in forms))


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
    return bool(mine) and bool(theirs) and not mine & theirs


# --- negation --------------------------------------------------------------------------------------------------------

_A_NOT_A = re.compile(r"(\w{1,2})[不没]\1")
_HARMLESS = re.compile("|".join(NOT_NEGATIONS_CHINESE))
_NEGATING = re.compile(f"[{NEGATIONS_CHINESE}](?!$|有吗?$)")
_PREFIXES = ("un", "dis", "in", "im", "il", "ir", "non", "de", "mis", "anti")
_LESS = "less"


@lru_cache(maxsize=2048)
def _denies(reading: Reading) -> bool:
    if any(token in NEGATIONS_ENGLISH for token in reading.tokens):
        return True
    return reading.chinese and bool(_NEGATING.search(_HARMLESS.sub(" ", _A_NOT_A.sub(" ", reading.text))))


def _negated(one: Reading, other: Reading) -> bool:
    return _denies(one) != _denies(other) or any(_is_negation(a, b) for a, b in _different_words(one, other))


def _is_negation(one: str, other: str) -> bool:
    """lock, unlock; legal, illegal; useful, useless."""
    short, long = sorted((one, other), key=len)
    prefixed = any(long.startswith(prefix) and alike(long[len(prefix) :], short) for prefix in _PREFIXES)
    less = long.endswith(_LESS) and short.startswith(long[: -len(_LESS)])
    return len(short) > 2 and (prefixed or less)


def _different_words(one: Reading, other: Reading) -> list[tuple[str, str]]:
    mine, theirs = set(one.tokens) - set(other.tokens), set(other.tokens) - set(one.tokens)
    return [(a, b) for a in mine for b in theirs]


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


# --- roles -----------------------------------------------------------------------------------------------------------

_SYMMETRIC = frozenset(
    ("and", "or", "vs", "versus", "with", "between", "和", "与", "跟", "或", "或者", "还是", "同", "以及")
)
_DIRECTED = frozenset(
    ("to", "from", "than", "into", "for", "before", "after", "over", "under", "against", *"到从给比把对向于")
)
_REORDERING = frozenset(("by", "of", "被", "的"))
_MOST_WORDS = 40


def reversed_roles(one: Reading, other: Reading) -> bool:
    """Whether two things have changed places around something that both texts say between them.

    "Paris to Rome" and "Rome to Paris" have "to" between them in both; "账户怎么解冻" and "怎么解冻账户" have only
    moved the topic; "London and New York" may be said in any order. Where one text alone has a passive or a genitive,
    another order is what grammar asks for.
    """
    mine, theirs = _marks(one), _marks(other)
    if any(mine.count(word) != theirs.count(word) for word in _REORDERING):
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


def _marks(reading: Reading) -> list[str]:
    kept = _DIRECTED | _SYMMETRIC | _REORDERING
    return [token for token in reading.tokens if token in kept or not is_little(token)][:_MOST_WORDS]


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
    """A name on one side stands nowhere on the other, and the other has a name or a word in its place."""
    return bool(_strange(asked, known)) and bool(_strange(known, asked))


def _strange(text: str, other: str) -> set[str]:
    words = read(other).tokens
    return {
        name for name in _names(text) if not any(alike(part, word) for part in re.split(r"\W", name) for word in words)
    }


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("numbers", _other_numbers),
    ("units", _other_units),
    ("dates", _other_dates),
    ("language", _other_languages),
    ("measures", _other_measures),
    ("question", _other_kind),
    ("negation", _negated),
    ("opposites", _opposed),
    ("reversed", reversed_roles),
)
