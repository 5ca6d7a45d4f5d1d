"""Audit logs in files: whole lines in order, also when a process or the disk gives out."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isochrone.audit.files import FileSink
from isochrone.audit.reading import files_in, lines_of
from isochrone.audit.verification import verify
from isochrone.stores.protocols import StoreUnavailable
from tests.audits import NOW, written

HOUR, DAY = 3600.0, 86_400.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sink(tmp_path: Path, clock: Clock) -> FileSink:
    return FileSink(tmp_path / "audit", edge="eu-west-1", days=30, clock=clock)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def put(sink: FileSink, *lines: bytes) -> None:
    asyncio.run(sink.put(lines))


def test_each_hour_has_a_file_and_each_day_a_folder(sink: FileSink, clock: Clock, tmp_path: Path) -> None:
    put(sink, b"one")
    put(sink, b"two", b"three")
    clock.now += HOUR
    put(sink, b"four")
    clock.now += DAY
    put(sink, b"five")
    assert files(tmp_path / "audit") == [
        "2026-11-18/2026-11-18T11-eu-west-1.jsonl",
        "2026-11-18/2026-11-18T12-eu-west-1.jsonl",
        "2026-11-19/2026-11-19T12-eu-west-1.jsonl",
    ]
    assert (tmp_path / "audit/2026-11-18/2026-11-18T11-eu-west-1.jsonl").read_text() == "one\ntwo\nthree\n"


def test_nobody_else_on_the_machine_can_read_them(sink: FileSink, tmp_path: Path) -> None:
    put(sink, b"one")
    (path,) = (tmp_path / "audit").rglob("*.jsonl")
    assert [oct(one.stat().st_mode & 0o777) for one in (path, path.parent)] == ["0o600", "0o700"]


def test_days_that_are_over_go_and_nothing_else(sink: FileSink, clock: Clock, tmp_path: Path) -> None:
    put(sink, b"one")
    folder = tmp_path / "audit"
    day = folder / "2026-11-18"
    (day / "2026-11-18T11-us-east-1.jsonl").write_text("of another edge")
    (folder / "0001-notes").mkdir()
    clock.now += 30 * DAY
    put(sink, b"two")
    assert (day / "2026-11-18T11-eu-west-1.jsonl").exists()
    clock.now += DAY
    put(sink, b"three")
    assert sorted(path.name for path in day.iterdir()) == ["2026-11-18T11-us-east-1.jsonl"]
    assert (folder / "0001-notes").exists()


def test_line_that_a_killed_process_has_torn_is_cut_off_before_the_next(sink: FileSink, tmp_path: Path) -> None:
    lines = written(3)
    put(sink, *lines[:2])
    (path,) = (tmp_path / "audit").rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + lines[2][:50])
    put(sink, lines[2], lines[3])
    assert path.read_bytes() == b"".join(line + b"\n" for line in lines)


def test_full_disk_leaves_no_half_line_and_the_entries_wait(
    sink: FileSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sink, b"one")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, text: write(file, text[:5]))
    with pytest.raises(StoreUnavailable, match="No space left"):
        put(sink, b"a longer line")
    monkeypatch.undo()
    put(sink, b"two")
    (path,) = (tmp_path / "audit").rglob("*.jsonl")
    assert path.read_text() == "one\ntwo\n"


def test_folder_that_cannot_be_made_is_unavailable_and_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    sink = FileSink(tmp_path / "file" / "audit", edge="e", days=1, clock=clock)
    with pytest.raises(StoreUnavailable, match="file/audit"):
        put(sink, b"one")


WRITER = """
import asyncio, sys
from pathlib import Path
from isochrone.audit.files import FileSink
from isochrone.audit.chain import Chain
from tests.audits import entry, NOW
from isochrone.audit.entry import Start

async def main():
    sink = FileSink(Path(sys.argv[1]), edge="e", days=30, clock=lambda: NOW)
    chain = Chain(sys.argv[2])
    await sink.put([chain.link(Start(time=1, edge="e", version="1", to="file"))])
    for number in range(200):
        await sink.put([chain.link(entry(number)), chain.link(entry(number))])

asyncio.run(main())
"""


def test_processes_that_write_at_the_same_time_keep_their_lines_whole(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "a"), f"w{n}"]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    report = verify(lines_of(files_in([tmp_path / "a"])))
    assert (report.findings, report.entries, report.writers) == ([], 1203, 3)
