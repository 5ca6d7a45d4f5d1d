"""The files of a spool: one locked folder for each process, and in it segments of one record a line.

    <folder>/               of one service, region and purpose
        4711-0/             the journal of one process; it holds a lock (flock) on the folder while it lives
            000001.jsonl    what has begun and what has ended, in the order in which it came
            000002.jsonl    begins with what had begun and not ended, so that older segments may go

A journal that nobody locks is that of a dead process, and whoever locks it may take it over.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec

log = logging.getLogger("isochrone.durable")


class Keyed(Protocol):
    """A record with a name inside one process: what has begun and ended is known by the same one."""

    @property
    def key(self) -> Hashable: ...


B = TypeVar("B", bound=Keyed)
E = TypeVar("E", bound=Keyed)


class Form(NamedTuple, Generic[B, E]):
    """How entries of one kind are noted: B says that something has begun, E (the type `ended`) how it has ended.

    `what` names them in messages. `encode` gives JSON without a line end, `decode` is its inverse and raises msgspec's
    DecodeError. `lost` is the entry of what had begun in a process that died.
    """

    what: str
    encode: Callable[[B | E], bytes]
    decode: Callable[[bytes], B | E]
    ended: type[E]
    lost: Callable[[B], E]

    def record_of(self, what: B | E) -> bytes:
        """One line, its end in front: what a full disk has torn spoils no later line."""
        return b"\n" + self.encode(what)


class Segment:
    """One file. `waiting` of its records have not reached the store yet; those of a `spilled` one are not in memory
    either; the `live` one is being written."""

    __slots__ = ("journal", "live", "path", "size", "spilled", "waiting")

    def __init__(self, journal: Journal[Any, Any], path: Path, *, spilled: bool, live: bool) -> None:
        self.journal = journal
        self.path = path
        self.size = 0
        self.waiting = 0
        self.spilled = spilled
        self.live = live

    def settle(self) -> None:
        """One of its records needs it no more."""
        self.waiting -= 1
        self.discard_if_done()

    def discard_if_done(self) -> None:
        """Delete it if nobody needs it any more."""
        if not (self.waiting or self.live):
            self.journal.discard(self)

    def lines(self) -> list[bytes]:
        """What can be read of it."""
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line]
        except OSError as error:
            log.warning("%s: cannot be read back (%s)", self.path, error.strerror)
            return []


class Waiting(NamedTuple, Generic[E]):
    """An entry on its way to the store, and where it is kept meanwhile."""

    entry: E
    segment: Segment | None

    def settle(self) -> None:
        """It has reached the store, or never will."""
        if self.segment:
            self.segment.settle()


class Journal(Generic[B, E]):
    """All segments of one process, oldest first. `lost` counts entries that could not be read back."""

    def __init__(self, path: Path, lock: int, form: Form[B, E]) -> None:
        self.path = path
        self.segments: deque[Segment] = deque()
        self.lost = 0
        self._lock = lock
        self._form = form
        self._numbers = count(1)

    def add(self, *, spilled: bool) -> tuple[Segment, int]:
        """A new live segment and its file. Raises OSError."""
        path = self.path / f"{next(self._numbers):06}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        segment = Segment(self, path, spilled=spilled, live=True)
        self.segments.append(segment)
        return segment, file

    def read_oldest(self) -> list[Waiting[E]] | None:
        """The entries of the oldest spilled segment, which so are in memory again; None when there is none."""
        segment = next((known for known in self.segments if known.spilled), None)
        if segment is None:
            return None
        entries = self._entries_in(segment)
        segment.spilled = False
        segment.discard_if_done()
        return entries

    def _entries_in(self, segment: Segment) -> list[Waiting[E]]:
        found = self._records_in(segment)
        entries = [Waiting(record, segment) for record in found if isinstance(record, self._form.ended)]
        self.lost += segment.waiting - len(entries)
        segment.waiting = len(entries)
        return entries

    def _records_in(self, segment: Segment) -> Iterator[B | E]:
        torn = 0
        for line in segment.lines():
            try:
                yield self._form.decode(line)
            except msgspec.DecodeError:
                torn += 1
        if torn:
            log.warning("%s: %d lines cannot be read", segment.path, torn)

    def discard(self, segment: Segment) -> None:
        """Delete one segment."""
        with suppress(ValueError):
            self.segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it: an empty folder goes, another one is whoever's comes next."""
        if not self.segments:
            with suppress(OSError):
                self.path.rmdir()
        os.close(self._lock)


class DeadJournal(Journal[B, E]):
    """That of a dead process. After its last entry come those of what it began and never ended; until the store has
    them, so long stay the segments that note them, since we may die, too."""

    def __init__(self, path: Path, lock: int, form: Form[B, E]) -> None:
        super().__init__(path, lock, form)
        # Callers name their requests: two that begin in the same moment may have the same name.
        self._begun: dict[Hashable, list[tuple[B, Segment]]] = {}
        for known in sorted(path.glob("*.jsonl")):
            self.segments.append(Segment(self, known, spilled=True, live=False))

    def _entries_in(self, segment: Segment) -> list[Waiting[E]]:
        entries: list[Waiting[E]] = []
        is_last = segment is self.segments[-1]
        for record in self._records_in(segment):
            segment.waiting += 1
            if isinstance(record, self._form.ended):
                self._settle_note(record.key)
                entries.append(Waiting(record, segment))
            else:
                self._settle_note(record.key, but=segment)
                self._begun.setdefault(record.key, []).append((cast(B, record), segment))
        if is_last:
            notes = chain.from_iterable(self._begun.values())
            entries += [Waiting(self._form.lost(begun), noted_in) for begun, noted_in in notes]
        return entries

    def _settle_note(self, key: Hashable, *, but: Segment | None = None) -> None:
        """One note of that name is not needed any more, if there is one that is not in the segment `but`."""
        notes = self._begun.get(key, [])
        for number, (_, noted_in) in enumerate(notes):
            if noted_in is not but:
                del notes[number]
                noted_in.settle()
                return


def create_journal(folder: Path, form: Form[B, E]) -> Journal[B, E]:
    """A new one in `folder`, which is made if it is not there. Raises OSError."""
    for number in count():
        _make_private(folder)
        path = folder / f"{os.getpid()}-{number}"
        with suppress(FileExistsError, FileNotFoundError):  # somebody who ends may take the empty folder away
            path.mkdir(mode=0o700)
            if (lock := _lock(path)) is not None:
                return Journal(path, lock, form)
    raise AssertionError  # count() has no end


def _make_private(folder: Path) -> None:
    """A folder of ours alone. Raises OSError, also when somebody else has put one there before us."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to somebody else", str(folder))


def journals_of_the_dead(folder: Path, form: Form[B, E]) -> Iterator[DeadJournal[B, E]]:
    """Those in `folder` that nobody locks; now they are ours. Raises OSError."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (lock := _lock(path)) is not None:
            yield DeadJournal(path, lock, form)


def _lock(path: Path) -> int | None:
    """A file descriptor that holds the lock on a folder; None when somebody else has it, or has deleted the folder."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None
