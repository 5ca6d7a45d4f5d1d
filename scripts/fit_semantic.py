#!/usr/bin/env python3
"""Fit what the semantic decision believes before it has learned anything, and choose how much risk one answer may have.

Uses only tests/data/twins_*.jsonl, which were written for this: questions, others that ask the same, and others that
only look alike. They are asked in many orders; each request and the likeliest candidates that the guards let pass are
one row: features, and whether one answer serves both. A logistic function is fitted to the rows of each language, with
a ridge; a weight whose sign would contradict what the feature means (nearer can not be worse) is held at nothing. The
prior is that fit, with a covariance wide enough to be outvoted by a few hundred comparisons.

Writes answers/semantic/data/priors.json (with --check it only compares). The table that it prints is out of sample:
priors fitted to one half of the groups, streams of the other half. Simpler caches stand beside it, among them the best
fixed threshold, picked on these very streams. `limit` is the largest predicted risk that a single
answer may have. Chosen is the largest with precision of at least 0.98 and at most 0.5 % of requests answered wrongly in
both languages; decision.py has it as 5 x semantic.max_error, 0.1 for 0.02.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np

from isochrone.answers.semantic import decision
from isochrone.answers.semantic.decision import Belief, Judge
from isochrone.answers.semantic.features import NAMES, features
from judge_semantic import GPTCACHE, STATIC, Score, best, equal, nearest, played
from semantic.replay import TWINS, Embeddings, Group, Replay, Stream, read_twins, stream_of

TARGET = Path(decision.__file__).with_name("data") / "priors.json"
LANGUAGES = ("en", "zh")
LIMITS = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2)
ORDERS = 6
KNOWN_SHARE = 0.7
RIDGE, WIDTH, TRUST = 0.5, 0.2, 0.3
# Which way a feature may speak: for one answer, against it, or either.
SIGNS = dict.fromkeys(NAMES, -1) | {
    "one": 0,
    "shared": 0,
    "distance": 1,
    "gap": 1,
    "crowd": 1,
    "overlap": 1,
    "same_words": 1,
}

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Rows(NamedTuple):
    """Features, a row each, and 1.0 where one answer serves both."""

    measured: Numbers
    same: Numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the shipped file is not the fit")
    arguments = parser.parse_args()
    embeddings = Embeddings()
    groups = {language: read_twins(TWINS / f"twins_{language}.jsonl") for language in LANGUAGES}
    priors = {language: prior(rows_of(groups[language], embeddings)) for language in LANGUAGES}
    document = msgspec.json.format(msgspec.json.encode(priors), indent=0)
    if arguments.check:
        same = TARGET.read_bytes() == document
        print(f"{TARGET.name}: {'as the sources say' if same else 'not what the sources give; run this script'}")
        return 0 if same else 1
    TARGET.write_bytes(document)
    for language, belief in priors.items():
        print(language, {name: round(weight, 2) for name, weight in zip(NAMES, belief.mean, strict=True)})
    print("\n".join(table(groups, embeddings)))
    return 0


def rows_of(groups: Sequence[Group], embeddings: Embeddings) -> Rows:
    """Every pair of a request and one of its two likeliest candidates, once each, of several orders of asking."""
    found: dict[tuple[str, str], tuple[tuple[float, ...], bool]] = {}
    for seed in range(ORDERS):
        asked = stream_of(groups, Random(seed), twins=0.35 if seed % 2 else 0.8)  # noqa: S311
        stream, random, known, judge = Stream(asked, embeddings), Random(seed), list[int](), Judge(0.02)  # noqa: S311
        for at, request in enumerate(asked):
            candidates = stream.candidates(at, known, judge) if known else []
            nearest = sorted(candidates, key=lambda one: -(one.cosine or 0.0))[:2]
            for one in nearest:
                if one.cosine is not None:
                    other = asked[one.place]
                    measured = features(request.text, other.text, one.cosine, one.rivals)
                    found[request.text, other.text] = measured, other.kind == request.kind
            if random.random() < KNOWN_SHARE:
                known.append(at)
    return Rows(np.array([row for row, _ in found.values()]), np.array([float(same) for _, same in found.values()]))


def prior(rows: Rows) -> Belief:
    """The fit, and around it room to learn."""
    weights, information = fitted(rows)
    count = len(weights)
    covariance = np.linalg.inv(TRUST * information + 2.0 * np.eye(count)) + WIDTH * np.eye(count)
    triangle = covariance[np.tril_indices(count)]
    return Belief([short(weight) for weight in weights], [short(number) for number in triangle])


def fitted(rows: Rows) -> tuple[Numbers, Numbers]:
    """Weights with allowed signs only, and the information (the Hessian of the loss) there."""
    signs = np.array([SIGNS[name] for name in NAMES])
    used = np.ones(len(NAMES), dtype=bool)
    weights = np.zeros(len(NAMES))
    while True:
        weights[:] = 0.0
        weights[used] = logistic_fit(rows.measured[:, used], rows.same)
        wrong = weights * signs < 0
        if not wrong.any():
            chances = 1.0 / (1.0 + np.exp(-rows.measured @ weights))
            return weights, (rows.measured * (chances * (1.0 - chances))[:, None]).T @ rows.measured
        used &= ~wrong


def logistic_fit(measured: Numbers, same: Numbers) -> Numbers:
    """Newton's method; the first feature, the constant, has no ridge."""
    count = measured.shape[1]
    weights, ridge = np.zeros(count), RIDGE * np.eye(count)
    ridge[0, 0] = 1e-3
    for _ in range(40):
        chances = 1.0 / (1.0 + np.exp(-measured @ weights))
        slope = measured.T @ (chances - same) + ridge @ weights
        bend = (measured * (chances * (1.0 - chances))[:, None]).T @ measured + ridge
        weights = weights - np.linalg.solve(bend, slope)
    return weights


def short(number: float) -> float:
    return float(f"{number:.4g}")


def table(groups: dict[str, list[Group]], embeddings: Embeddings) -> Iterable[str]:
    """Precision, recall and wrong answers a request by limit, out of sample."""
    yield f"{'':20}{'recall':>9}{'precision':>11}{'wrong/requests':>16}"
    for language in LANGUAGES:
        halves = [groups[language][0::2], groups[language][1::2]]
        for simple in simpler([stream for half in halves for stream in streams_of(half, embeddings)]):
            yield line(f"{language} {simple.name}", (simple.right, simple.wrong, simple.ideal, simple.requests))
        learned = [prior(rows_of(half, embeddings)) for half in halves]
        for limit in LIMITS:
            counts = np.zeros(4)
            for belief, half in zip(reversed(learned), halves, strict=True):
                counts += tried(language, belief, half, limit, embeddings)
            yield line(f"{language} limit {limit:.2f}", counts)


def line(name: str, counts: Iterable[float]) -> str:
    right, wrong, seen, asked = counts
    return f"{name:20}{right / seen:9.3f}{right / (right + wrong):11.4f}{wrong / asked:16.2%}"


def simpler(streams: Sequence[Stream]) -> Iterable[Score]:
    """Equal questions only; fixed thresholds. Sums over the streams."""
    yield total([played("exact", stream, partial(equal, stream)) for stream in streams])
    fixed = [total([played(f"{least}", stream, nearest(stream, least)) for stream in streams]) for least in STATIC]
    yield best(fixed)
    yield fixed[STATIC.index(GPTCACHE)]


def total(rows: Sequence[Score]) -> Score:
    right, wrong, ideal, requests = (sum(column) for column in zip(*(row[1:] for row in rows), strict=True))
    return Score(rows[0].name, right, wrong, ideal, requests)


def streams_of(groups: Sequence[Group], embeddings: Embeddings) -> list[Stream]:
    """Several orders of asking."""
    randoms = [Random(100 + seed) for seed in range(ORDERS)]  # noqa: S311
    return [Stream(stream_of(groups, random, twins=0.5), embeddings) for random in randoms]


def tried(language: str, belief: Belief, groups: Sequence[Group], limit: float, embeddings: Embeddings) -> Numbers:
    """Right and wrong hits, requests of a kind that was asked before, and all requests, over several orders."""
    counts = np.zeros(4)
    judge = Judge(0.02)
    judge.limit = limit
    for seed, stream in enumerate(streams_of(groups, embeddings)):
        replay = Replay(stream, judge, seed=seed)
        replay.experience.beliefs[language] = belief
        outcomes = replay.run()
        hits = [outcome.right for outcome in outcomes if outcome.right is not None]
        counts += sum(hits), len(hits) - sum(hits), sum(outcome.seen for outcome in outcomes), len(outcomes)
    return counts


if __name__ == "__main__":
    raise SystemExit(main())
