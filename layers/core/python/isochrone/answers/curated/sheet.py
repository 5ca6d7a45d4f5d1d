"""Curated answers as files that people edit: CSV for spreadsheets, JSONL for programs. All or nothing.

A cell of a CSV holds one phrasing a line, names of tenants and models with commas between them, and variables as
`city = Rome | Milan`, one a line. A column for versions is welcome and not read: versions are counted here.

Spreadsheets are met half way: a byte order mark is written and skipped, a `sep=` line, semicolons and tabs between
cells are understood, and rows and columns that are empty do not count. A cell that a spreadsheet would take for a
formula is written behind an apostrophe, which is not read.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from isochrone.answers.curated.entry import CONTROL, Entry, faults

COLUMNS = ("id", "phrasings", "answer", "tenants", "models", "language", "expires", "variables", "version")
_NEEDED = ("id", "phrasings", "answer")
_BOM = "\ufeff"
_DELIMITERS = ",;\t"
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_TRAIL = re.compile(r" - at `\$\.?([^`]*)`$")


class SheetError(ValueError):
    """A file that cannot be used; one line that names the file, the line and the column."""


class Row(NamedTuple):
    """An entry and the line of the file on which it begins."""

    line: int
    entry: Entry


def read(content: bytes, *, name: str) -> list[Row]:
    """The entries of a file, which `name` is called; its ending says which kind it is. Raises SheetError."""
    reader = {"csv": _csv_rows, "jsonl": _jsonl_rows}.get(name.rpartition(".")[2].lower())
    if reader is None:
        raise SheetError(f"{name}: the name must end in .csv or .jsonl")
    rows = list(reader(_text_of(content, name), name))
    lines: dict[str, int] = {}
    for line, entry in rows:
        for fault in faults(entry):
            raise SheetError(f"{name}:{line}: {fault.field}: {fault.message}")
        if entry.id in lines:
            raise SheetError(f"{name}:{line}: id: {entry.id!r} stands already on line {lines[entry.id]}")
        lines[entry.id] = line
    return rows


def _text_of(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8").removeprefix(_BOM)
        hint = ': in a spreadsheet, save as "CSV UTF-8"' if name.lower().endswith(".csv") else ""
        raise SheetError(f"{name}:{_place_after(before)}: not UTF-8 text (byte {error.start}){hint}") from None
    if found := CONTROL.search(text):
        what = f"the control character U+{ord(found.group()):04X}"
        raise SheetError(f"{name}:{_place_after(text[: found.start()])}: {what}; take it out")
    return text


def _place_after(text: str) -> str:
    """Line and column of the character that follows, as editors count them."""
    return f"{text.count(chr(10)) + 1}:{len(text) - text.rfind(chr(10))}"


def to_jsonl(entries: Iterable[Entry]) -> bytes:
    """One JSON object a line, as `read` takes it."""
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


def to_csv(entries: Iterable[Entry]) -> bytes:
    """A table as `read` takes it and spreadsheets open it."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    writer.writerows(map(_as_text, _cells_of(entry)) for entry in entries)
    return (_BOM + table.getvalue()).encode()


def _as_text(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _from_text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _cells_of(entry: Entry) -> list[str]:
    variables = "\n".join(f"{name} = {' | '.join(values)}" for name, values in entry.variables.items())
    lists = ("\n".join(entry.phrasings), entry.answer, ", ".join(entry.tenants), ", ".join(entry.models))
    return [entry.id, *lists, entry.language, entry.expires, variables, str(entry.version)]


# -- JSONL -----------------------------------------------------------------------------------------------------------


def _jsonl_rows(text: str, name: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: a text may hold U+2028
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=Entry)
            json.loads(line, object_pairs_hook=_each_once)
            yield Row(number, entry)
        except _Twice as error:
            raise SheetError(f"{name}:{number}: {error.args[0]!r:.80} stands twice in one object") from None
        except msgspec.ValidationError as error:
            raise SheetError(f"{name}:{number}: {_where(str(error))}") from None
        except msgspec.DecodeError as error:
            raise SheetError(f"{name}:{number}: no JSON: {error}") from None


class _Twice(Exception):
    """A name that an object has twice; decoders take the last of them without a word."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in found if names.count(name) > 1))
    return found


def _where(message: str) -> str:
    """msgspec says "Expected `str`, got `int` - at `$.id`": the field goes first."""
    trail = _TRAIL.search(message)
    what = _TRAIL.sub("", message).replace("`", "")
    return f"{trail.group(1)}: {what}" if trail and trail.group(1) else what


# -- CSV -------------------------------------------------------------------------------------------------------------


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    skipped, text, delimiter = _delimiter_of(text)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    begins = skipped + 1
    try:
        for cells in lines:
            if columns is None:
                columns = _columns_of(cells, f"{name}:{begins}")
            elif any(cell.strip() for cell in cells):
                yield Row(begins, _entry_of(_named(cells, columns, f"{name}:{begins}"), f"{name}:{begins}"))
            begins = skipped + lines.line_num + 1
    except csv.Error as error:
        raise SheetError(f"{name}:{begins}: no CSV: {error}") from None
    if columns is None:
        _columns_of((), f"{name}:{begins}")


def _delimiter_of(text: str) -> tuple[int, str, str]:
    """(lines to skip, what comes after them, what stands between the cells): spreadsheets differ by country."""
    first, _, rest = text.partition("\n")
    if first.lower().startswith("sep=") and len(first.rstrip("\r")) == 5:
        return 1, rest, first[4]
    return 0, text, max(_DELIMITERS, key=first.count)


def _columns_of(cells: Sequence[str], place: str) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    for number, column in enumerate(columns):
        if column and column not in COLUMNS:
            raise SheetError(f"{place}: there is no column {column!r:.40}; there are {', '.join(COLUMNS)}")
        if column and column in columns[:number]:
            raise SheetError(f"{place}: the column {column!r} stands twice")
    if missing := [column for column in _NEEDED if column not in columns]:
        raise SheetError(f"{place}: the column {missing[0]!r} is missing; the first line names the columns")
    return columns


def _named(cells: Sequence[str], columns: Sequence[str], place: str) -> dict[str, str]:
    named = dict.fromkeys(COLUMNS, "")
    for column, cell in zip_longest(columns, cells, fillvalue=""):
        if column:
            named[column] = _from_text(cell)
        elif cell.strip():
            raise SheetError(f"{place}: {cell.strip()!r:.40} stands in a column without a name")
    return named


def _entry_of(cells: Mapping[str, str], place: str) -> Entry:
    given: dict[str, Any] = {name: cells[name].strip() for name in ("id", "language", "expires")}
    given["phrasings"] = tuple(line.strip() for line in cells["phrasings"].splitlines() if line.strip())
    given |= {name: tuple(_names_in(cells[name])) for name in ("tenants", "models")}
    return Entry(answer=cells["answer"], variables=_variables_of(cells, place), **given)


def _names_in(cell: str) -> Iterator[str]:
    return (name.strip() for name in re.split(r"[,;\n]", cell) if name.strip())


def _variables_of(cells: Mapping[str, str], place: str) -> dict[str, tuple[str, ...]]:
    given: dict[str, tuple[str, ...]] = {}
    for name, values in _variables_in(cells, place):
        if name in given:
            raise SheetError(
                f"{place}: variables: {name!r:.80} stands twice; write its values in one line, with | between"
            )
        given[name] = values
    return given


def _variables_in(cells: Mapping[str, str], place: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in filter(str.strip, cells["variables"].splitlines()):
        name, equals, values = line.partition("=")
        if not equals:
            raise SheetError(f"{place}: variables: {line.strip()!r:.80}: write it as name = value | value")
        yield name.strip(), tuple(value.strip() for value in values.split("|"))
