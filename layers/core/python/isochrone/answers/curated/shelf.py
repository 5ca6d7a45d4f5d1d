"""The curated answers of a running edge: those of a file, under those of the directory, at most 30 s old.

Whatever is wrong with the directory, the last version that was whole goes on answering.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from isochrone.answers.composed import Estimate
from isochrone.answers.curated.archive import Archive, Version
from isochrone.answers.curated.book import BookError, CuratedBook, Likeness
from isochrone.answers.curated.entry import Entry
from isochrone.answers.curated.sheet import Row, SheetError, read
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.known import Known
from isochrone.background import Background
from isochrone.settings import SettingsError
from isochrone.stores.protocols import DirectoryStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

FRESH_SECONDS = 30.0
# What a request waits for the directory at most; the book of before is as good for it.
_PATIENCE_SECONDS = 0.25


class Shelf:
    """`fixed` are the entries of the file. Times are epoch seconds."""

    def __init__(
        self,
        store: DirectoryStore | None,
        fixed: Sequence[Entry] = (),
        *,
        estimate: Estimate,
        background: Background,
        likeness: Likeness | None = None,
    ) -> None:
        self._archive = Archive(store) if store else None
        self._background = background
        self._fixed = {entry.id: entry for entry in fixed}
        self._make_book = partial(CuratedBook, estimate=estimate, likeness=likeness)
        self._version: Version | None = None
        self._unread = 0
        self._looked_at = float("-inf")
        self.book = self._make_book(fixed)

    def status(self) -> dict[str, int]:
        """The version of the directory that answers, 0 for none, and how often there was no reading it."""
        return {"version": self._version.version if self._version else 0, "unread": self._unread}

    async def look_up(self, inquiry: Inquiry, *, now: float) -> Known | None:
        """The standard answer to a request. A directory that is slow to tell what is new is not waited for."""
        if self._archive and now - self._looked_at >= FRESH_SECONDS:
            self._looked_at = now
            reading = self._background.start(self.refresh(now))
            await asyncio.wait([reading], timeout=_PATIENCE_SECONDS)
        return self.book.look_up(inquiry, now=now)

    async def refresh(self, now: float) -> None:
        """Read the directory's version anew if it is another one. Never raises but for being cancelled."""
        self._looked_at = now
        if self._archive is None:
            return
        try:
            await self._read(self._archive)
        except StoreUnavailable as error:
            self._go_on(f"the directory is unavailable: {error}")
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
            self._go_on(f"the directory's cannot be used: {error}")

    def _go_on(self, why: str) -> None:
        self._unread += 1
        log.warning("curated answers: going on with version %d, since %s", self.status()["version"], why)

    async def _read(self, archive: Archive) -> None:
        version = await archive.current()
        if version is None or version == self._version:
            return
        entries = await archive.entries(version)
        if entries is None:
            self._go_on(f"version {version.version} is not whole yet")
            return
        merged = self._fixed | {entry.id: entry for entry in entries}
        # A large book takes tenths of a second to index; other requests go on meanwhile.
        self.book = await asyncio.to_thread(self._make_book, merged.values(), written=version.written)
        self._version = version


def load_file(path: Path, *, estimate: Estimate) -> list[Entry]:
    """The entries of the file that `answers.curated` names, checked as one book. Raises SettingsError."""
    try:
        rows = read(path.read_bytes(), name=str(path))
    except OSError as error:
        raise SettingsError(f"answers.curated: {path}: {error.strerror or error}") from None
    except SheetError as error:
        raise SettingsError(f"answers.curated: {error}") from None
    try:
        CuratedBook((row.entry for row in rows), estimate=estimate)
    except BookError as error:
        raise SettingsError(f"answers.curated: {located(error, rows, str(path))}") from None
    return [row.entry for row in rows]


def located(error: BookError, rows: Sequence[Row], name: str) -> str:
    """What is wrong with a whole book, with the line of the file that said it last."""
    line = max((row.line for row in rows if row.entry.id in error.ids), default=1)
    return f"{name}:{line}: {error}"
