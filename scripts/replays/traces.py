"""Requests with their prompts known by name: from a recorded trace, or made up by a stated rule."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOUR, DAY = 3600.0, 86_400.0
_NEVER_AGAIN_SHARE = 0.3


class Asked(NamedTuple):
    """One request: seconds from the start, a name for its prompt, its tokens, and the blocks of its prompt."""

    at: float
    prompt: str
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def mooncake(file: Path) -> list[Asked]:
    """A trace of Mooncake (FAST'25): prompts are the same when all their 512-token blocks and their lengths are."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return sorted(
        Asked(row["t_ms"] / 1000, f"{row['in']}:{row['h']}", row["in"], max(1, row["out"]), tuple(row["h"]))
        for row in rows
    )


def faq(chance: random.Random, *, days: int = 14, questions: int = 300) -> list[Asked]:
    """Made up: the standard questions of a service desk, asked as people do, and as many others again.

    A third of the questions is popular (rates by Zipf's law, by day four times as often as by night), a third is asked
    around one hour of each working day by one to three people, a sixth once a week, and a sixth comes up one day and is
    forgotten within hours. Beside them three in ten requests ask what nobody asks again. Everybody waits 4 to 12 s.
    """
    asked = [
        Asked(at, f"question {number}", 200, 100 + 200 * (number % 3))
        for number in range(questions)
        for at in _moments(number, questions, chance, days)
    ]
    others = round(len(asked) * _NEVER_AGAIN_SHARE / (1 - _NEVER_AGAIN_SHARE))
    asked += [Asked(_by_day(chance, days), f"once {number}", 200, 300) for number in range(others)]
    return sorted(asked)


def _moments(number: int, questions: int, chance: random.Random, days: int) -> Iterator[float]:
    kind = number * 6 // questions
    if kind < 2:
        for _ in range(round(days * 30 / (1 + number))):
            yield _by_day(chance, days)
    elif kind < 4:
        hour = 7 + number % 11
        for day in range(days):
            for _ in range(chance.randint(1, 3) if day % 7 < 5 else 0):
                yield _around(hour, day, chance)
    elif kind == 4:
        for day in range(number % 5, days, 7):
            yield _around(8 + number % 9, day, chance)
    else:
        begins = chance.uniform(0, days - 1) * DAY
        for _ in range(chance.randint(5, 40)):
            yield begins + chance.expovariate(1 / (4 * HOUR))


def _around(hour: int, day: int, chance: random.Random) -> float:
    return day * DAY + (hour + chance.random()) * HOUR


def _by_day(chance: random.Random, days: int) -> float:
    """Four times as likely between 8 and 20 h as at another hour."""
    day, hour = chance.randrange(days), chance.uniform(8, 20)
    if chance.random() < 0.2:
        hour = (hour + 12) % 24
    return day * DAY + hour * HOUR
