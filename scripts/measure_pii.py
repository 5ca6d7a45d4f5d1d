"""How well personal data is found: precision and recall by kind and language, on the labelled lines of tests/data/pii.

    .venv/bin/python scripts/measure_pii.py             both halves
    .venv/bin/python scripts/measure_pii.py --misses    and the lines of the development half that went wrong
    .venv/bin/python scripts/measure_pii.py --speed     CPU of a request and of an event of a stream

A thing counts as found when exactly it was found, from its first to its last character. The lines of the held-out half
are never shown: whoever mends a detector looks at the other half.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from timeit import timeit
from typing import Any, NamedTuple

from isochrone.api.requests import CHAT, Ask
from isochrone.api.sse import Event
from isochrone.pii.detectors import finder
from isochrone.pii.redactor import Redactor
from isochrone.pii.restoring import Restoring
from isochrone.pii.vault import Vault
from isochrone.settings import Pii

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


ENGLISH = "Please summarise the following report about the quarterly results of the company and its products. " * 20
CHINESE = "请帮我总结一下这份关于公司季度业绩以及许多产品的报告，重点说明收入和成本的变化情况。" * 20
THINGS = " Mail jane@example.com, call 13812345678, charge 4111 1111 1111 1111."


def speeds() -> Iterator[str]:
    """CPU of taking out and of putting back, as the table in docs/privacy.md."""
    redactor = Redactor(finder(Pii().kinds))
    yield "| what | CPU |"
    yield "|---|---|"
    prompts = {
        "a prompt of 2,000 bytes, English": ENGLISH[:2000],
        "a prompt of 2,000 bytes, Chinese": CHINESE.encode()[:2000].decode("utf-8", "ignore"),
        "a prompt of 2,000 bytes that holds three things": ENGLISH[: 2000 - len(THINGS)] + THINGS,
    }
    for what, text in prompts.items():
        ask = Ask(CHAT, "m", False, False, {"model": "m", "messages": [{"role": "user", "content": text}]})
        yield f"| {what} | {_microseconds(partial(redactor.redact, ask, 'upstream')):.0f} us |"
    vault = Vault()
    vault.take("jane@example.com", "EMAIL")
    events = {"an event of a stream": " hello", "one with a placeholder": "[EMAIL_1]", "one with an escape": "\n"}
    for what, text in events.items():
        feed = partial(Restoring(vault).feed, [_event(text)])
        yield f"| {what} | {_microseconds(feed):.1f} us |"


def _event(text: str) -> Event:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    data = json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode()
    return Event(b"data: " + data + b"\n\n", data)


def _microseconds(work: Callable[[], object], times: int = 2000) -> float:
    """The CPU that it takes, at the best of five tries."""
    return min(timeit(work, number=times // 5, timer=process_time) for _ in range(5)) * 5e6 / times


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--misses", action="store_true", help="show what went wrong in the development half")
    parser.add_argument("--speed", action="store_true", help="measure CPU instead")
    parser.add_argument("--split", choices=("development", "held-out"), help="only this half")
    chosen = parser.parse_args(arguments)
    if chosen.speed:
        print("\n".join(speeds()))
        return 0
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
