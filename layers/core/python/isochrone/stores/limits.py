"""What a store accepts, the same in memory as on DynamoDB, so that the local edition fails where AWS would."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

# An item is at most 400 KB with its attribute names, key, tenant and numbers; those stay below 1 KB.
VALUE_BYTES = 400 * 1024 - 1024
# An answer may have twenty times that: in parts, each an item of its own.
ANSWER_BYTES = 8 * 1024 * 1024
# For how long, in seconds, the fleet store goes on counting the versions of a document that ended: fencing numbers
# that are further apart say nothing about each other.
NUMBERING_SECONDS = 86_400


def check_size(what: str, size: int, limit: int = VALUE_BYTES) -> None:
    """ValueError when `size` bytes are more than one item takes."""
    if size > limit:
        raise ValueError(f"{what}: {size} bytes are more than the store takes ({limit})")


def encode_document(name: str, document: dict[str, Any]) -> bytes:
    """The document as JSON. Raises ValueError when it is too large for one item."""
    encoded = msgspec.json.encode(document)
    check_size(f"fleet document {name!r}", len(encoded))
    return encoded


def check_item(partition: str, key: str, data: Mapping[str, Any]) -> None:
    """ValueError unless a directory item can be stored: flat, named, and at most one item large."""
    if not partition or not key or {"pk", "sk"} & data.keys():
        raise ValueError(f"directory item {partition}/{key}: it needs both names, and no field is called pk or sk")
    for field, value in data.items():
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"directory item {partition}/{key}: {field}: {value!r:.80} cannot be stored")
    check_size(f"directory item {partition}/{key}", len(msgspec.json.encode(data)))


def check_amounts(name: str, amounts: Mapping[str, float]) -> None:
    """ValueError when there is nothing to add, or something that is no finite number."""
    if not amounts or not all(math.isfinite(amount) for amount in amounts.values()):
        raise ValueError(f"counters {name!r}: amounts must be finite numbers, at least one, not {dict(amounts)}")


def ledger_sort_key(entry: dict[str, Any]) -> str:
    """`2026-11-23T02:00:58.250000Z#request#0001`: sorts by time, and names the attempt within its tenant.

    Raises ValueError when a field that makes the name is missing or of the wrong type.
    """
    started, request, attempt = (entry.get(field) for field in ("started_at", "request_id", "attempt"))
    if not isinstance(started, int | float) or not math.isfinite(started):
        raise ValueError(f"ledger entry: started_at must be epoch seconds, not {started!r}")
    if not isinstance(request, str) or not isinstance(attempt, int):
        raise ValueError(f"ledger entry: request_id must be text and attempt a number, not {request!r} and {attempt!r}")
    if not entry.get("tenant"):
        raise ValueError("ledger entry: tenant is missing")
    return f"{moment_key(started)}#{request}#{attempt:04d}"


def moment_key(moment: float) -> str:
    """Epoch seconds as a text that sorts by time."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
