"""Audit logs as they lie on a disk: files of an edge, or objects that were fetched from the bucket."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO

import msgspec

from isochrone.audit.entry import AuditEntry, Flag
from isochrone.audit.verification import Line

_ENDINGS = (".jsonl", ".json", ".gz")
_GZIP = b"\x1f\x8b"
# Where one object ends and the next begins without a line end: no text inside of an object can look like that, since a
# quotation mark in it has a backslash before it.
_SEAM = re.compile(rb'(?<="\})(?=\{")')


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The named files, and those of the named folders that look like logs; in the order of their hours."""
    found = {path for path in paths if not path.is_dir()}
    for folder in paths:
        if folder.is_dir():
            found |= {path for path in folder.rglob("*") if path.is_file() and path.name.endswith(_ENDINGS)}
    return sorted(found, key=lambda path: (path.name, path))


def lines_of(files: Iterable[Path]) -> Iterator[Line]:
    """Every line with its place. Raises OSError; an archive that ends too early gives a line that is no entry."""
    for path in files:
        number = 0
        with _opened(path) as file:
            try:
                for number, text in enumerate(file, 1):
                    for raw in _SEAM.split(text.rstrip(b"\n")):
                        if raw:
                            yield Line(f"{path}:{number}", raw)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                yield Line(f"{path}:{number + 1}", b"(an archive that is cut or changed)")


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP
    return io.BufferedReader(gzip.GzipFile(path)) if is_packed else path.open("rb")


def entries_of(lines: Iterable[Line]) -> Iterator[AuditEntry | Flag]:
    """Every request and every flag once, as its line says; lines that cannot be read are left out, since `verify`
    speaks of those."""
    decode = msgspec.json.Decoder(AuditEntry | Flag).decode
    seen: set[bytes] = set()
    for line in lines:
        try:
            entry = decode(line.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        digest = sha256(line.raw).digest()
        if digest not in seen:
            seen.add(digest)
            yield entry
