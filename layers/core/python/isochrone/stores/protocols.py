"""What the rooms need kept, one Protocol each. `memory` and `dynamodb` implement them; one contract suite tests both.

Every method may raise `StoreUnavailable`; callers then go on without the store (static stability): an answers store
that is gone is a miss, never an error to the client.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

from isochrone.stores.entries import Checkpoint, Entry, Neighbour


class StoreUnavailable(Exception):
    """The store did not answer in time, throttled, or is not there."""


class StoreBusy(StoreUnavailable):
    """The store turned the call away, so nothing of it was done."""


class Taken(NamedTuple):
    """Was it added, and the sums of all counters of that name now."""

    done: bool
    sums: dict[str, float]


class AnswerStore(Protocol):
    """Complete answers by fingerprint (hex). Times are epoch seconds.

    `value` is opaque bytes, at most what `max_bytes` says; a store whose items are smaller keeps it in parts.
    """

    max_bytes: int

    async def get(self, fingerprint: str, *, now: float, consistent: bool = False) -> bytes | None:
        """The stored bytes, or None when absent or past their expiry at `now`.

        Only a `consistent` read is sure to see what was written a moment ago; it costs twice as much.
        """

    async def put(
        self,
        fingerprint: str,
        value: bytes,
        *,
        tenant: str,
        expires: float,
        fresh_until: float = inf,
        fence: int | None = None,
        entry: Entry | None = None,
    ) -> bool:
        """Keep `value` until `expires` (inf: for ever) in place of an older one. An `entry` lets `search` find it.

        With a `fence` only if nobody with a higher one was faster: False when an answer with a higher one stands there,
        is fresh, and was put within the last day (for so long leases go on counting). Without one always.
        """

    async def delete(self, fingerprint: str) -> None:
        """Forget it; forgetting what is not there is no error."""

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        """The answers of `scope` whose entries are nearest to `vector` (unit length), best first, none that has
        expired at `now`. What was put a moment ago may be missing."""

    async def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes = b"") -> bool:
        """Replace the lessons `before` of an entry; False when others stand there now, or there is no such entry.

        An `embedding` replaces that of the entry; without one it stays.
        """


class LedgerStore(Protocol):
    """Append-only entries, one per attempt. An entry is a flat dict of str, int, float, bool and None.

    Every entry has `tenant`, `request_id`, `attempt` (int) and `started_at` (epoch seconds); these four name it.
    """

    async def append(self, entries: list[dict[str, Any]]) -> None:
        """Write all; the same (request_id, attempt) twice is kept once: the first stays.

        After StoreUnavailable some may be written; appending all of them again is right. ValueError says that one of
        them can never be stored. `started_at` is part of the name because callers choose request ids: a reused id must
        not swallow a second, real attempt.
        """

    async def recent(self, tenant: str, *, limit: int = 100) -> list[dict[str, Any]]:
        """The tenant's newest entries, newest first."""

    async def all(self, *, tenant: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        """Every tenant's entries, or one's, that started at `since` (epoch seconds) or later; oldest first.

        For the operator's command, never for a request.
        """


class RollupStore(Protocol):
    """Sums that many processes add to, by partition and key: what was saved and asked for in a day.

    They are kept beside the ledger's entries and never among them.
    """

    async def add(self, partition: str, key: str, amounts: Mapping[str, float], *, expires: float) -> None:
        """Add to the sums of `key`, all of them in one step; they begin at zero and end at `expires` (epoch seconds).

        When a reply got lost an amount may count twice, so these are figures, not money. ValueError for an amount that
        is no finite number.
        """

    async def sums(self, partition: str, *, now: float) -> dict[str, dict[str, float]]:
        """The sums of every key of the partition that have not expired at `now`, by key."""


class CheckpointStore(Protocol):
    """Ends of the audit log's chains, apart from their lines and append-only."""

    async def note(self, checkpoint: Checkpoint) -> None:
        """Keep it; one that is there already stays."""

    async def all(self, *, since: int, until: int) -> list[Checkpoint]:
        """Those noted between two moments (epoch milliseconds), by day and writer."""


class DocumentStore(Protocol):
    """Small shared documents of one region (health snapshot, leases...), changed by compare-and-set.

    `version` counts from 1 and goes on counting when a document expired and is taken over, so it can serve as a
    fencing number; 0 means "not there yet".
    """

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        """(document, version), or (None, 0) when absent or expired at `now`."""

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        """Write only if the stored version still is `version` (0: absent or expired).

        The new version when it was written, 0 when somebody else was faster.
        """


class FleetStore(DocumentStore, Protocol):
    """The documents of one region, and counters."""

    async def add(self, name: str, amounts: Mapping[str, float], *, expires: float) -> dict[str, float]:
        """Add to the counters `name`, all of them in one step; the sums after it, those of other callers' too.

        Counters begin at zero and are alive until the latest caller's `expires` (epoch seconds). They are apart from
        the document of that name. Give at least one amount, 0 to only read. When a reply got lost an amount may count
        twice, so use them for budgets and limits, not for money. ValueError for an amount that is no finite number.
        """

    async def take(
        self,
        name: str,
        amounts: Mapping[str, float],
        *,
        most: Mapping[str, float],
        expires: float,
        drop: Collection[str] = (),
    ) -> Taken:
        """Like `add`, but only while no counter in `most` would exceed what stands there: all of it or nothing.

        Counters in `drop` are forgotten with it. When a reply got lost an amount may count twice, but one below zero
        never does: after StoreUnavailable it was given back once or not at all, after StoreBusy surely not.
        """

    @property
    def offset(self) -> float:
        """Seconds by which the store's clock is ahead of this process's, as far as its replies told."""


class DirectoryStore(Protocol):
    """What operators and tenants lay down for all edges: curated answers, revocations... Replicated to every region,
    within about a second and in no particular order, so nothing may depend on two items arriving together.

    An item is a flat dict of str, int, float, bool and None, known by its partition and its key. A later put of the
    same item wins, in whichever region it is made.
    """

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        """The items of a partition whose keys begin with `prefix`, by key and in the order of the keys; `consistent`
        sees every put of this region."""

    async def put(self, partition: str, key: str, data: dict[str, Any]) -> None:
        """Write one item whole. ValueError says that it can never be stored (too large, not flat)."""

    async def delete(self, partition: str, key: str) -> None:
        """Forget one item; forgetting what is not there is no error."""
