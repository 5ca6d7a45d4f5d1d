from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from isochrone.durable import outbox
from isochrone.durable.spool import Spool, folder_for
from isochrone.ledger.book import Book
from isochrone.ledger.entry import Begun, Entry
from isochrone.ledger.spool import ATTEMPTS, open_spool
from isochrone.settings import Backend, Region, Service, Settings, State
from isochrone.stores.memory import MemoryLedgerStore


def begun(number: int) -> Begun:
    return Begun(request_id=f"r{number}", tenant="t", model="m", backend="b", attempt=1, started_at=1000.0 + number)


def ended(number: int) -> Entry:
    fields: dict[str, Any] = {"input_tokens": 1, "output_tokens": 2, "cost": 0.5}
    return Entry(**structs.asdict(begun(number)), outcome="ok", first_token_ms=1.0, total_ms=2.0, **fields)


class Edge:
    """The ledger of one process that writes to `store` and may die."""

    def __init__(self, folder: Path, store: MemoryLedgerStore, **limits: int) -> None:
        self.spool = Spool(folder, ATTEMPTS, **limits)
        self.book = Book(store, self.spool)

    def begin(self, *numbers: int) -> None:
        for number in numbers:
            self.book.begun(begun(number))

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.book.write(ended(number))

    def attempt(self, *numbers: int) -> None:
        for number in numbers:
            self.begin(number)
            self.end(number)

    def die(self) -> None:
        """As SIGKILL would have it: the system lets go of the lock, and that is all that happens."""
        for journal in self.spool._journals:
            os.close(journal._lock)


async def survive(folder: Path, store: MemoryLedgerStore) -> None:
    """A process that comes later and has nothing to do but to take over."""
    later = Edge(folder, store)
    await later.book.adopt()
    await later.book.flush()
    await later.book.close()


async def outcomes(store: MemoryLedgerStore) -> dict[str, str]:
    return {entry["request_id"]: entry["outcome"] for entry in await store.all()}


def everything(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def files(folder: Path) -> list[Path]:
    return [path for path in everything(folder) if path.is_file()]


@pytest.fixture
def store() -> MemoryLedgerStore:
    return MemoryLedgerStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "isochrone-eu-west-1"


async def test_entries_that_the_store_did_not_get_survive_the_process(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store)
    edge.attempt(1, 2)
    edge.die()
    await survive(folder, store)
    assert await outcomes(store) == {"r1": "ok", "r2": "ok"}
    assert (await store.all())[0] == structs.asdict(ended(1))


async def test_attempt_that_a_dead_process_never_ended_is_lost_and_may_have_been_received(
    folder: Path, store: MemoryLedgerStore
) -> None:
    edge = Edge(folder, store)
    edge.begin(1)
    edge.die()
    await survive(folder, store)
    (entry,) = await store.all()
    assert (entry["outcome"], entry["ambiguous"], entry["cost"], entry["input_tokens"]) == ("lost", True, 0.0, None)


async def test_every_attempt_is_found_once_wherever_the_process_died(folder: Path, store: MemoryLedgerStore) -> None:
    """Small segments, so that attempts begin in one and end in another, and some segments are gone already."""
    edge = Edge(folder, store, segment_bytes=1000)
    edge.begin(*range(20))
    edge.end(0, 2, 4)
    await edge.book.flush()
    edge.attempt(*range(100, 110))
    edge.end(6, 8)
    edge.die()
    await survive(folder, store)
    still_open = {f"r{number}": "lost" for number in range(20) if number not in (0, 2, 4, 6, 8)}
    done = {f"r{number}": "ok" for number in (0, 2, 4, 6, 8, *range(100, 110))}
    assert await outcomes(store) == still_open | done


async def test_death_of_the_survivor_before_its_flush_loses_nothing(folder: Path, store: MemoryLedgerStore) -> None:
    first = Edge(folder, store)
    first.attempt(1)
    first.begin(2)
    first.die()
    second = Edge(folder, store)
    await second.book.adopt()
    store.failing = True
    await second.book.flush()
    second.attempt(3)
    second.die()
    store.failing = False
    await survive(folder, store)
    assert await outcomes(store) == {"r1": "ok", "r2": "lost", "r3": "ok"}


async def test_notes_of_the_dead_outlive_the_one_who_reads_them_until_the_store_has_what_they_say(
    folder: Path, store: MemoryLedgerStore
) -> None:
    """The first died before its newest segment had the notes, the second between two calls to the store."""
    first = Edge(folder, store)
    first.begin(1)
    first.attempt(2)
    first.spool.spill()
    max(files(folder)).write_text("")
    first.die()
    second = Edge(folder, store)
    await second.book.adopt()
    await second.book._hand_over([*second.spool.take_back()])
    assert [waiting.entry.outcome for waiting in second.spool.take_back()] == ["lost"]
    second.die()
    await survive(folder, store)
    assert await outcomes(store) == {"r1": "lost", "r2": "ok"}
    assert files(folder) == []


async def test_living_process_is_left_alone(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store)
    edge.begin(1)
    await survive(folder, store)
    assert await outcomes(store) == {}
    edge.end(1)
    await edge.book.flush()
    assert await outcomes(store) == {"r1": "ok"}


async def test_dead_journal_is_taken_over_by_one_process_only(folder: Path, store: MemoryLedgerStore) -> None:
    dead = Edge(folder, store)
    dead.attempt(1)
    dead.die()
    one, other = Edge(folder, store), Edge(folder, store)
    await one.book.adopt()
    await other.book.adopt()
    assert (len(one.spool._left), len(other.spool._left)) == (1, 0)


def test_folder_that_was_taken_away_while_it_was_being_locked_is_not_used(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that looks for the dead can lock a new, still empty folder first, and delete it."""
    lock = fcntl.flock

    def late(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        (first,) = folder.iterdir()
        first.rmdir()
        first.mkdir()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    edge = Edge(folder, store)
    edge.attempt(1)
    assert [path.parent.name for path in files(folder)] == [f"{os.getpid()}-1"]


async def test_nothing_is_left_on_disk_after_a_clean_end(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store, segment_bytes=500)
    edge.attempt(*range(20))
    await edge.book.close()
    assert everything(folder.parent) == []


async def test_end_while_the_store_is_gone_leaves_the_entries_to_the_next_start(
    folder: Path, store: MemoryLedgerStore
) -> None:
    store.failing = True
    edge = Edge(folder, store)
    edge.attempt(1, 2)
    await edge.book.close()
    store.failing = False
    await survive(folder, store)
    assert await outcomes(store) == {"r1": "ok", "r2": "ok"}
    assert files(folder) == []


async def test_disk_is_given_back_as_the_store_takes_entries(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store, segment_bytes=1000)
    for number in range(50):
        edge.attempt(number)
        await edge.book.flush()
    assert [(path.name, path.stat().st_size) for path in files(folder)] == [("000001.jsonl", 0)]


async def test_folder_of_the_dead_goes_with_its_last_entry(folder: Path, store: MemoryLedgerStore) -> None:
    for number in range(3):
        dead = Edge(folder, store)
        dead.begin(number + 10)
        dead.attempt(number)
        dead.spool.spill()
        max(files(dead.spool._folder)).write_text("")  # it died before its notes were there
        dead.die()
    later = Edge(folder, store)
    await later.book.adopt()
    await later.book.flush()
    assert everything(folder) == []


async def test_entry_that_no_store_can_take_holds_no_segment(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store)
    edge.attempt(1)
    edge.book.write(structs.replace(ended(2), tenant=""))
    await edge.book.flush()
    assert (edge.book.lost, [path.stat().st_size for path in files(folder)]) == (1, [0])


async def test_long_attempt_holds_no_old_segments(folder: Path, store: MemoryLedgerStore) -> None:
    edge = Edge(folder, store, segment_bytes=1000)
    edge.begin(1)
    for number in range(100, 150):
        edge.attempt(number)
        await edge.book.flush()
    assert len(files(folder)) == 1
    edge.die()
    await survive(folder, store)
    assert (await outcomes(store))["r1"] == "lost"


async def test_notes_of_what_is_open_are_on_disk_at_any_moment(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL can come in the middle of any write, also of that which carries the notes into a new segment."""
    edge = Edge(folder, store, segment_bytes=1000)
    edge.begin(1)
    noted: list[bool] = []
    write = os.write

    def watched(file: int, data: bytes) -> int:
        noted.append(any('"r1"' in path.read_text() for path in files(folder)))
        return write(file, data)

    monkeypatch.setattr(os, "write", watched)
    for number in range(100, 130):
        edge.attempt(number)
        await edge.book.flush()
    assert all(noted)


async def test_what_has_no_room_in_memory_waits_on_disk_and_none_is_lost(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    edge = Edge(folder, store, segment_bytes=2000)
    store.failing = True
    edge.attempt(*range(60))
    await edge.book.flush()
    assert (len(edge.book), len(edge.book._buffer), edge.book.lost) == (60, 10, 0)
    store.failing = False
    await edge.book.flush()
    edge.attempt(60)
    await edge.book.flush()
    assert await outcomes(store) == {f"r{number}": "ok" for number in range(61)}
    assert (len(edge.book), [path.stat().st_size for path in files(folder)]) == (0, [0])


async def test_memory_stays_bounded_through_outages_that_come_and_go(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    edge = Edge(folder, store, segment_bytes=1500)
    number = 0
    for store.fail_next in (1, 0, 3, 1, 2, 0, 1):
        for _ in range(25):
            number += 1
            edge.attempt(number)
            assert len(edge.book._buffer) <= 10
        await edge.book.flush()
    await edge.book.flush()
    assert await outcomes(store) == {f"r{known + 1}": "ok" for known in range(number)}


async def test_entries_in_the_hands_of_a_flush_have_their_place_in_a_memory_that_filled_up_meanwhile(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    edge = Edge(folder, store)
    edge.attempt(*range(9))
    batch = edge.book._take(8)
    edge.attempt(*range(100, 120))
    edge.book._put_back(batch)
    await edge.book.flush()
    assert (edge.book.lost, len(await outcomes(store))) == (0, 29)


async def test_flush_goes_back_to_the_disk_only_while_it_has_time(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    monkeypatch.setattr(outbox, "CATCH_UP_SECONDS", 0.0)
    edge = Edge(folder, store)
    edge.attempt(*range(60))
    await edge.book.flush()
    assert (len(edge.book), len(await outcomes(store))) == (50, 10)


async def test_entries_whose_file_somebody_deleted_are_counted_as_lost(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    edge = Edge(folder, store)
    edge.attempt(*range(60))
    max(files(folder)).unlink()
    await edge.book.flush()
    assert (edge.book.lost, len(edge.book), len(await outcomes(store))) == (50, 0, 10)
    edge.die()
    await survive(folder, store)
    assert files(folder) == []


async def test_spilled_entries_survive_the_process_too(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 5)
    edge = Edge(folder, store, segment_bytes=1000)
    edge.attempt(*range(30))
    edge.begin(99)
    edge.die()
    await survive(folder, store)
    assert await outcomes(store) == {f"r{number}": "ok" for number in range(30)} | {"r99": "lost"}


async def test_full_spool_gives_up_the_oldest_and_counts_them(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 2)
    edge = Edge(folder, store, segment_bytes=1000, max_segments=3)
    store.failing = True
    edge.attempt(*range(30))
    store.failing = False
    await edge.book.flush()
    kept = await outcomes(store)
    assert (edge.book.lost, len(kept)) == (30 - len(kept), 30 - edge.book.lost)
    assert edge.book.lost > 0
    assert {"r0", "r1", "r29"} <= set(kept)
    assert "is full" in caplog.records[0].getMessage()


async def test_disk_that_takes_nothing_fails_no_attempt_and_is_told_of_once(
    tmp_path: Path, store: MemoryLedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    edge = Edge(tmp_path / "file" / "spool", store)
    edge.attempt(1, 2, 3)
    await edge.book.adopt()
    await edge.book.close()
    assert await outcomes(store) == {"r1": "ok", "r2": "ok", "r3": "ok"}
    assert edge.book.unwritten == 6
    assert len([record for record in caplog.records if "cannot be written" in record.getMessage()]) == 1


async def test_without_a_disk_the_memory_is_bounded_as_ever(
    tmp_path: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 3)
    (tmp_path / "file").write_text("")
    edge = Edge(tmp_path / "file", store)
    edge.attempt(*range(5))
    assert (len(edge.book), edge.book.lost) == (3, 2)


async def test_disk_that_fills_up_in_the_middle_of_a_line_spoils_no_other(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge(folder, store)
    edge.attempt(1)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:20]))
    edge.attempt(2)
    monkeypatch.setattr(os, "write", whole)
    edge.attempt(3)
    edge.die()
    await survive(folder, store)
    assert await outcomes(store) == {"r1": "ok", "r3": "ok"}
    assert edge.book.unwritten == 2
    assert "2 lines cannot be read" in caplog.text


def test_disk_that_fails_again_after_it_was_well_is_told_of_again(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edge = Edge(folder, store)
    whole = os.write
    for number in range(2):
        monkeypatch.setattr(os, "write", lambda file, data: 0)
        edge.attempt(number)
        monkeypatch.setattr(os, "write", whole)
        edge.attempt(number + 10)
    assert [record.getMessage().split(" (")[1][:9] for record in caplog.records] == ["No space ", "No space "]


def test_folder_is_nobody_elses_to_read(folder: Path, store: MemoryLedgerStore) -> None:
    Edge(folder, store).attempt(1)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())]
    assert modes == [0o700, 0o700]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(folder)] == [0o600]


def test_folder_that_somebody_put_in_our_place_is_not_written_to(tmp_path: Path, store: MemoryLedgerStore) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere")
    edge = Edge(tmp_path / "spool", store)
    edge.attempt(1)
    assert (edge.spool.failures, files(tmp_path / "elsewhere")) == (2, [])


def test_folder_of_another_user_is_not_written_to(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    edge = Edge(folder, store)
    edge.attempt(1)
    assert (edge.book.unwritten, files(folder)) == (2, [])


async def test_disk_that_takes_no_new_file_leaves_the_memory_bounded(
    folder: Path, store: MemoryLedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_BUFFERED", 10)
    edge = Edge(folder, store)
    edge.attempt(0)
    monkeypatch.setattr(os, "open", refuse)
    edge.attempt(*range(1, 30))
    assert (len(edge.book), edge.book.lost) == (10, 20)


def refuse(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def settings(service: str = "isochrone", **state: Any) -> Settings:
    backend = Backend(name="b", base_url="http://127.0.0.1:1/v1", models={"m": "m"})
    return Settings(service=Service(name=service), state=State(**state), region=(Region(name="r"),), backend=(backend,))


def test_edges_of_different_tables_share_no_folder() -> None:
    places = [{}, {"endpoint_url": "http://127.0.0.1:1"}, {"endpoint_url": "http://127.0.0.1:2"}]
    names = [(name, place, region) for name in ("one", "two") for place in places for region in ("eu", "us")]
    folders = {folder_for(settings(name, **place), region, {}) for name, place, region in names}
    assert len(folders) == len(names)


@pytest.mark.parametrize(
    ("state", "folder"),
    [
        ({}, f"/elsewhere/isochrone-{os.getuid()}-isochrone-eu-aws"),
        (
            {"endpoint_url": "http://127.0.0.1:4566"},
            f"/elsewhere/isochrone-{os.getuid()}-isochrone-eu-http-127.0.0.1-4566",
        ),
        ({"spool": "/var/lib/x"}, "/var/lib/x/isochrone-eu-aws"),
    ],
)
def test_spool_stands_where_the_settings_say_or_in_the_temporary_folder(state: dict[str, str], folder: str) -> None:
    assert folder_for(settings(**state), "eu", {"TMPDIR": "/elsewhere"}) == Path(folder)


def test_ledger_in_memory_needs_no_spool() -> None:
    assert isinstance(open_spool(settings(kind="dynamodb"), "r", {}), Spool)
    assert not isinstance(open_spool(settings(kind="memory"), "r", {}), Spool)


# A process that attempts until it is killed, in small segments, with a store of one file per entry (the first stays).
# After each step it says so on stdout: what it said has happened, one step more may have.
MORTAL = """
import asyncio, json, os, random, sys
from pathlib import Path
from isochrone.durable import outbox
from isochrone.ledger.book import Book
from isochrone.ledger.entry import Begun, Entry
from isochrone.durable.spool import Spool
from isochrone.ledger.spool import ATTEMPTS
from isochrone.stores.protocols import StoreUnavailable
from msgspec import structs

spool, table, life = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(life)
outbox.MAX_BUFFERED = 40

class Table:
    async def append(self, entries):
        for entry in entries:
            if chance.random() < 0.02:
                raise StoreUnavailable("gone")
            path = table / entry["request_id"]
            if not path.exists():
                path.with_suffix(".new").write_text(json.dumps(entry))
                path.with_suffix(".new").rename(path)

async def live():
    book = Book(Table(), Spool(spool, ATTEMPTS, segment_bytes=3000))
    await book.adopt()
    running, number = [], 0
    while True:
        step = chance.random()
        if step < 0.5:
            number += 1
            running.append(Begun(request_id=f"{life}-{number}", tenant="t", model="m", backend="b", attempt=1,
                                 started_at=float(number)))
            book.begun(running[-1])
            print("begun", running[-1].request_id, flush=True)
        elif step < 0.97 and running:
            begun = running.pop(chance.randrange(len(running)))
            book.write(Entry(**structs.asdict(begun), outcome="ok", input_tokens=1, output_tokens=1, cost=0.0,
                             first_token_ms=None, total_ms=1.0))
            print("ended", begun.request_id, flush=True)
        else:
            await book.flush()

asyncio.run(live())
"""


def live_and_be_killed(spool: Path, table: Path, life: int, lines: int) -> list[list[str]]:
    """What the process said before SIGKILL; it is killed some time after it said so many lines."""
    argv = [sys.executable, "-c", MORTAL, str(spool), str(table), str(life)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


class Table:
    """What the mortal processes wrote, with the same way of writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def append(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            path = self.folder / entry["request_id"]
            if not path.exists():
                path.write_text(json.dumps(entry))

    def outcomes(self) -> dict[str, str]:
        entries = [json.loads(path.read_text()) for path in self.folder.iterdir() if path.suffix != ".new"]
        assert len({entry["request_id"] for entry in entries}) == len(entries)
        return {entry["request_id"]: entry["outcome"] for entry in entries}


async def test_twenty_deaths_in_the_middle_of_attempts_lose_and_double_nothing(tmp_path: Path) -> None:
    spool, table = tmp_path / "spool", Table(tmp_path / "table")
    table.folder.mkdir()
    said: list[list[str]] = []
    for life in range(20):
        said += live_and_be_killed(spool, table.folder, life, lines=40 + 37 * life)
    survivor = Book(table, Spool(spool, ATTEMPTS))  # type: ignore[arg-type]  # it only appends
    await survivor.adopt()
    await survivor.close()
    found = table.outcomes()
    has_begun = {request for word, request in said if word == "begun"}
    has_ended = {request for word, request in said if word == "ended"}
    assert has_begun <= set(found)
    assert {request for request in has_ended if found[request] != "ok"} == set()
    # The step in which each died may have been taken without a word.
    assert len(set(found) - has_begun) <= 20
    assert len([request for request in has_begun - has_ended if found[request] != "lost"]) <= 20
    assert len(has_begun - has_ended) > 20
    assert files(spool) == []
