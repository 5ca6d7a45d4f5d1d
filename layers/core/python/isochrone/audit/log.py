"""The audit log of one edge: each request's entry is linked and on disk before its reply is over, and delivered later.

What was linked must arrive, or the log would look as if somebody had taken it out. So a line is linked once, goes to
the spool as it is, and whoever takes over the spool of a dead process delivers its lines as they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct, structs

from isochrone import __version__
from isochrone.audit.chain import Chain, link_of
from isochrone.audit.entry import AuditEntry, Flag, Start
from isochrone.durable.journal import Form
from isochrone.durable.outbox import Outbox
from isochrone.durable.spool import NoSpool
from isochrone.stores.entries import Checkpoint
from isochrone.stores.protocols import CheckpointStore, StoreUnavailable

log = logging.getLogger("isochrone.audit")

# How long the end of a chain goes without a checkpoint while it grows.
CHECKPOINT_SECONDS = 60.0
LOST = "lost"
# A batch of this many lines is about half of what one call to Firehose takes.
_AT_ONCE = 500

Key = tuple[int, str]


class Sink(Protocol):
    """Where lines go in the end. `to` is its name in the configuration."""

    to: str

    async def put(self, lines: Sequence[bytes]) -> None:
        """Keep all lines, in this order if it keeps one. After StoreUnavailable some may be kept; putting all again is
        right."""

    async def close(self) -> None:
        """Let go of what it holds."""


class Begun(Struct, frozen=True):
    """A note that a reply is going out: what is known by then."""

    begun: AuditEntry

    @property
    def key(self) -> Hashable:
        return self.begun.time, self.begun.request_id


class Line(Struct, frozen=True):
    """A linked line on its way, or (`unlinked`) the entry of a reply whose process died before it could link one."""

    raw: bytes
    key: Key
    own: bool = False
    unlinked: AuditEntry | None = None


class _Named(Struct):
    time: int
    request_id: str = ""


def _encode(record: Begun | Line) -> bytes:
    return record.raw if isinstance(record, Line) else msgspec.json.encode(record)


def _decode(line: bytes) -> Begun | Line:
    if line.startswith(b'{"begun":'):
        return msgspec.json.decode(line, type=Begun)
    named = msgspec.json.decode(line, type=_Named)
    return Line(line, (named.time, named.request_id))


def _lost(begun: Begun) -> Line:
    entry = structs.replace(begun.begun, outcome=LOST)
    return Line(b"", (entry.time, entry.request_id), unlinked=entry)


REPLIES: Form[Begun, Line] = Form("audit entries", _encode, _decode, Line, _lost)


class AuditLog(Outbox[Begun, Line]):
    """`clock` gives epoch seconds, `new_id` a name that no other process has; both are first asked with the first
    entry, since the copies of a snapshot must not share a chain."""

    def __init__(
        self,
        sink: Sink,
        spool: NoSpool[Begun, Line],
        *,
        edge: str,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        checkpoints: CheckpointStore | None = None,
    ) -> None:
        super().__init__(self._put, spool, what="audit", name=_name, at_once=_AT_ONCE)
        self._sink = sink
        self._edge = edge
        self._clock = clock
        self._new_id = new_id
        self._checkpoints = checkpoints
        self._chain: Chain | None = None
        self._delivered: bytes | None = None
        self._next_checkpoint = 0.0
        self._flushing = asyncio.Lock()

    def begin(self, entry: AuditEntry) -> None:
        """A reply is going out piece by piece; `record` will have its entry. Should this process not live so long, the
        next one makes an entry of this, with the outcome "lost"."""
        self.begun(Begun(entry))

    def record(self, entry: AuditEntry) -> None:
        """The entry of a request that is over: linked, and on disk when this returns."""
        chain = self._chain or self._begin_chain()
        self.write(Line(chain.link(entry), (entry.time, entry.request_id), own=True))

    def flag(self, request_id: str, rule: str, *, tenant: str, model: str, backend: str) -> None:
        """An answer that was told falls under `rule` (`moderation/CATEGORY,...`): linked, and on disk when this
        returns."""
        chain, now = self._chain or self._begin_chain(), round(self._clock() * 1000)
        flag = Flag(
            time=now, request_id=request_id, edge=self._edge, tenant=tenant, model=model, backend=backend, rule=rule
        )
        self.write(Line(chain.link(flag), (now, ""), own=True))

    def _begin_chain(self) -> Chain:
        self._chain = Chain(self._new_id())
        start = Start(time=round(self._clock() * 1000), edge=self._edge, version=__version__, to=self._sink.to)
        self.write(Line(self._chain.link(start), (start.time, ""), own=True))
        return self._chain

    async def flush(self) -> None:
        """Deliver what waits, in order, and now and then note how far the chain has come."""
        async with self._flushing:
            await super().flush()
            if self._delivered and self._clock() >= self._next_checkpoint:
                await self._note_checkpoint()

    def _take_back(self) -> bool:
        """What dead processes left: their lines as they are; what they never linked gets a place in the own chain."""
        taken = self._spool.take_back()
        for waiting in taken:
            if waiting.entry.unlinked:
                self.record(waiting.entry.unlinked)
                waiting.settle()
            else:
                self._buffer.append(waiting)
        return bool(taken)

    async def _put(self, lines: Sequence[Line]) -> None:
        await self._sink.put([line.raw for line in lines])
        self._delivered = next((line.raw for line in reversed(lines) if line.own), self._delivered)

    async def _note_checkpoint(self) -> None:
        link = link_of(self._delivered or b"")
        if link is None or self._checkpoints is None:
            return
        now = self._clock()
        try:
            await self._checkpoints.note(Checkpoint(link.writer, link.seq, link.hash, round(now * 1000)))
        except StoreUnavailable as error:
            log.warning("no checkpoint of the audit log could be noted: %s", error)
            return
        self._delivered, self._next_checkpoint = None, now + CHECKPOINT_SECONDS

    async def close(self) -> None:
        """The last flush and a checkpoint of the end. What cannot be delivered waits for the next process."""
        self._next_checkpoint = 0.0
        await super().close()
        await self._sink.close()


class NoLog:
    """What `audit.to = "none"` gives: says what an AuditLog does, and remembers nothing."""

    lost = 0
    unwritten = 0

    def __len__(self) -> int:
        return 0

    def begin(self, entry: AuditEntry) -> None:
        """Nothing."""

    def record(self, entry: AuditEntry) -> None:
        """Nothing."""

    def flag(self, request_id: str, rule: str, *, tenant: str, model: str, backend: str) -> None:
        """Nothing."""

    async def flush(self) -> None:
        """Nothing."""

    async def adopt(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


def _name(line: Line) -> str:
    return f"request {line.key[1]}"


AnyLog = AuditLog | NoLog
"""What an edge has."""
