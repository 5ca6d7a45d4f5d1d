"""The ledger as an operator asks for it and reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment_of(text: str, *, now: float) -> float:
    """Epoch seconds of `15m` (so long before `now`) or `2026-11-23T05:00` (UTC if it says no offset).

    Raises ValueError that says what would do.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return now - float(ago[1]) * _SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an age such as 90s, 15m, 2h or 7d nor a date such as 2026-11-23"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def line_of(entry: Mapping[str, Any]) -> str:
    """One attempt on one line; `~` stands before tokens that no engine told."""
    started = datetime.fromtimestamp(entry["started_at"], UTC)
    mark = "~" if entry.get("usage_estimated") else ""
    tokens = " -> ".join(_count(entry[name], mark) for name in ("input_tokens", "output_tokens"))
    return (
        f"{started:%Y-%m-%d %H:%M:%S}  {entry['request_id'][:16]:16}  {entry['tenant']:12}  {entry['model']}  "
        f"{entry['backend']} #{entry['attempt']} {entry['outcome']}  {tokens} tokens  ${entry['cost']:.6f}"
    )


def _count(tokens: int | None, mark: str) -> str:
    return "?" if tokens is None else f"{mark}{tokens}"
