"""Audit entries for people: one line each."""

from __future__ import annotations

from datetime import UTC, datetime

from isochrone.audit.entry import AuditEntry, Flag

_WIDTH = 80
# What `cache` says of an answer that was made for this request.
_NOT_KNOWN_BEFORE = (None, "", "miss", "bypass")


def line_of(entry: AuditEntry | Flag) -> str:
    """When, what was decided and who asked for what; what a caller wrote cannot steer a terminal."""
    when = f"{datetime.fromtimestamp(entry.time / 1000, UTC):%Y-%m-%d %H:%M:%S}.{entry.time % 1000:03}Z"
    parts = _parts_of_flag(entry) if isinstance(entry, Flag) else _parts_of(entry)
    return "  ".join(_safe(part) for part in (when, *parts) if part)


def _parts_of(entry: AuditEntry) -> list[str]:
    country = f" ({entry.country})" if entry.country else ""
    return [
        f"{entry.decision:8}{entry.status}",
        f"{entry.tenant or '-'}/{entry.key_id or entry.subject or '-'}",
        f"{entry.address or '-'}{country}",
        f"{entry.method} {entry.path}",
        entry.model or "",
        f"by {entry.backend}" if entry.backend else "",
        f"cache {entry.cache}" if entry.cache not in _NOT_KNOWN_BEFORE else "",
        " ".join(filter(None, (entry.reason, f"rule {entry.rule}" if entry.rule else ""))),
        entry.outcome if entry.outcome not in ("", "complete") else "",
        f"{entry.latency_ms:.0f} ms",
        f"{entry.input_tokens}+{entry.output_tokens} tokens" if entry.output_tokens else "",
    ]


def _parts_of_flag(flag: Flag) -> list[str]:
    return ["flagged ", f"{flag.tenant}/-", f"answer to {flag.request_id}", flag.model, f"by {flag.backend}", flag.rule]


def _safe(text: str) -> str:
    shown = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
