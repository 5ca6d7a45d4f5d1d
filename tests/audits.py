"""Entries and sinks for tests of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isochrone.audit.chain import Chain
from isochrone.audit.entry import AuditEntry, Start
from isochrone.audit.verification import Line
from isochrone.stores.entries import Checkpoint
from isochrone.stores.protocols import StoreUnavailable

NOW = 1_795_000_000.0


def entry(number: int, **fields: Any) -> AuditEntry:
    """Request number `number`, one millisecond after the one before it."""
    told: dict[str, Any] = {"status": 200, "decision": "allowed", "tenant": "t", "latency_ms": 1.5} | fields
    return AuditEntry(
        time=int(NOW * 1000) + number,
        request_id=f"r{number}",
        edge="eu-west-1",
        method="POST",
        path="/v1/chat/completions",
        **told,
    )


def written(count: int, *, writer: str = "w1", to: str = "file") -> list[bytes]:
    """The lines of one writer: its start, then `count` requests."""
    chain = Chain(writer)
    start = Start(time=int(NOW * 1000), edge="eu-west-1", version="1", to=to)
    return [chain.link(start), *(chain.link(entry(number)) for number in range(count))]


def placed(lines: Sequence[bytes], file: str = "log") -> list[Line]:
    return [Line(f"{file}:{number}", raw) for number, raw in enumerate(lines, 1)]


class MemorySink:
    """A sink that fails while it is told to, or takes only some lines of a batch before it does."""

    def __init__(self, to: str = "file") -> None:
        self.to = to
        self.lines: list[bytes] = []
        self.failing = False
        self.takes_before_it_fails = 0
        self.puts = 0
        self.closed = False

    async def put(self, lines: Sequence[bytes]) -> None:
        self.puts += 1
        if self.failing:
            self.lines += lines[: self.takes_before_it_fails]
            raise StoreUnavailable("the sink is switched off")
        self.lines += lines

    async def close(self) -> None:
        self.closed = True


class MemoryCheckpoints:
    """CheckpointStore in a list."""

    def __init__(self) -> None:
        self.points: list[Checkpoint] = []
        self.failing = False

    async def note(self, checkpoint: Checkpoint) -> None:
        if self.failing:
            raise StoreUnavailable("MemoryCheckpoints is switched off")
        self.points.append(checkpoint)

    async def all(self, *, since: int, until: int) -> list[Checkpoint]:
        return [point for point in self.points if since <= point.time <= until]
