"""How often semantic answers were wrong, and when that is often enough to stop giving them.

A share of them is generated anew in the background and compared. The true rate lies in an interval around what was
seen (Clopper and Pearson 1934, exact for a binomial count). When even its lower end is above the bound, semantic
answers are off, first for an hour, each further time twice as long, at most a day.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

from msgspec import Struct

# One-sided. It is asked again after every comparison, so a looser one would ring by chance sooner or later.
CONFIDENCE = 0.995
# Fewer that differ may be mistakes of the comparison, or chance: the first answers of a tenant are the riskiest.
_LEAST_WRONG = 3
_REMEMBERED = 1_000
_FIRST_PAUSE, _LONGEST_PAUSE = 3_600.0, 86_400.0
# So precise is the interval.
_STEPS = 30


class Watch(Struct):
    """Of one tenant and model: comparisons that agreed and that did not, lately; `off_until` is epoch seconds."""

    same: float = 0.0
    different: float = 0.0
    off_until: float = 0.0
    times_off: int = 0

    def saw(self, same: bool, *, bound: float, now: float) -> None:
        """Count one comparison, and switch off when more than `bound` (a share) are wrong for sure."""
        if same:
            self.same += 1
        else:
            self.different += 1
            self._judge(bound, now)
        if self.same + self.different >= _REMEMBERED:
            self.same /= 2
            self.different /= 2

    def _judge(self, bound: float, now: float) -> None:
        wrong, seen = round(self.different), round(self.same + self.different)
        if wrong >= _LEAST_WRONG and interval(wrong, seen)[0] > bound:
            self.off_until = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.times_off)
            self.times_off += 1
            self.same = self.different = 0.0

    def is_off(self, now: float) -> bool:
        """Are semantic answers off for this tenant and model?"""
        return now < self.off_until


def interval(wrong: int, seen: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Between which shares the true rate lies when `wrong` of `seen` were wrong; each end by itself with `confidence`.

    (0.0, 1.0) when nothing was seen.
    """
    if not seen:
        return 0.0, 1.0
    doubt = 1.0 - confidence
    low = _rate(lambda rate: 1.0 - _at_most(wrong - 1, seen, rate) < doubt) if wrong else 0.0
    high = _rate(lambda rate: _at_most(wrong, seen, rate) > doubt) if wrong < seen else 1.0
    return low, high


def _rate(too_low: Callable[[float], bool]) -> float:
    """The rate from which on `too_low` is false, by halving."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return (low + high) / 2


def _at_most(count: int, seen: int, rate: float) -> float:
    """The probability of at most `count` wrong ones among `seen`."""
    return sum(comb(seen, k) * rate**k * (1.0 - rate) ** (seen - k) for k in range(count + 1))
