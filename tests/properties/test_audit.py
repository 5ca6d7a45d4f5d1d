"""Whatever one hand does to an audit log whose ends are known is found, and whatever dies or is gone, it is whole."""

from __future__ import annotations

import asyncio
import json
import os
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from isochrone.audit.entry import AuditEntry
from isochrone.audit.log import REPLIES, AuditLog
from isochrone.audit.verification import verify
from isochrone.durable import outbox
from isochrone.durable.spool import Spool
from tests.audits import NOW, MemoryCheckpoints, MemorySink, entry, placed, written

LOG = [*written(6), *written(4, writer="w2")]
HEADS = verify(placed(LOG)).heads


def intact(text: bytes) -> bool:
    return verify(placed([line for line in text.split(b"\n") if line]), HEADS).is_intact


TEXT = b"\n".join(LOG) + b"\n"


def test_it_is_intact_to_begin_with() -> None:
    assert intact(TEXT)


@given(st.integers(0, len(TEXT) - 2), st.integers(0, 255))
def test_any_one_changed_byte_is_found(where: int, byte: int) -> None:
    changed = TEXT[:where] + bytes([byte]) + TEXT[where + 1 :]
    assert intact(changed) == (changed == TEXT)


@given(st.integers(0, len(TEXT) - 2), st.integers(1, 2000))
def test_any_bytes_that_are_taken_out_are_found(where: int, count: int) -> None:
    changed = TEXT[:where] + TEXT[where + count :]
    assert intact(changed) == (changed.strip() == TEXT.strip())


@given(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=20).filter(lambda put: put.strip(b"\n") != b""))
def test_any_bytes_that_are_put_in_are_found(where: int, put: bytes) -> None:
    assert not intact(TEXT[:where] + put + TEXT[where:])


@given(st.integers(0, len(LOG) - 1), st.integers(0, len(LOG) - 1))
def test_lines_that_change_places_are_found_within_one_writer_and_harmless_between_two(one: int, other: int) -> None:
    lines = [*LOG]
    lines[one], lines[other] = lines[other], lines[one]
    in_order = all(
        [line for line in lines if b'"writer":"%s"' % writer in line]
        == [line for line in LOG if b'"writer":"%s"' % writer in line]
        for writer in (b"w1", b"w2")
    )
    assert intact(b"\n".join(lines)) == in_order


@given(st.lists(st.integers(0, len(LOG) - 1), max_size=6))
def test_lines_that_are_delivered_again_later_are_harmless(again: list[int]) -> None:
    assert intact(b"\n".join([*LOG, *(LOG[number] for number in again)]))


BUFFERED = 6


class AuditMachine(RuleBasedStateMachine):
    """Processes come and go, the sink too; only the disk stays. The model: the requests that were recorded, and those
    whose reply had begun."""

    @initialize()
    def a_machine_is_set_up(self) -> None:
        self.buffered, outbox.MAX_BUFFERED = outbox.MAX_BUFFERED, BUFFERED
        self.runner = asyncio.Runner()
        self.disk = TemporaryDirectory()
        self.sink = MemorySink()
        self.checkpoints = MemoryCheckpoints()
        self.now = NOW
        self.numbers, self.writers = count(), count()
        self.recorded: set[str] = set()
        self.going_out: list[AuditEntry] = []
        self.given_up: set[str] = set()
        self.start()

    def start(self) -> None:
        self.spool = Spool(Path(self.disk.name) / "spool" / "audit", REPLIES, segment_bytes=3000)
        self.log = AuditLog(
            self.sink,
            self.spool,
            edge="e",
            clock=lambda: self.now,
            new_id=lambda: f"w{next(self.writers)}",
            checkpoints=self.checkpoints,
        )
        self.runner.run(self.log.adopt())

    @rule(requests=st.integers(1, 12))
    def requests_are_over(self, requests: int) -> None:
        for _ in range(requests):
            self.record(entry(next(self.numbers)))

    @rule(requests=st.integers(1, 4))
    def replies_begin(self, requests: int) -> None:
        for _ in range(requests):
            self.going_out.append(entry(next(self.numbers)))
            self.log.begin(self.going_out[-1])

    @precondition(lambda self: self.going_out)
    @rule(which=st.integers(0, 99))
    def a_reply_ends(self, which: int) -> None:
        self.record(self.going_out.pop(which % len(self.going_out)))

    def record(self, one: AuditEntry) -> None:
        self.log.record(one)
        self.recorded.add(one.request_id)

    @rule(failing=st.booleans(), taken=st.integers(0, 5))
    def sink_changes(self, failing: bool, taken: int) -> None:
        self.sink.failing, self.sink.takes_before_it_fails = failing, taken

    @rule(failing=st.booleans())
    def table_of_checkpoints_changes(self, failing: bool) -> None:
        self.checkpoints.failing = failing

    @rule(seconds=st.sampled_from([1.0, 100.0]))
    def entries_are_delivered(self, seconds: float) -> None:
        self.now += seconds
        self.runner.run(self.log.flush())

    @rule()
    def process_is_killed(self) -> None:
        for journal in self.spool._journals:
            os.close(journal._lock)
        self.given_up |= {one.request_id for one in self.going_out}
        self.going_out = []
        self.start()

    @rule()
    def process_is_stopped(self) -> None:
        while self.going_out:
            self.record(self.going_out.pop())
        self.runner.run(self.log.close())
        self.start()

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        try:
            self.process_is_killed()
            self.sink.failing = False
            self.runner.run(self.log.close())
            told = [one for one in map(told_of, self.sink.lines) if one]
            assert {one["request_id"] for one in told} == self.recorded | self.given_up
            lost = {one["request_id"] for one in told if one.get("outcome") == "lost"}
            assert lost == self.given_up
            report = verify(placed(self.sink.lines), self.checkpoints.points)
            assert [finding.what for finding in report.findings if "no checkpoint knows" not in finding.what] == []
            assert [path for path in Path(self.disk.name).rglob("*") if path.is_file()] == []
        finally:
            outbox.MAX_BUFFERED = self.buffered
            self.runner.close()
            self.disk.cleanup()


def told_of(line: bytes) -> dict[str, Any] | None:
    told: dict[str, Any] = json.loads(line)
    return told if told["record"] == "request" else None


TestAuditLog = AuditMachine.TestCase
TestAuditLog.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
