"""Audit logs in files of this machine: a folder for each day, in it a file for each hour and edge.

    .local/audit/2026-11-23/2026-11-23T09-eu-west-1.jsonl

Several processes of an edge write to the same file, one at a time, so that its lines stay whole and in order.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from isochrone.stores.protocols import StoreUnavailable

_DAY = re.compile(r"^\d{4}-\d\d-\d\d$")
_DAY_SECONDS = 86_400
_TAIL_BYTES = 65_536


class FileSink:
    """Appends to the file of the hour, and takes away days that are more than `days` ago. `clock`: epoch seconds."""

    to = "file"

    def __init__(self, folder: Path, *, edge: str, days: int, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._edge = edge
        self._days = days
        self._clock = clock
        self._tidied = ""

    async def put(self, lines: Sequence[bytes]) -> None:
        """Append all lines, or none. Raises StoreUnavailable."""
        now = self._clock()
        hour = time.strftime("%Y-%m-%dT%H", time.gmtime(now))
        path = self._folder / hour[:10] / f"{hour}-{self._edge}.jsonl"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _append(path, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise StoreUnavailable(f"{error.filename or path}: {error.strerror or error}") from None
        if hour[:10] != self._tidied:
            self._tidied = hour[:10]
            with suppress(OSError):  # the lines are kept, and a later day tries again
                self._take_away_before(time.strftime("%Y-%m-%d", time.gmtime(now - self._days * _DAY_SECONDS)))

    def _take_away_before(self, day: str) -> None:
        """Only what this class has made: nothing else in the folder is touched."""
        for folder in self._folder.iterdir():
            if _DAY.match(folder.name) and folder.name < day:
                for file in folder.glob(f"{folder.name}T[0-9][0-9]-{self._edge}.jsonl"):
                    file.unlink()
                with suppress(OSError):  # another edge's files are still in it
                    folder.rmdir()

    async def close(self) -> None:
        """Nothing stays open between two puts."""


def _append(path: Path, text: bytes) -> None:
    """All of `text` or nothing of it. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _cut_off_torn_line(file)
        if os.write(file, text) < len(text):
            os.ftruncate(file, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(file)


def _cut_off_torn_line(file: int) -> int:
    """Where whole lines end. What a process that was killed wrote behind it comes again, whole, from its spool."""
    size = os.fstat(file).st_size
    tail = os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if 0 < torn < _TAIL_BYTES:
        os.ftruncate(file, size - torn)
        return size - torn
    return size
