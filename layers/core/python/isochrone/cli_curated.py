"""`isochrone curated`: an operator's standard questions and answers; `isochrone.answers.curated` does the work."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from isochrone.cli_options import Refused, config_option, json_option
from isochrone.settings import Settings, SettingsError, main_region, semantic_somewhere

if TYPE_CHECKING:
    from isochrone.answers.curated.archive import Archive, Version
    from isochrone.answers.curated.edition import Edition
    from isochrone.answers.curated.entry import Entry
    from isochrone.answers.curated.sheet import Row

T = TypeVar("T")
_SHOWN = 60
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def curated() -> None:
    """Standard questions with permanent answers, which edges give without asking a backend.

    With state.kind = "memory" they stand in the file that answers.curated names, and these commands only read it. Every
    change makes a new version; edges have it within half a minute.
    """


class _Table(NamedTuple):
    """The entries that count now, their version in the directory, and those of the file under them."""

    entries: list[Entry]
    version: Version | None
    fixed: list[Entry]

    @property
    def all(self) -> list[Entry]:
        """As an edge has them."""
        merged = {entry.id: entry for entry in (*self.fixed, *self.entries)}
        return [merged[name] for name in sorted(merged)]


@curated.command("import")
@click.argument("file", type=_FILE)
@config_option
@click.option("--replace", is_flag=True, help="Take out what the file does not have.")
@click.option("--allow-empty", is_flag=True, help="With --replace: a file without entries may take out all of them.")
@click.option("--dry-run", is_flag=True, help="Check the file and say what would change; change nothing.")
@json_option
def import_(settings: Settings, *, file: Path, replace: bool, allow_empty: bool, dry_run: bool, as_json: bool) -> None:
    """Bring in the entries of FILE (.csv or .jsonl): new ones are added, known ones changed. All of them, or none.

    Exit status: 0, 1 when the table does not answer, 2 when the file or the configuration cannot be used.
    """
    from isochrone.answers.curated.book import BookError
    from isochrone.answers.curated.edition import brought_in
    from isochrone.answers.curated.shelf import located

    rows = _rows_of(file, settings)
    if replace and not rows and not allow_empty:
        raise Refused(
            f"{file}: no entry in it, so --replace would take out all: `isochrone curated delete` takes out some, "
            "--allow-empty lets this take out all"
        )
    entries = [row.entry for row in rows]
    try:
        edition, version = _change(
            settings, lambda before: brought_in(before, entries, replace=replace), f"import {file.name}", dry_run
        )
    except BookError as error:
        raise Refused(located(error, rows, str(file))) from None
    _tell(edition, version, as_json=as_json)


@curated.command()
@click.argument("file", type=_FILE)
@config_option
@json_option
def export(settings: Settings, *, file: Path, as_json: bool) -> None:
    """Write all entries to FILE (.csv for spreadsheets, .jsonl for programs), as `import` takes them."""
    from isochrone.answers.curated.sheet import to_csv, to_jsonl

    write = {".csv": to_csv, ".jsonl": to_jsonl}.get(file.suffix.lower())
    if write is None:
        raise Refused(f"{file}: the name must end in .csv or .jsonl")
    entries = _read(settings).all
    try:
        file.write_bytes(write(entries))
    except OSError as error:
        raise Refused(f"{file}: {error.strerror or error}") from None
    said = {"file": str(file), "entries": len(entries)}
    click.echo(json.dumps(said) if as_json else f"{len(entries)} entries written to {file}")


@curated.command("list")
@config_option
@json_option
def list_(settings: Settings, *, as_json: bool) -> None:
    """Print all entries, one a line; those that are over are marked."""
    now = time.time()
    for entry in _read(settings).all:
        click.echo(_json(entry) if as_json else _line(entry, now))


@curated.command()
@click.argument("name", metavar="ID")
@config_option
@json_option
def show(settings: Settings, *, name: str, as_json: bool) -> None:
    """Print one entry. Exit status: 0, 1 when there is none of that id."""
    found = next((entry for entry in _read(settings).all if entry.id == name), None)
    if found is None:
        raise click.ClickException(f"there is no entry {name!r}")
    click.echo(_json(found) if as_json else _as_text(found, time.time()))


@curated.command()
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@config_option
@json_option
def delete(settings: Settings, *, names: tuple[str, ...], as_json: bool) -> None:
    """Take out entries. Exit status: 0, 1 when one is not there (then none is taken out)."""
    from isochrone.answers.curated.edition import taken_out

    def change(before: Sequence[Entry]) -> Edition:
        edition = taken_out(before, names)
        if unknown := sorted(set(names) - set(edition.gone)):
            raise click.ClickException(f"there is no entry {unknown[0]!r} in the table; nothing was taken out")
        return edition

    edition, version = _change(settings, change, f"delete {', '.join(names)}")
    _tell(edition, version, as_json=as_json)


@curated.command()
@click.argument("question")
@config_option
@click.option("--tenant", default="anonymous", show_default=True, help="Who asks.")
@click.option("--model", default="", help="Of which model; default: of one that no entry names.")
@json_option
def test(settings: Settings, *, question: str, tenant: str, model: str, as_json: bool) -> None:
    """Print how QUESTION would be answered, also where the configuration answers similar questions to somebody.

    Exit status: 0, 1 when no entry answers it.
    """
    from isochrone.answers.curated.book import CuratedBook
    from isochrone.answers.curated.wording import Wordings
    from isochrone.ledger.usage import estimate

    book = CuratedBook(_read(settings).all, estimate=estimate, likeness=Wordings)
    whose = {"tenant": tenant, "model": model}
    found = book.standard_for(question, **whose, now=time.time())
    similar = found is None and semantic_somewhere(settings)
    found = book.similar_to(question, **whose, now=time.time()) if similar else found
    if found is None:
        raise click.ClickException("no entry answers that")
    said = {"id": found.id, "version": found.version, "similar": similar, "answer": found.answer}
    how = ", similar question" if similar else ""
    line = f"{found.id} version {found.version}{how}: {found.answer}"
    click.echo(json.dumps(said, ensure_ascii=False) if as_json else line)


@curated.command()
@config_option
@json_option
def history(settings: Settings, *, as_json: bool) -> None:
    """Print the versions that are kept, oldest first; `*` marks the one that counts."""
    from msgspec import to_builtins

    async def read(archive: Archive) -> tuple[list[Version], Version | None]:
        return await archive.versions(), await archive.current(consistent=True)

    versions, current = _run(settings, read)
    for version in versions:
        data = to_builtins(version) | {"counts": version == current}
        when = datetime.fromtimestamp(version.written, UTC)
        mark = "*" if version == current else " "
        line = f"{mark} {version.version:4} {when:%Y-%m-%d %H:%M:%SZ} {version.entries} entries, {version.note}"
        click.echo(json.dumps(data) if as_json else line)


@curated.command()
@config_option
@click.option(
    "--to", "number", type=click.IntRange(1), help="A version of `history`; default: the one that counted before."
)
@json_option
def rollback(settings: Settings, *, number: int | None, as_json: bool) -> None:
    """Let an older version count again. The newer ones stay in `history`."""

    async def roll_back(archive: Archive) -> Version:
        current = await archive.current(consistent=True)
        wanted = number or (current.before if current else 0)
        if not wanted:
            raise Refused("there is no version before this one")
        found = next((version for version in await archive.versions() if version.version == wanted), None)
        if found is None:
            raise Refused(f"there is no version {wanted} (any more): choose one of `isochrone curated history` by --to")
        await archive.roll_back(found, after=current)
        return found

    version = _run(settings, roll_back)
    said = f"version {version.version} counts again: {version.entries} entries"
    click.echo(json.dumps({"version": version.version, "entries": version.entries}) if as_json else said)


# -- the file --------------------------------------------------------------------------------------------------------


def _rows_of(file: Path, settings: Settings) -> list[Row]:
    """Its entries, with a warning for each that nobody may ever be given."""
    from isochrone.admission.principal import ANONYMOUS
    from isochrone.answers.curated.audience import doubts, mistakes
    from isochrone.answers.curated.sheet import SheetError, read

    try:
        rows = read(file.read_bytes(), name=str(file))
    except OSError as error:
        raise Refused(f"{file}: {error.strerror or error}") from None
    except SheetError as error:
        raise Refused(str(error)) from None
    models = {model for backend in settings.backend for model in backend.models}
    for line, message in mistakes(rows, models=models):
        raise Refused(f"{file}:{line}: {message}")
    tenants = {key.tenant for key in settings.key} | (set() if settings.auth.required else {ANONYMOUS.tenant})
    for line, message in doubts(rows, tenants=tenants, now=time.time()):
        click.echo(f"Warning: {file}:{line}: {message}", err=True)
    return rows


# -- the table -------------------------------------------------------------------------------------------------------


def _read(settings: Settings) -> _Table:
    fixed = _fixed(settings)
    if settings.state.kind == "memory":
        return _Table([], None, fixed)

    async def read(archive: Archive) -> _Table:
        return await _table(archive, fixed)

    return _run(settings, read)


def _change(
    settings: Settings, change: Callable[[Sequence[Entry]], Edition], note: str, dry_run: bool = False
) -> tuple[Edition, Version | None]:
    """The change and the version that it made, None for none. Raises BookError for what no edge could use."""
    from isochrone.answers.curated.book import CuratedBook
    from isochrone.ledger.usage import estimate

    fixed = _fixed(settings)

    async def work(archive: Archive) -> tuple[Edition, Version | None]:
        table = await _table(archive, fixed)
        edition = change(table.entries)
        CuratedBook(table._replace(entries=edition.entries).all, estimate=estimate)
        if dry_run or not edition.changes_anything:
            return edition, None
        made = await archive.write(
            edition.entries, after=table.version, now=time.time(), token=secrets.token_hex(4), note=note
        )
        return edition, made

    return _run(settings, work)


async def _table(archive: Archive, fixed: list[Entry]) -> _Table:
    version = await archive.current(consistent=True)
    entries = await archive.entries(version, consistent=True) if version else []
    if entries is None:
        raise click.ClickException(f"version {version.version if version else 0} has not come to this region whole yet")
    return _Table(entries, version, fixed)


def _fixed(settings: Settings) -> list[Entry]:
    from isochrone.answers.curated.shelf import load_file
    from isochrone.ledger.usage import estimate

    if not settings.answers.curated:
        return []
    try:
        return load_file(Path(settings.answers.curated), estimate=estimate)
    except SettingsError as error:
        raise Refused(str(error)) from None


def _run(settings: Settings, work: Callable[[Archive], Coroutine[Any, Any, T]]) -> T:
    """Do it with the directory of the main region; the others have it a moment later."""
    from isochrone.answers.curated.archive import Archive, Conflict
    from isochrone.stores.dynamodb.client import Timeouts, connect
    from isochrone.stores.dynamodb.directory import open_directory
    from isochrone.stores.protocols import StoreUnavailable

    if settings.state.kind == "memory":
        raise Refused("state.kind is memory: change the file that answers.curated names, and start the edge anew")
    patient = Timeouts(connect=5.0, total=10.0)  # the operator may be far away

    async def run() -> T:
        async with AsyncExitStack() as stack:
            clients = {
                known.name: await stack.enter_async_context(
                    connect(known.name, endpoint_url=settings.state.endpoint_url, timeouts=patient)
                )
                for known in settings.region
            }
            return await work(Archive(open_directory(clients.__getitem__, settings, main_region(settings))))

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise click.ClickException(f"the directory table does not answer: {error}") from None
    except Conflict as error:
        raise click.ClickException(str(error)) from None


# -- words -----------------------------------------------------------------------------------------------------------


def _tell(edition: Edition, version: Version | None, *, as_json: bool) -> None:
    if as_json:
        lists = {name: getattr(edition, name) for name in ("new", "changed", "same", "gone")}
        click.echo(json.dumps({"version": version.version if version else None, **lists}))
        return
    new, changed, same, gone = map(len, edition[1:])
    counts = f"{new} new, {changed} changed, {same} the same, {gone} gone"
    outcome = f"version {version.version}" if version else "nothing was written"
    click.echo(f"{counts}: {outcome}")


def _json(entry: Entry) -> str:
    from msgspec import to_builtins

    return json.dumps(to_builtins(entry), ensure_ascii=False)


def _line(entry: Entry, now: float) -> str:
    answer = entry.answer if len(entry.answer) <= _SHOWN else entry.answer[:_SHOWN] + "..."
    return f"{_title(entry, now)}: {entry.phrasings[0]!r} -> {answer!r}"


def _title(entry: Entry, now: float) -> str:
    from isochrone.answers.curated.entry import has_expired

    over = f", expired ({entry.expires})" if has_expired(entry, now) else ""
    return f"{entry.id} version {entry.version}{over}"


def _as_text(entry: Entry, now: float) -> str:
    lines = [_title(entry, now)]
    lines += [f"  asked: {phrasing}" for phrasing in entry.phrasings]
    lines += [f"  {name} = {' | '.join(values)}" for name, values in entry.variables.items()]
    lines += list(_scope(entry))
    return "\n".join([*lines, entry.answer])


def _scope(entry: Entry) -> Iterable[str]:
    for what, value in (
        ("tenants", ", ".join(entry.tenants)),
        ("models", ", ".join(entry.models)),
        ("language", entry.language),
        ("expires", entry.expires),
    ):
        if value:
            yield f"  {what}: {value}"
