"""The ledger beside its simplest model: what was begun, what has ended, and nothing else, whatever dies or is gone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from isochrone.durable import outbox
from isochrone.durable.spool import Spool
from isochrone.ledger.book import Book
from isochrone.ledger.entry import Begun, Entry
from isochrone.ledger.spool import ATTEMPTS
from isochrone.ledger.usage import estimate_tokens
from isochrone.stores.memory import MemoryLedgerStore

BUFFERED = 8


class LedgerMachine(RuleBasedStateMachine):
    """Processes come and go, the store too; only the disk stays. The model: the outcome of every attempt."""

    @initialize()
    def a_machine_is_set_up(self) -> None:
        self.buffered, outbox.MAX_BUFFERED = outbox.MAX_BUFFERED, BUFFERED
        self.runner = asyncio.Runner()
        self.disk = TemporaryDirectory()
        self.store = MemoryLedgerStore()
        self.outcomes: dict[str, str] = {}
        self.running: list[Begun] = []
        self.start()

    def start(self) -> None:
        self.spool = Spool(Path(self.disk.name) / "spool" / "edge", ATTEMPTS, segment_bytes=900)
        self.book = Book(self.store, self.spool)
        self.runner.run(self.book.adopt())

    @rule(count=st.integers(1, 12))
    def attempts_begin(self, count: int) -> None:
        for _ in range(count):
            number = len(self.outcomes)
            begun = Begun(
                request_id=f"r{number}", tenant="t", model="m", backend="b", attempt=1, started_at=float(number)
            )
            self.book.begun(begun)
            self.running.append(begun)
            self.outcomes[begun.request_id] = "lost"

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), count=st.integers(1, 12))
    def attempts_end(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.running))):
            self.end(self.running.pop(which % len(self.running)))

    def end(self, begun: Begun) -> None:
        fields: dict[str, Any] = {"input_tokens": 1, "output_tokens": 1, "cost": 0.0, "first_token_ms": None}
        self.book.write(Entry(**structs.asdict(begun), outcome="ok", total_ms=1.0, **fields))
        self.outcomes[begun.request_id] = "ok"

    @rule(calls=st.integers(0, 4))
    def store_goes_for_some_calls(self, calls: int) -> None:
        self.store.fail_next = calls

    @rule()
    def entries_are_flushed(self) -> None:
        self.runner.run(self.book.flush())

    @rule()
    def process_is_killed(self) -> None:
        for journal in self.spool._journals:
            os.close(journal._lock)
        self.running = []
        self.start()

    @rule()
    def process_is_stopped(self) -> None:
        """A door that closes ends what runs."""
        while self.running:
            self.end(self.running.pop())
        self.runner.run(self.book.close())
        self.start()

    @invariant()
    def nothing_is_given_up(self) -> None:
        assert not hasattr(self, "book") or self.book.lost == 0

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        try:
            self.process_is_killed()
            self.store.fail_next = 0
            self.runner.run(self.book.close())
            found = self.runner.run(self.store.all())
            assert {entry["request_id"]: entry["outcome"] for entry in found} == self.outcomes
            assert [path for path in Path(self.disk.name).rglob("*") if path.is_file()] == []
        finally:
            outbox.MAX_BUFFERED = self.buffered
            self.runner.close()
            self.disk.cleanup()


@given(st.text(max_size=300))
def test_estimate_is_no_more_than_a_token_per_character(text: str) -> None:
    assert 0 <= estimate_tokens(text) <= round(1.02 * len(text))


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
