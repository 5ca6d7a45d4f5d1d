"""Numbers and their units, as questions say them: 5 kg, $500, 7 am, twelve, 三千元, 二零二四年."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from isochrone.answers.semantic.vocabulary import NUMBERS_ENGLISH, UNITS
from isochrone.answers.semantic.words import Reading

_CHINESE_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}
_CHINESE_NUMBER = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")
_IDIOMS = re.compile(
    r"万一|一下|一般|一样|一起|一直|一定|一些|一点|统一|唯一|第一时间|千万别|三星|十分|万能|百度|零钱|零食|零售|一共|一边|一旦|四川|九寨"
)
_UNIT = re.compile("|".join(map(re.escape, sorted(UNITS, key=len, reverse=True))))
_NUMBER = re.compile(r"(?P<sign>[$€£¥])?(?P<digits>\d+(?:[.,:/]\d+)*)\s*(?P<unit>[a-z]+|[%°℃]|[\u3400-\u9fff]{0,3})")
_A_CERTAIN_ONE = frozenset(("1", "first"))
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


def other_numbers(one: Reading, other: Reading) -> bool:
    """A single thing may be counted or not: "a banana", "one banana", 一个. A written 1 counts."""
    mine, theirs = _values(one), _values(other)
    return mine != theirs and _counted(one, mine) != _counted(other, theirs)


def _values(reading: Reading) -> Values:
    values: Values = Counter()
    for (value, _), times in _amounts(reading).items():
        values[value] += times
    return values


def _counted(reading: Reading, values: Values) -> Values:
    return (
        values
        if _A_CERTAIN_ONE.intersection(reading.tokens) or "第一" in reading.text
        else Counter({value: n for value, n in values.items() if value != 1})
    )


def other_units(one: Reading, other: Reading) -> bool:
    mine, theirs = dict(_amounts(one)), dict(_amounts(other))
    return any(
        unit and unit_there and unit != unit_there
        for (value, unit) in mine
        for (value_there, unit_there) in theirs
        if value == value_there and (value, unit) not in theirs and (value_there, unit_there) not in mine
    )
