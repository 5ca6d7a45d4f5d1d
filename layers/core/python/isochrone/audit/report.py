"""Audit entries for people: one line each."""

from __future__ import annotations

from datetime import UTC, datetime

from isochrone.audit.entry import AuditEntry

_WIDTH = 80


def line_of(entry: AuditEntry) -> str:
    """When, what was decided and who asked for what; what a caller wrote cannot steer a terminal."""
    when = datetime.fromtimestamp(entry.time / 1000, UTC)
    country = f" ({entry.country})" if entry.country else ""
    parts = [
        f"{when:%Y-%m-%d %H:%M:%S}.{entry.time % 1000:03}Z",
        f"{entry.decision:8}{entry.status}",
        f"{entry.tenant or '-'}/{entry.key_id or entry.subject or '-'}",
        f"{entry.address or '-'}{country}",
        f"{entry.method} {entry.path}",
        entry.model or "",
        f"by {entry.backend}" if entry.backend else "",
        " ".join(filter(None, (entry.reason, f"rule {entry.rule}" if entry.rule else ""))),
        entry.outcome if entry.outcome not in ("", "complete") else "",
        f"{entry.latency_ms:.0f} ms",
        f"{entry.input_tokens}+{entry.output_tokens} tokens" if entry.output_tokens else "",
    ]
    return "  ".join(_safe(part) for part in parts if part)


def _safe(text: str) -> str:
    shown = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
