"""What makes an outbox durable: what begins is noted on disk until the store has its entry.

It survives the death of the process, also SIGKILL: the system keeps what was written, so there is no fsync, and a
machine that loses power may lose its last seconds. The store must take the same entry twice without harm: what is on
disk may be handed over once too often, never once too seldom.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import deque
from collections.abc import Hashable, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Generic

from isochrone.durable.journal import B, E, Form, Journal, Segment, Waiting, create_journal, journals_of_the_dead
from isochrone.settings import Settings

log = logging.getLogger("isochrone.durable")

# About 500 entries: read back in milliseconds, so that requests get their turn.
SEGMENT_BYTES = 256 * 1024
# With the above 250 MiB, half of what a Lambda has, or half a million entries.
MAX_SEGMENTS = 1000


class NoSpool(Generic[B, E]):
    """A buffer without a disk; says what `Spool` does.

    `failures` counts writes that the disk did not take.
    """

    failures = 0

    @property
    def lost(self) -> int:
        """How many entries had to make room for newer ones, or could not be read back."""
        return 0

    @property
    def spilled(self) -> int:
        """How many entries of this process are on disk only."""
        return 0

    def begun(self, what: B) -> None:
        """Note that something begins."""

    def ended(self, entry: E) -> Segment | None:
        """Keep its entry; None when that was not possible."""

    def spill(self) -> None:
        """From now on entries are only kept here, if that is possible."""

    def take_back(self) -> list[Waiting[E]]:
        """Some of the entries that are only here; none when all are in memory."""
        return []

    def tidy(self) -> None:
        """Forget what nobody waits for."""

    def adopt(self) -> None:
        """Take over what dead processes left."""

    def close(self) -> None:
        """The process ends; what waits stays for the next one."""


class Spool(NoSpool[B, E]):
    """The notes of one process in `folder`, which is made when the first one is written.

    A disk that is full or read-only fails no request: the entries then have only the memory, as without a spool.
    """

    def __init__(
        self,
        folder: Path,
        form: Form[B, E],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        max_segments: int = MAX_SEGMENTS,
    ) -> None:
        self._folder = folder
        self._form = form
        self._segment_bytes = segment_bytes
        self._max_segments = max_segments
        self._journal: Journal[B, E] | None = None
        self._live: Segment | None = None
        self._file = -1
        self._open: dict[Hashable, list[bytes]] = {}
        self._left: deque[Journal[B, E]] = deque()
        self._ailing = False
        self._dropped = 0
        self.failures = 0

    @property
    def lost(self) -> int:
        return self._dropped + (self._journal.lost if self._journal else 0)

    @property
    def spilled(self) -> int:
        return sum(segment.waiting for segment in self._segments if segment.spilled)

    @property
    def _segments(self) -> deque[Segment]:
        return self._journal.segments if self._journal else deque()

    @property
    def _journals(self) -> list[Journal[B, E]]:
        return [self._journal, *self._left] if self._journal else [*self._left]

    def begun(self, what: B) -> None:
        record = self._form.record_of(what)
        self._append(record)
        self._open.setdefault(what.key, []).append(record)

    def ended(self, entry: E) -> Segment | None:
        self._close(entry.key)
        segment = self._append(self._form.record_of(entry))
        if segment:
            segment.waiting += 1
        return segment

    def _close(self, key: Hashable) -> None:
        """One that began under this name has ended; callers choose names, so there may be another."""
        if notes := self._open.get(key):
            notes.pop()
            if not notes:
                del self._open[key]

    def _append(self, record: bytes) -> Segment | None:
        try:
            live = self._live
            if live is None or live.size + len(record) > self._segment_bytes:
                live = self._begin_segment(spilled=live is not None and live.spilled)
            self._write(live, record)
        except OSError as error:
            self._complain(error)
            return None
        self._ailing = False
        return live

    def _write(self, live: Segment, record: bytes) -> None:
        written = os.write(self._file, record)
        live.size += written
        if written < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _complain(self, error: OSError) -> None:
        self.failures += 1
        if not self._ailing:
            self._ailing = True
            log.error(
                "%s cannot be written (%s): until it can, %s that are not delivered yet die with this process",
                error.filename or self._folder,
                error.strerror,
                self._form.what,
            )

    def _begin_segment(self, *, spilled: bool) -> Segment:
        if self._journal is None:
            self._journal = create_journal(self._folder, self._form)
        old, old_file = self._live, self._file
        self._live, self._file = self._journal.add(spilled=spilled)
        if len(self._segments) > self._max_segments:
            self._drop_oldest()
        try:
            if self._open:
                self._write(self._live, b"".join(chain.from_iterable(self._open.values())))
        finally:  # only now, because it may hold the only notes of what is open
            _end_segment(old, old_file)
        return self._live

    def _drop_oldest(self) -> None:
        oldest = self._segments[0]
        if oldest.spilled:
            self._dropped += oldest.waiting
            log.error("%s is full: %d %s are lost", self._folder, oldest.waiting, self._form.what)
        oldest.journal.discard(oldest)

    def spill(self) -> None:
        if self._live and self._live.spilled:
            return
        try:
            self._begin_segment(spilled=True)
        except OSError as error:
            self._complain(error)

    def take_back(self) -> list[Waiting[E]]:
        for journal in self._journals:
            while (entries := journal.read_oldest()) is not None:
                if entries:
                    return entries
        return []

    def tidy(self) -> None:
        if self._live and self._live.size and not (self._live.waiting or self._live.spilled or self._open):
            os.ftruncate(self._file, 0)
            self._live.size = 0
        while self._left and not self._left[0].segments:
            self._left.popleft().close()

    def adopt(self) -> None:
        try:
            self._left.extend(journals_of_the_dead(self._folder, self._form))
        except FileNotFoundError:
            return  # nobody has written here yet
        except OSError as error:
            log.warning("%s cannot be looked through (%s)", self._folder, error.strerror)

    def close(self) -> None:
        _end_segment(self._live, self._file)
        self._live = None
        for journal in self._journals:
            journal.close()
        self._journal = None
        self._left.clear()
        with suppress(OSError):  # another process writes here, or left something
            self._folder.rmdir()


def folder_for(settings: Settings, region: str, environ: Mapping[str, str], *, purpose: str = "") -> Path:
    """Where the edges of one region, and one cloud, keep the spool of one purpose on this machine."""
    place = re.sub(r"[^A-Za-z0-9.]+", "-", settings.state.endpoint_url or "aws")
    name = f"{settings.service.name}-{region}-{place}{purpose}"
    if settings.state.spool:
        return Path(settings.state.spool, name)
    return Path(environ.get("TMPDIR") or "/tmp", f"isochrone-{os.getuid()}-{name}")  # noqa: S108


def _end_segment(segment: Segment | None, file: int) -> None:
    if segment:
        os.close(file)
        segment.live = False
        segment.discard_if_done()
