"""The audit log of one process: on disk before the reply is over, delivered later, whatever dies or is gone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from isochrone.audit.log import CHECKPOINT_SECONDS, REPLIES, AuditLog
from isochrone.audit.verification import Report, verify
from isochrone.durable import outbox
from isochrone.durable.spool import NoSpool, Spool
from tests.audits import NOW, MemoryCheckpoints, MemorySink, entry, placed


class Process:
    """One edge's log on `folder`, which may die; its clock goes on as the test says."""

    names = iter(range(10**6))

    def __init__(self, folder: Path | None, sink: MemorySink, checkpoints: MemoryCheckpoints | None = None) -> None:
        self.now = NOW
        self.spool = Spool(folder, REPLIES, segment_bytes=4000) if folder else NoSpool()
        self.log = AuditLog(
            sink,
            self.spool,
            edge="eu-west-1",
            clock=lambda: self.now,
            new_id=lambda: f"w{next(self.names)}",
            checkpoints=checkpoints,
        )

    def record(self, *numbers: int) -> None:
        for number in numbers:
            self.log.record(entry(number))

    def die(self) -> None:
        """As SIGKILL would have it: the system lets go of the lock, and that is all that happens."""
        assert isinstance(self.spool, Spool)
        for journal in self.spool._journals:
            os.close(journal._lock)


async def survive(folder: Path, sink: MemorySink) -> None:
    """A process that comes later and has nothing to do but to take over."""
    later = Process(folder, sink)
    await later.log.adopt()
    await later.log.close()


def report(sink: MemorySink, checkpoints: MemoryCheckpoints | None = None) -> Report:
    return verify(placed(sink.lines), checkpoints.points if checkpoints else [])


def requests(sink: MemorySink) -> list[str]:
    return [line.split(b'"request_id":"')[1].split(b'"')[0].decode() for line in sink.lines if b"request_id" in line]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "audit"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_entries_are_delivered_in_one_chain_that_begins_with_its_writer(folder: Path, sink: MemorySink) -> None:
    process = Process(folder, sink)
    process.record(0, 1)
    await process.log.flush()
    process.record(2)
    await process.log.close()
    assert requests(sink) == ["r0", "r1", "r2"]
    assert (report(sink).is_intact, report(sink).writers, sink.closed) == (True, 1, True)
    assert b'"record":"start"' in sink.lines[0]
    assert b'"to":"file"' in sink.lines[0]
    assert files(folder) == []


def test_a_log_that_nothing_was_written_to_makes_no_file_and_no_writer(folder: Path, sink: MemorySink) -> None:
    Process(folder, sink)
    assert not folder.exists()


async def test_entries_wait_while_the_sink_is_gone_and_arrive_in_order_when_it_is_back(
    folder: Path, sink: MemorySink
) -> None:
    process = Process(folder, sink)
    sink.failing = True
    for number in range(5):
        process.record(number)
        await process.log.flush()
    assert (len(process.log), process.log.lost) == (6, 0)
    sink.failing = False
    await process.log.flush()
    assert requests(sink) == [f"r{number}" for number in range(5)]
    assert report(sink).is_intact


async def test_a_sink_that_took_half_a_batch_gets_it_again_and_the_log_is_intact(
    folder: Path, sink: MemorySink
) -> None:
    process = Process(folder, sink)
    process.record(0, 1, 2)
    sink.failing, sink.takes_before_it_fails = True, 2
    await process.log.flush()
    sink.failing = False
    await process.log.flush()
    assert (report(sink).is_intact, report(sink).repeated, report(sink).entries) == (True, 2, 4)


async def test_entries_of_a_process_that_was_killed_are_delivered_by_the_next_as_they_were_linked(
    folder: Path, sink: MemorySink
) -> None:
    process = Process(folder, sink)
    process.record(0, 1, 2)
    process.die()
    await survive(folder, sink)
    assert requests(sink) == ["r0", "r1", "r2"]
    assert (report(sink).is_intact, report(sink).writers) == (True, 1)
    assert files(folder) == []


async def test_a_reply_that_was_going_out_when_the_process_died_is_told_by_the_next_one(
    folder: Path, sink: MemorySink
) -> None:
    process = Process(folder, sink)
    process.log.begin(entry(0))
    process.log.begin(entry(1))
    process.record(1)
    process.die()
    await survive(folder, sink)
    assert requests(sink) == ["r1", "r0"]
    assert b'"outcome":"lost"' in sink.lines[-1]
    assert (report(sink).is_intact, report(sink).writers) == (True, 2)
    assert files(folder) == []


async def test_two_replies_of_one_name_in_the_same_moment_are_two_whatever_becomes_of_them(
    folder: Path, sink: MemorySink
) -> None:
    """A caller chooses the name; the notes of both are in the first segment, and again in the second."""
    process = Process(folder, sink)
    for _ in range(3):
        process.log.begin(entry(0))
    process.record(*range(1, 12))
    process.record(0)
    process.die()
    await survive(folder, sink)
    assert requests(sink).count("r0") == 3
    assert sum(b'"outcome":"lost"' in line for line in sink.lines) == 2
    assert (report(sink).is_intact, files(folder)) == (True, [])


async def test_a_survivor_that_dies_too_loses_nothing_and_leaves_no_gap(folder: Path, sink: MemorySink) -> None:
    first = Process(folder, sink)
    first.log.begin(entry(0))
    first.record(1)
    first.die()
    sink.failing = True
    second = Process(folder, sink)
    await second.log.adopt()
    await second.log.flush()
    second.record(2)
    await second.log.flush()
    second.die()
    sink.failing = False
    await survive(folder, sink)
    assert sorted({*requests(sink)}) == ["r0", "r1", "r2"]
    assert report(sink).is_intact


async def test_more_than_memory_holds_waits_on_disk(
    folder: Path, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 5)
    process = Process(folder, sink)
    sink.failing = True
    process.record(*range(60))
    await process.log.flush()
    assert (len(process.log), process.log.lost) == (61, 0)
    sink.failing = False
    await process.log.flush()
    assert requests(sink) == [f"r{number}" for number in range(60)]
    assert report(sink).is_intact


async def test_what_neither_memory_nor_disk_had_room_for_is_counted_and_shows_as_a_gap(
    sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 3)
    process = Process(None, sink)
    process.record(0, 1, 2, 3)
    assert process.log.lost == 2
    await process.log.flush()
    process.record(4)
    await process.log.flush()
    assert [finding.what for finding in report(sink).findings] == [
        f"entries 3 to 4 of writer {report(sink).heads[0].writer} are missing before this one"
    ]


async def test_checkpoints_speak_only_of_what_was_delivered(folder: Path, sink: MemorySink) -> None:
    checkpoints = MemoryCheckpoints()
    process = Process(folder, sink, checkpoints)
    process.record(0)
    sink.failing = True
    await process.log.flush()
    assert checkpoints.points == []
    sink.failing = False
    await process.log.flush()
    process.record(1)
    await process.log.flush()
    assert [point.seq for point in checkpoints.points] == [1]
    process.now += CHECKPOINT_SECONDS
    await process.log.flush()
    assert [point.seq for point in checkpoints.points] == [1, 2]
    assert (report(sink, checkpoints).is_intact, report(sink, checkpoints).open_ended) == (True, 0)


async def test_a_log_that_does_not_grow_notes_no_checkpoint(folder: Path, sink: MemorySink) -> None:
    checkpoints = MemoryCheckpoints()
    process = Process(folder, sink, checkpoints)
    process.record(0)
    await process.log.flush()
    process.now += 10 * CHECKPOINT_SECONDS
    await process.log.flush()
    assert len(checkpoints.points) == 1


async def test_the_end_of_a_process_is_a_checkpoint(folder: Path, sink: MemorySink) -> None:
    checkpoints = MemoryCheckpoints()
    process = Process(folder, sink, checkpoints)
    process.record(0)
    await process.log.flush()
    process.record(1, 2)
    await process.log.close()
    assert [point.seq for point in checkpoints.points] == [1, 3]


async def test_checkpoint_that_cannot_be_noted_is_noted_with_the_next_flush(folder: Path, sink: MemorySink) -> None:
    checkpoints = MemoryCheckpoints()
    checkpoints.failing = True
    process = Process(folder, sink, checkpoints)
    process.record(0)
    await process.log.flush()
    checkpoints.failing = False
    await process.log.flush()
    assert [point.seq for point in checkpoints.points] == [1]


async def test_flushes_at_the_same_time_deliver_everything_once_and_in_order(folder: Path, sink: MemorySink) -> None:
    process = Process(folder, sink)
    process.record(*range(20))
    await asyncio.gather(*(process.log.flush() for _ in range(3)))
    assert requests(sink) == [f"r{number}" for number in range(20)]
    assert report(sink).repeated == 0


async def test_disk_that_takes_nothing_fails_no_request(tmp_path: Path, sink: MemorySink) -> None:
    place = tmp_path / "file"
    place.write_text("")
    process = Process(place / "below", sink)
    process.record(0)
    await process.log.flush()
    assert (requests(sink), process.log.unwritten > 0, report(sink).is_intact) == (["r0"], True, True)
