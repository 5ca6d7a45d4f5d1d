"""What the ledger knows of one attempt: when it begins, and when it has ended."""

from __future__ import annotations

from msgspec import Struct, structs

LOST = "lost"


class Begun(Struct, frozen=True, kw_only=True, tag_field="record", tag="begun"):
    """One attempt when it begins; tenant, start (epoch seconds), request and number name it for ever.

    `answer` is the id of the answer that was wanted, None where it may not be known: the history of what was asked.
    """

    request_id: str
    task_id: str | None = None
    tenant: str
    model: str
    backend: str
    attempt: int
    started_at: float
    answer: str | None = None

    @property
    def key(self) -> tuple[float, str, int]:
        """Its name inside one process."""
        return self.started_at, self.request_id, self.attempt


class Entry(Begun, frozen=True, kw_only=True, tag="ended"):
    """One attempt when it has ended. `outcome` is "ok" for the one that answered.

    Tokens are None where nobody can tell; `usage_estimated` says that no engine told them, cost is in $.
    `ambiguous` says that the backend may have received the request although no reply came.
    """

    outcome: str
    input_tokens: int | None
    output_tokens: int | None
    usage_estimated: bool = False
    cost: float
    first_token_ms: float | None
    total_ms: float | None
    ambiguous: bool = False
    detail: str | None = None


def lost(begun: Begun) -> Entry:
    """The entry of an attempt whose process ended before the attempt did: what it cost, nobody knows."""
    return Entry(
        **structs.asdict(begun),
        outcome=LOST,
        input_tokens=None,
        output_tokens=None,
        cost=0.0,
        first_token_ms=None,
        total_ms=None,
        ambiguous=True,
        detail="its edge ended before the attempt did",
    )
