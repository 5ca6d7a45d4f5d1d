"""How well personal data is found: precision and recall by kind and language, on the labelled lines of tests/data/pii.

    .venv/bin/python scripts/measure_pii.py             both halves
    .venv/bin/python scripts/measure_pii.py --misses    and the lines of the development half that went wrong

A thing counts as found when exactly it was found, from its first to its last character. The lines of the held-out half
are never shown: whoever mends a detector looks at the other half.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from isochrone.pii.detectors import finder

LINES = Path(__file__).resolve().parent.parent / "tests" / "data" / "pii"
KINDS = ("email", "phone", "id_card", "bank_card", "secret", "ip", "name")
KIND_OF = {
    "EMAIL": "email",
    "PHONE": "phone",
    "ID": "id_card",
    "CARD": "bank_card",
    "IBAN": "bank_card",
    "SECRET": "secret",
    "IP": "ip",
    "NAME": "name",
}


class Tally(NamedTuple):
    """How many things were found rightly, found wrongly, and missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        """Of what was found, the share that is right; 1 where nothing was found."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Of what there is, the share that was found; 1 where there is nothing."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


class Line(NamedTuple):
    """One labelled text."""

    split: str
    language: str
    text: str
    things: frozenset[tuple[str, str]]

    @property
    def found(self) -> frozenset[tuple[str, str]]:
        """What the detectors say: (kind, what stands there)."""
        looking_for = {"ip", "name"} & {kind for kind, _ in self.things} if self.things else set()
        find = finder((*KINDS[:5], *sorted(looking_for))).find
        return frozenset((KIND_OF[one.label], self.text[one.start : one.end]) for one in find(self.text))


def read(folder: Path = LINES) -> Iterator[Line]:
    """All lines of the set."""
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            line: dict[str, Any] = json.loads(text)
            things = frozenset((kind, thing) for kind, thing in line["found"])
            yield Line(line["split"], line["language"], line["text"], things)


def tally(lines: list[Line]) -> dict[tuple[str, str, str], Tally]:
    """By split, language and kind."""
    tallies: Counter[tuple[str, str, str, int]] = Counter()
    for line in lines:
        found = line.found
        for place, things in enumerate((found & line.things, found - line.things, line.things - found)):
            tallies.update((line.split, line.language, kind, place) for kind, _ in things)
    keys = sorted({key[:3] for key in tallies})
    return {key: Tally(*(tallies[*key, place] for place in range(3))) for key in keys}


def table(tallies: dict[tuple[str, str, str], Tally], split: str) -> Iterator[str]:
    """One half, as the table in docs/privacy.md."""
    yield "| kind | language | things | precision | recall |"
    yield "|---|---|---|---|---|"
    for (half, language, kind), one in sorted(tallies.items(), key=lambda item: (KINDS.index(item[0][2]), item[0][1])):
        if half == split:
            yield f"| {kind} | {language} | {one.right + one.missed} | {one.precision:.3f} | {one.recall:.3f} |"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true", help="show what went wrong in the development half")
    parser.add_argument("--split", choices=("development", "held-out"), help="only this half")
    chosen = parser.parse_args(arguments)
    lines = [line for line in read() if chosen.split in (None, line.split)]
    tallies = tally(lines)
    for split in sorted({line.split for line in lines}):
        of_split = [line for line in lines if line.split == split]
        print(f"\n{split}: {len(of_split)} lines, {sum(not line.things for line in of_split)} of them without any\n")
        print("\n".join(table(tallies, split)))
    for line in lines if chosen.misses else ():
        if line.split == "development" and line.found != line.things:
            print(f"\n{line.text}\n  found {sorted(line.found)}\n  is    {sorted(line.things)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
