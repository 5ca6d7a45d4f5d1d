#!/usr/bin/env python3
"""How often the semantic decision answers rightly and wrongly on streams of questions, beside simpler caches.

Takes streams: JSON lines (may be gzipped) with `text` and `cls`, asked in that order by one tenant who knows nothing at
first. What missed is known from then on. A hit is right when the known question's class is the request's. Nothing is
fitted here. The answers that production compares to learn are stood for by the classes, so the figures hold where the
comparison of answers is right. Without a file it plays the questions of tests/data/twins_*.jsonl, in a random order;
the shipped priors were fitted to these, so scripts/fit_semantic.py has the fair figures of ours on them.

With --twins it asks every look-alike of tests/data/twins_*.jsonl (or of the given files) of a cache that knows the
question it resembles, without learning, and says how many were answered.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from math import sqrt
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from isochrone.answers.semantic.decision import Experience, Judge, Lessons, Verdict
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.words import normalised
from semantic.replay import TWINS, Embeddings, Group, Replay, Stream, Timed, read_stream, read_twins, stream_of

BOUNDS = (0.005, 0.01, 0.02, 0.03)
DEFAULT = 0.02
STATIC = tuple(round(0.8 + 0.005 * step, 3) for step in range(40))
GPTCACHE = 0.8
PRECISION = 0.97
Z95 = 1.96


class Score(NamedTuple):
    """`ideal`: requests whose class was asked before."""

    name: str
    right: int
    wrong: int
    ideal: int
    requests: int

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="streams, or files of twins; default: those of tests/data")
    parser.add_argument("--max-error", type=float, nargs="*", default=BOUNDS, help="values of semantic.max_error")
    parser.add_argument("--orders", type=int, default=1, help="how many seeds of chance are averaged")
    parser.add_argument("--cpu", action="store_true", help="also measure the CPU time of a look-up")
    parser.add_argument("--twins", action="store_true", help="ask look-alikes instead")
    arguments = parser.parse_args()
    embeddings = Embeddings()
    for file in arguments.files or sorted(TWINS.glob("twins_*.jsonl")):
        if arguments.twins:
            print("\n".join(twins(file, read_twins(file), arguments.max_error, embeddings)))
            continue
        asked = read_stream(file) if arguments.files else stream_of(read_twins(file), Random(0), twins=0.5)  # noqa: S311
        stream = Stream(asked, embeddings)
        print("\n".join(report(file.name, scores(stream, arguments.max_error, arguments.orders))))
        if arguments.cpu:
            print(cost(stream, embeddings))
    return 0


def scores(stream: Stream, bounds: Sequence[float], seeds: int) -> Iterable[Score]:
    """Simpler caches first, then ours at each bound."""
    yield played("exact, normalised", stream, lambda at, known: equal(stream, at, known))
    yield best([played(f"cosine >= {least}", stream, nearest(stream, least)) for least in STATIC])
    yield played(f"GPTCache's {GPTCACHE}", stream, nearest(stream, GPTCACHE))
    for bound in bounds:
        yield mean([ours(stream, bound, seed) for seed in range(seeds)])
    yield ours(stream, DEFAULT, 0, learning=False)


def best(rows: Sequence[Score]) -> Score:
    """The one that finds most with that precision, or the most precise where none has it."""
    good = [row for row in rows if row.precision >= PRECISION]
    found = max(good, key=lambda row: row.right) if good else max(rows, key=lambda row: row.precision)
    return found._replace(name=f"best {found.name}")


def mean(rows: Sequence[Score]) -> Score:
    """Of runs that differ in chance only."""
    right, wrong = (round(sum(counts) / len(rows)) for counts in ([r.right for r in rows], [r.wrong for r in rows]))
    return rows[0]._replace(right=right, wrong=wrong)


def equal(stream: Stream, at: int, known: Sequence[int]) -> int | None:
    text = normalised(stream.texts[at])
    return next((place for place in known if normalised(stream.texts[place]) == text), None)


def nearest(stream: Stream, least: float) -> Callable[[int, Sequence[int]], int | None]:
    """The nearest known question if its cosine is at least that: what caches with one threshold do."""

    def find(at: int, known: Sequence[int]) -> int | None:
        places = np.array(known)
        place = int(places[stream.cosines[at, places].argmax()])
        return place if stream.cosines[at, place] >= least else None

    return find


def played(name: str, stream: Stream, find: Callable[[int, Sequence[int]], int | None]) -> Score:
    """A cache without memory of its own: it finds a known place, or None."""
    known, kinds, counts = list[int](), set[int](), Counter[str]()
    for at, asked in enumerate(stream.asked):
        counts["ideal"] += asked.kind in kinds
        kinds.add(asked.kind)
        place = find(at, known) if known else None
        if place is None:
            known.append(at)
        else:
            counts["right" if stream.asked[place].kind == asked.kind else "wrong"] += 1
    return Score(name, counts["right"], counts["wrong"], counts["ideal"], len(stream.asked))


def ours(stream: Stream, bound: float, seed: int, *, learning: bool = True) -> Score:
    outcomes = Replay(stream, Judge(bound), seed=seed, learning=learning).run()
    hits = [outcome.right for outcome in outcomes if outcome.right is not None]
    name = f"ours, max_error {bound}" + ("" if learning else ", learning nothing")
    return Score(name, sum(hits), len(hits) - sum(hits), sum(outcome.seen for outcome in outcomes), len(outcomes))


def report(name: str, rows: Iterable[Score]) -> Iterable[str]:
    """A table; in brackets are 95 % intervals (Wilson 1927)."""
    yield f"\n{name}"
    yield f"{'':34}{'recall':>8} {'precision':>24} {'wrong of requests':>26}"
    for row in rows:
        hits = row.right + row.wrong
        low, high = interval(row.wrong, hits)
        least, most = interval(row.wrong, row.requests)
        yield (
            f"{row.name:34}{row.right / row.ideal:8.3f} {row.precision:8.4f} ({1 - high:.4f}-{1 - low:.4f})"
            f" {row.wrong / row.requests:8.2%} ({least:.2%}-{most:.2%})"
        )


def interval(count: int, of: int) -> tuple[float, float]:
    """Where the true share lies with 95 % confidence."""
    share, doubt = count / max(1, of), Z95**2 / max(1, of)
    middle = (share + doubt / 2) / (1 + doubt)
    reach = Z95 * sqrt(share * (1 - share) / max(1, of) + doubt / (4 * max(1, of))) / (1 + doubt)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def cost(stream: Stream, embeddings: Embeddings) -> str:
    replay = Timed(stream, Judge(DEFAULT), embeddings)
    replay.run()
    milliseconds = np.array(replay.seconds) * 1000
    return (
        f"CPU of a look-up, with its search by numpy: mean {milliseconds.mean():.1f} ms, "
        f"p99 {np.quantile(milliseconds, 0.99):.1f} ms; {replay.embedded / len(stream.texts):.0%} were embedded"
    )


def twins(file: Path, groups: Sequence[Group], bounds: Sequence[float], embeddings: Embeddings) -> Iterable[str]:
    """How many look-alikes are refused, by what, and how many are answered all the same before anything is learned;
    beside them how many of those that do ask the same."""
    alike = [(text, other) for group in groups for text in (group.ask, *group.same) for other in group.other]
    same = [pair for group in groups for pair in permutations((group.ask, *group.same), 2)]
    alike += [(known, asked) for asked, known in alike]
    reasons = Counter(objection(*pair) or "no guard" for pair in alike)
    yield f"\n{file.name}: {len(alike)} look-alikes; " + ", ".join(f"{why} {n}" for why, n in reasons.most_common())
    for bound in bounds:
        wrong, right = (answered(pairs, Judge(bound), embeddings) for pairs in (alike, same))
        yield (
            f"  max_error {bound}: answered {wrong} of {len(alike)} look-alikes ({wrong / len(alike):.2%}),"
            f" {right} of {len(same)} that ask the same ({right / len(same):.1%})"
        )


def answered(pairs: Sequence[tuple[str, str]], judge: Judge, embeddings: Embeddings) -> int:
    """Of each alone in a cache, by one who has learned nothing."""
    texts = sorted({text for pair in pairs for text in pair})
    vectors = dict(zip(texts, embeddings.of(texts), strict=True))
    weighed = (
        judge.weigh(
            asked,
            known,
            float(vectors[asked] @ vectors[known]),
            lessons=Lessons(),
            experience=Experience(),
            chance=1.0,
        )
        for asked, known in pairs
    )
    return sum(one.verdict is Verdict.HIT for one in weighed)


if __name__ == "__main__":
    raise SystemExit(main())
