"""`isochrone audit`: reads audit logs, and says whether they are what was written; `isochrone.audit` does the work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isochrone.cli_options import ConfigFile, Moment, Refused, json_option
from isochrone.settings import Settings, table_name

if TYPE_CHECKING:
    from isochrone.audit.entry import AuditEntry, Flag
    from isochrone.audit.verification import Line, Report
    from isochrone.stores.entries import Checkpoint

_DAY_MS = 86_400_000

paths_argument = click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
config_option = click.option(
    "--config", "settings", type=ConfigFile(), help="The configuration (TOML): whose folder, and whose checkpoints."
)
since_option = click.option(
    "--since", type=Moment(), help="Only from then on: 90s, 15m, 2h, 7d, or 2026-11-23T05:00 (UTC)."
)


@click.group()
def audit() -> None:
    """What is remembered of every request: show it, and check that nobody has changed it.

    PATHS are files, or folders with files, of an edge with audit.to = "file", or fetched from the bucket with `aws s3
    sync`; packed ones are read as they are. Without PATHS the folder of the configuration is read.
    """


@audit.command()
@paths_argument
@config_option
@since_option
@click.option(
    "--heads", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What an earlier --json printed."
)
@json_option
def verify(
    paths: tuple[Path, ...], *, settings: Settings | None, since: float | None, heads: Path | None, as_json: bool
) -> None:
    """Find entries that were changed, removed, put in, moved or cut off, and say where.

    The checkpoints in the tables (--config) or the ends of an earlier check (--heads) show, too, whether the end of a
    log or a whole writer is gone. With --since a log may begin in the middle, as it does when its oldest days are
    deleted on time: give the beginning of a day that is still there. With --config that is the oldest day that must be.

    Exit status: 0 when nothing was found, 1 when something was, 2 when it could not be checked: a table does not
    answer, there is nothing to check, or the configuration or a file cannot be used.
    """
    from isochrone.audit.verification import verify

    from_ms = round(since * 1000) if since else _oldest_day(settings)
    points = [*_heads(heads), *(_checkpoints(settings, from_ms) if _has_tables(settings) else [])]
    try:
        report = verify(_lines(_files(paths, settings)), points, since=from_ms)
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror or error}") from None
    if report.is_intact and not (report.entries or report.checkpoints):
        raise Refused(f"{_no_log(paths, settings)}, and no checkpoint or earlier end is known that says there was one")
    _tell(report, as_json=as_json)
    if not report.is_intact:
        raise click.exceptions.Exit(1)


@audit.command()
@paths_argument
@config_option
@since_option
@click.option("--tenant", help="Only this tenant's requests.")
@click.option("--denied", is_flag=True, help="Only those that were not allowed.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many, the newest.")
@json_option
def show(
    paths: tuple[Path, ...],
    *,
    settings: Settings | None,
    since: float | None,
    tenant: str | None,
    denied: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Print the requests of a log and the flags on their answers, oldest first; it is not checked.

    Exit status: 0, 2 when a file cannot be read.
    """
    from msgspec.json import encode

    from isochrone.audit.report import line_of

    entries = [
        entry
        for entry in _entries(paths, settings)
        if entry.time >= (since or 0.0) * 1000
        and (tenant is None or entry.tenant == tenant)
        and not (denied and not _is_denied(entry))
    ]
    entries.sort(key=lambda entry: entry.time)
    for entry in entries[-limit:]:
        click.echo(encode(entry).decode() if as_json else line_of(entry))
    if len(entries) > limit:
        click.echo(f"{_counted(len(entries) - limit, 'older one')} left out: --limit", err=True)


def _is_denied(entry: AuditEntry | Flag) -> bool:
    from isochrone.audit.entry import AuditEntry

    return isinstance(entry, AuditEntry) and entry.decision != "allowed"


def _entries(paths: Sequence[Path], settings: Settings | None) -> Iterator[AuditEntry | Flag]:
    from isochrone.audit.reading import entries_of

    files = _files(paths, settings)
    if not files and paths:
        raise Refused(_no_log(paths, settings))
    if not files:
        click.echo(f"no entries yet: {_no_log(paths, settings)}; an edge writes one a second after a request", err=True)
    try:
        yield from entries_of(_lines(files))
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror or error}") from None


def _files(paths: Sequence[Path], settings: Settings | None) -> list[Path]:
    from isochrone.audit.reading import files_in

    return files_in(paths or [folder for folder in [_own_folder(settings)] if folder.is_dir()])


def _lines(files: Sequence[Path]) -> Iterator[Line]:
    from isochrone.audit.reading import lines_of

    yield from lines_of(files)


def _no_log(paths: Sequence[Path], settings: Settings | None) -> str:
    folders = ", ".join(map(str, paths or [_own_folder(settings)]))
    return f"there is no log in {folders} (files that end in .jsonl, .json or .gz are read)"


def _own_folder(settings: Settings | None) -> Path:
    if settings is None:
        raise Refused('name the files or folders to read, or a configuration with audit.to = "file"')
    if settings.audit.to != "file":
        raise Refused(
            f'audit.to is "{settings.audit.to}": name the files to read, such as a copy of the bucket made with '
            "`aws s3 sync`"
        )
    return Path(settings.audit.folder)


def _oldest_day(settings: Settings | None) -> int:
    """The beginning of the oldest day that is not deleted yet, in epoch milliseconds; 0 where nobody says."""
    if settings is None:
        return 0
    return (round(time.time() * 1000) // _DAY_MS - settings.audit.days + 1) * _DAY_MS


def _has_tables(settings: Settings | None) -> bool:
    return settings is not None and settings.state.kind == "dynamodb"


def _heads(file: Path | None) -> list[Checkpoint]:
    import msgspec

    from isochrone.audit.verification import Report

    if file is None:
        return []
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report).heads
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(f"{file}: not what `isochrone audit verify --json` prints: {error}") from None


def _checkpoints(settings: Settings | None, since: int) -> list[Checkpoint]:
    """Those of all regions, from a day earlier on: a writer may have had its last one before its last entry."""
    from isochrone.stores.dynamodb.checkpoints import DynamoCheckpoints
    from isochrone.stores.dynamodb.client import connect
    from isochrone.stores.protocols import StoreUnavailable

    assert settings is not None

    async def read() -> list[Checkpoint]:
        points: list[Checkpoint] = []
        for region in settings.region:
            async with connect(region.name, endpoint_url=settings.state.endpoint_url) as client:
                store = DynamoCheckpoints(client, table_name(settings, "ledger"), days=settings.audit.days)
                points += await store.all(since=since - _DAY_MS, until=round(time.time() * 1000))
        return points

    try:
        return asyncio.run(read())
    except StoreUnavailable as error:
        raise Refused(f"the checkpoints cannot be read, so nothing was checked: {error}") from None


def _tell(report: Report, *, as_json: bool) -> None:
    if as_json:
        from msgspec import to_builtins

        click.echo(json.dumps(to_builtins(report) | {"intact": report.is_intact}))
        return
    for finding in report.findings:
        click.echo(f"{finding.where}: {finding.what}")
    word = "nothing was changed" if report.is_intact else _counted(len(report.findings), "finding")
    entries, writers = _counted(report.entries, "entry", "entries"), _counted(report.writers, "writer")
    newer = _counted(report.open_ended, "entry", "entries")
    points = _counted(report.checkpoints, "checkpoint")
    click.echo(f"{word}: {entries} of {writers}, {points}, {newer} since the last checkpoint of their writer")


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
