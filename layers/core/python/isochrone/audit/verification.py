"""Is a log what was written? Looks at all its lines, wherever they lie, and says which was changed and what is missing.

The order of the files' lines matters only where the writer wrote to files: deliveries through Firehose may change it.
The same line twice is harmless, as whoever delivers at least once may deliver twice; the first one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from isochrone.audit.chain import NOTHING, Link, began_at, link_of, place_in
from isochrone.stores.entries import Checkpoint


class Line(NamedTuple):
    """One line and where it stands, as `FILE:NUMBER`."""

    where: str
    raw: bytes


class Finding(Struct, frozen=True):
    """Something that is not as it was written, and where."""

    where: str
    what: str


class _Told(Struct):
    """What the check reads of an entry."""

    record: str
    time: int
    to: str = ""


class _Entry(NamedTuple):
    link: Link
    where: str
    time: int
    record: str


class _Writer(Struct):
    """What was found of one chain. `damaged` are numbers whose lines are there and no longer what they were."""

    entries: dict[int, _Entry] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    last_read: int = -1
    ordered: bool = False

    @property
    def numbers(self) -> list[int]:
        return sorted({*self.entries, *self.damaged})

    def where(self, seq: int) -> str:
        """Where an entry stands."""
        return self.entries[seq].where if seq in self.entries else "checkpoint"


class Report(Struct, kw_only=True):
    """The findings, and how much was looked at. `repeated` lines are harmless; `open_ended` entries are newer than the
    last checkpoint of their writer, so nothing tells whether more of them should be there."""

    findings: list[Finding]
    entries: int
    repeated: int
    writers: int
    checkpoints: int
    open_ended: int
    heads: list[Checkpoint]

    @property
    def is_intact(self) -> bool:
        return not self.findings


def verify(lines: Iterable[Line], checkpoints: Sequence[Checkpoint] = (), *, since: int = 0) -> Report:
    """Check lines in the order of their files. `since` (epoch milliseconds): chains may begin before it, and what is
    missing from before it is not missed; a writer that began after it must be there from its beginning on."""
    return _Check(since).run(lines, checkpoints)


class _Check:
    def __init__(self, since: int) -> None:
        self._since = since
        self._writers: dict[str, _Writer] = {}
        self._findings: list[Finding] = []
        self._unreadable: list[Line] = []
        self._repeated = 0

    def run(self, lines: Iterable[Line], checkpoints: Sequence[Checkpoint]) -> Report:
        for line in lines:
            self._read(line)
        for line in self._unreadable:
            self._judge_unreadable(line)
        for name, writer in self._writers.items():
            self._findings += _breaks(name, writer, self._since)
        known = [point for point in checkpoints if point.time >= self._since]
        by_writer: dict[str, list[Checkpoint]] = {}
        for point in sorted(known, key=lambda point: point.seq):
            by_writer.setdefault(point.writer, []).append(point)
        for name, points in by_writer.items():
            self._compare(name, points)
        if known:
            self._findings += self._unvouched({point.writer for point in checkpoints})
        return self._report(known)

    def _find(self, where: str, what: str) -> None:
        self._findings.append(Finding(where, what))

    def _read(self, line: Line) -> None:
        link, told = link_of(line.raw), _told(line.raw)
        if link is None or (link.intact and told is None):
            self._unreadable.append(line)
            return
        writer = self._writers.setdefault(link.writer, _Writer())
        if told is None or not link.intact:
            writer.damaged.add(link.seq)
            self._find(line.where, f"was changed: entry {link.seq} of writer {link.writer} does not have its own hash")
            return
        self._place(line.where, writer, _Entry(link, line.where, told.time, told.record), told)

    def _place(self, where: str, writer: _Writer, entry: _Entry, told: _Told) -> None:
        link, seq = entry.link, entry.link.seq
        if known := writer.entries.get(seq):
            if known.link.hash == link.hash:
                self._repeated += 1
            else:
                self._find(where, f"is another entry {seq} of writer {link.writer} than the one at {known.where}")
            return
        if told.record == "start":
            writer.ordered = told.to == "file"
        if writer.ordered and seq < writer.last_read:
            self._find(where, f"was moved: entry {seq} of writer {link.writer} comes after entry {writer.last_read}")
        writer.entries[seq] = entry
        writer.last_read = max(seq, writer.last_read)

    def _judge_unreadable(self, line: Line) -> None:
        """What a process that was killed has torn is harmless where the whole line stands elsewhere."""
        place = place_in(line.raw)
        if place and (writer := self._writers.get(place[0])) and place[1] in writer.entries:
            self._repeated += 1
            return
        if place:
            self._writers.setdefault(place[0], _Writer()).damaged.add(place[1])
        self._find(line.where, "is not a whole entry: it was cut or changed")

    def _compare(self, name: str, points: Sequence[Checkpoint]) -> None:
        """One writer with all its checkpoints, in their order. Each cut, and a chain that was rewritten from some place
        on, is one finding, however many checkpoints show it."""
        writer, oldest, newest = self._writers.get(name), points[0].seq, points[-1].seq
        if writer is None:
            self._find("checkpoint", f"nothing is here of writer {name}, who had written entry {newest}")
            return
        numbers = writer.numbers
        if newest > (last := numbers[-1]):
            what = f"the end of writer {name} is cut off: entry {newest} was there, {last} is the last"
            self._find(writer.where(last), what)
        if oldest < (first := numbers[0]):
            self._find(writer.where(first), f"the beginning of writer {name} is cut off: entry {oldest} was there")
        for point in points:
            entry = writer.entries.get(point.seq)
            if entry and entry.link.hash != point.hash:
                what = f"entry {point.seq} of writer {name} is not the one that the checkpoint saw: it was rewritten"
                self._find(entry.where, what)
                return

    def _unvouched(self, vouched: set[str]) -> Iterator[Finding]:
        for name, writer in self._writers.items():
            if name not in vouched and (entries := [e for e in writer.entries.values() if e.time >= self._since]):
                yield Finding(entries[0].where, f"no checkpoint knows writer {name}: its entries may be made up")

    def _report(self, checkpoints: Sequence[Checkpoint]) -> Report:
        seen: dict[str, int] = {}
        for point in checkpoints:
            seen[point.writer] = max(point.seq, seen.get(point.writer, -1))
        heads = [_head(name, writer) for name, writer in sorted(self._writers.items()) if writer.entries]
        return Report(
            findings=self._findings,
            entries=sum(len(writer.entries) for writer in self._writers.values()),
            repeated=self._repeated,
            writers=len(self._writers),
            checkpoints=len(checkpoints),
            open_ended=sum(max(0, head.seq - seen.get(head.writer, -1)) for head in heads),
            heads=heads,
        )


def _told(raw: bytes) -> _Told | None:
    try:
        return msgspec.json.decode(raw, type=_Told)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _breaks(name: str, writer: _Writer, since: int) -> Iterator[Finding]:
    """Where the chain of one writer does not hold together."""
    if began_at(name) >= since:
        yield from _false_start(name, writer)
    for before, number in pairwise(writer.numbers):
        entry, previous = writer.entries.get(number), writer.entries.get(before)
        if number > before + 1:
            yield Finding(writer.where(number if entry else before), _missing(name, before + 1, number - 1))
        elif entry and previous and entry.link.prev != previous.link.hash:
            what = f"does not follow {previous.where}: one of them was put in the place of another entry"
            yield Finding(entry.where, what)


def _missing(name: str, first: int, last: int) -> str:
    if first == last:
        return f"entry {first} of writer {name} is missing before this one"
    return f"entries {first} to {last} of writer {name} are missing before this one"


def _false_start(name: str, writer: _Writer) -> Iterator[Finding]:
    if not writer.entries:
        return
    first = writer.numbers[0]
    entry = writer.entries.get(first) or next(iter(writer.entries.values()))
    if first > 0:
        yield Finding(entry.where, f"the beginning of writer {name} is missing: entry {first} is its first one here")
    if first == 0 and (start := writer.entries.get(0)) and (start.record != "start" or start.link.prev != NOTHING):
        yield Finding(start.where, f"writer {name} does not begin as a writer does")


def _head(name: str, writer: _Writer) -> Checkpoint:
    last = max(writer.entries)
    entry = writer.entries[last]
    return Checkpoint(name, last, entry.link.hash, entry.time)
