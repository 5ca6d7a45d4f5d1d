"""What edges report, as far as the console shows it: GET /v1/status and GET /v1/ledger."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Point = tuple[float, float]
Standing = Literal["healthy", "trial", "ejected", "unreachable"]


class Seen(Struct, frozen=True):
    """One backend as one edge sees it."""

    name: str
    kind: str
    standing: Standing
    in_flight: int
    waiting: int
    rtt_ms: float
    rtt_from: str
    models: tuple[str, ...]
    region: str | None = None
    location: Point | None = None
    why: str | None = None
    first_token_ms: float | None = None


class Status(Struct, frozen=True):
    """One edge about itself. `counters` count since its start."""

    edge: str
    version: str
    ready: bool
    backends: tuple[Seen, ...]
    counters: dict[str, int]

    def family(self, name: str) -> dict[str, int]:
        """The counters of one family by their label: `answered_200` is 200 in the family `answered`."""
        counted = (key.partition("_") for key in self.counters)
        return {label: self.counters[f"{name}_{label}"] for family, _, label in counted if family == name}


class Attempt(Struct, frozen=True):
    """One entry of a ledger. Times in ms but for `started_at` (epoch seconds); cost in $."""

    request_id: str
    model: str
    backend: str
    attempt: int
    outcome: str
    cost: float
    started_at: float
    total_ms: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    first_token_ms: float | None = None
    detail: str | None = None


class Ledger(Struct, frozen=True):
    """One page of a ledger, newest first."""

    data: tuple[Attempt, ...]
