"""May the answer to a known question be given to this one? Answer, explore (answer anew and learn), or miss.

The decision is Bayesian. How likely one answer serves both questions is a logistic function of their features, whose
weights are a normal distribution and not numbers (`Belief`). It starts from a prior for each language, fitted on pairs
that everybody can read (scripts/fit_semantic.py), and is made sharper by every request that had to be generated
although a similar question was known: then there are two answers to compare. The update is that of the extended Kalman
filter for a logistic observation (Fahrmeir 1992). What is uncertain counts against a hit: the predictive probability is
averaged over the weights (MacKay 1992), so a judge that knows little says little.

Each known question has a belief of its own on top (`Lessons`): how much better or worse than others it generalises.
The thought that each entry needs a boundary of its own, learned online under an error bound, is vCache's (Schroeder et
al. 2025).

The bound: no answer is given whose predictive probability to be wrong, multiplied by what audits have shown about such
predictions, is above `limit`. While predictions are calibrated, the expected share of wrong answers is therefore below
it, whatever is asked. When they are not, audits notice: a share of would-be hits is answered anew and compared, and
where more of them were wrong than was predicted, all later doubts are raised by that factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from math import exp, pi, sqrt
from operator import mul
from pathlib import Path
from typing import NamedTuple

import msgspec

from isochrone.answers.semantic.features import features
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.words import read

_PRIORS = Path(__file__).with_name("data") / "priors.json"
_SAME_TEXT = 0.9999
# Cheap vectors less alike than this hardly ever belong to questions of one answer; docs/semantic.md says how seldom.
_HOPELESS = 0.35
# How much riskier a single answer may be than answers may be on average. Chosen on our own streams (docs/semantic.md).
_WORST_TO_MEAN = 5.0
# So many wrong answers have to come together before audits weigh much: one alone may be chance.
_PATIENCE = 3.0
_LEAST_AUDITED, _FIRST_AUDITED, _AUDITS_FALL = 0.01, 0.25, 2.0
_LEAST_DOUBT = 0.01
# Digits that are kept of what was learned: its document stays small.
_DIGITS = 5


class Verdict(Enum):
    """HIT: give the known answer. EXPLORE: answer anew and compare, there is something to learn. MISS: neither."""

    HIT = "hit"
    EXPLORE = "explore"
    MISS = "miss"


class Weighed(NamedTuple):
    """`probability` that one answer serves both; `reason` for header and log; `audit`: it would have been a hit."""

    verdict: Verdict
    probability: float
    reason: str
    features: tuple[float, ...] = ()
    language: str = ""
    audit: bool = False


class Lessons(msgspec.Struct, array_like=True):
    """What was learned on one known question: how far its log-odds lie from those of others, and how sure that is."""

    shift: float = 0.0
    spread: float = 0.3
    same: int = 0
    different: int = 0

    def learn(self, weighed: Weighed, same: bool) -> None:
        """One comparison of this question's answer with a new one."""
        self.same += same
        self.different += not same
        doubt = weighed.probability * (1.0 - weighed.probability)
        gain = self.spread / (1.0 + doubt * self.spread)
        self.shift += gain * (same - weighed.probability)
        self.spread = gain


class Belief(msgspec.Struct, array_like=True):
    """A normal distribution over the weights: its mean, and the lower triangle of its covariance row by row."""

    mean: list[float]
    spread: list[float]

    def is_about(self, other: Belief) -> bool:
        """Whether both are about as many features."""
        return len(self.mean) == len(other.mean) and len(self.spread) == len(other.spread)

    def odds(self, measured: Sequence[float]) -> tuple[float, float]:
        """Mean and variance of the log-odds."""
        return _dot(self.mean, measured), _dot(_reach(self.spread, measured), measured)

    def learned(self, measured: Sequence[float], same: bool) -> Belief:
        """What is believed after one comparison: one step of the extended Kalman filter."""
        reach = _reach(self.spread, measured)
        probability = _logistic(_dot(self.mean, measured))
        doubt = max(_LEAST_DOUBT, probability * (1.0 - probability))
        gain = 1.0 / (1.0 + doubt * _dot(reach, measured))
        products = (mine * theirs for row, mine in enumerate(reach) for theirs in reach[: row + 1])
        return Belief(
            [_short(m + r * (same - probability) * gain) for m, r in zip(self.mean, reach, strict=True)],
            [_short(s - product * doubt * gain) for s, product in zip(self.spread, products, strict=True)],
        )


class Experience(msgspec.Struct, array_like=True):
    """What was learned for one tenant and model, by language. Of would-be hits `audited` were compared, and `wrong` of
    them were, where `feared` had been expected.
    """

    beliefs: dict[str, Belief] = msgspec.field(default_factory=dict)
    learned: int = 0
    audited: int = 0
    wrong: int = 0
    feared: float = 0.0

    def belief(self, language: str) -> Belief:
        """What is believed of a language: what was learned, or else the prior. What was learned about the features of
        another version of this program says nothing about these."""
        prior, learned = _priors()[language], self.beliefs.get(language)
        return learned if learned and learned.is_about(prior) else prior

    def learn(self, weighed: Weighed, same: bool) -> None:
        """One comparison of a known answer with a new one."""
        if not weighed.features:
            return
        if weighed.audit:
            self.audited += 1
            self.wrong += not same
            self.feared += 1.0 - weighed.probability
        self.beliefs[weighed.language] = self.belief(weighed.language).learned(weighed.features, same)
        self.learned += 1

    @property
    def caution(self) -> float:
        """By what factor would-be hits were wrong more often than predicted; at least 1."""
        return max(1.0, (self.wrong + _PATIENCE) / (self.feared + _PATIENCE))

    @property
    def audit_share(self) -> float:
        """Which share of would-be hits is answered anew: a quarter of the first ones, 1 % in the long run."""
        return max(_LEAST_AUDITED, 1.0 / (1.0 / _FIRST_AUDITED + _AUDITS_FALL * self.audited))


class Judge:
    """`max_error`: the share of answers that may be wrong on average; a single one may be as risky as `limit`."""

    def __init__(self, max_error: float) -> None:
        self.limit = min(0.5, _WORST_TO_MEAN * max_error)

    def is_hopeless(self, sketch_score: float) -> bool:
        """Whether so small a cosine of the cheap vectors makes an embedding not worth while."""
        return sketch_score < _HOPELESS

    def weigh(
        self,
        asked: str,
        known: str,
        cosine: float | None,
        *,
        rivals: Sequence[float] = (),
        lessons: Lessons,
        experience: Experience,
        chance: float,
    ) -> Weighed:
        """Decide on one candidate.

        `cosine` is that of the two embeddings, None when there is none; `rivals` are those of the other candidates;
        `chance` lies in [0, 1).
        """
        one = read(asked)
        if reason := objection(asked, known):
            return Weighed(Verdict.MISS, 0.0, reason)
        if one.text == read(known).text:
            return Weighed(Verdict.HIT, _SAME_TEXT, "same text")
        if cosine is None:
            return Weighed(Verdict.MISS, 0.0, "no embedding")
        language = "zh" if one.chinese else "en"
        measured = features(asked, known, cosine, rivals)
        mean, variance = experience.belief(language).odds(measured)
        probability = _predicted(mean + lessons.shift, variance + lessons.spread)
        if (1.0 - probability) * experience.caution > self.limit:
            return Weighed(Verdict.EXPLORE, probability, "doubt", measured, language)
        if chance < experience.audit_share:
            return Weighed(Verdict.EXPLORE, probability, "audit", measured, language, audit=True)
        return Weighed(Verdict.HIT, probability, "similar", measured, language)


@cache
def _priors() -> dict[str, Belief]:
    return msgspec.json.decode(_PRIORS.read_bytes(), type=dict[str, Belief])


def _predicted(mean: float, variance: float) -> float:
    """The logistic of a normal variable, averaged (MacKay's approximation)."""
    return _logistic(mean / sqrt(1.0 + pi * variance / 8.0))


def _logistic(odds: float) -> float:
    return 1.0 / (1.0 + exp(-max(-40.0, min(40.0, odds))))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))


def _reach(triangle: Sequence[float], vector: Sequence[float]) -> list[float]:
    """The symmetric matrix of which that is the lower triangle, times the vector."""
    reach = [0.0] * len(vector)
    at = 0
    for row, mine in enumerate(vector):
        for column in range(row):
            reach[row] += triangle[at] * vector[column]
            reach[column] += triangle[at] * mine
            at += 1
        reach[row] += triangle[at] * mine
        at += 1
    return reach


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
