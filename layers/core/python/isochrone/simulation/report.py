"""The figures of a contest as a table for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from isochrone.simulation.figures import IN_TIME_SECONDS, Figures
from isochrone.simulation.run import Terms

_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("policy", lambda one: one.policy),
    ("answered %", lambda one: f"{100 * one.answered_share:.2f}"),
    (f"in {IN_TIME_SECONDS:.0f} s %", lambda one: f"{100 * one.in_time_share:.2f}"),
    ("p50 s", lambda one: f"{one.ttft_p50:.2f}"),
    ("p95 s", lambda one: f"{one.ttft_p95:.2f}"),
    ("p99 s", lambda one: f"{one.ttft_p99:.2f}"),
    ("429 %", lambda one: f"{100 * one.saturated_share:.2f}"),
    ("50x %", lambda one: f"{100 * one.failed_share:.2f}"),
    ("attempts", lambda one: f"{one.attempts:.3f}"),
    ("RTT ms", lambda one: f"{one.rtt_ms:.0f}"),
    ("regret ms", lambda one: f"{one.regret_ms:.0f}"),
    ("API %", lambda one: f"{100 * one.api_share:.2f}"),
    ("wasted s", lambda one: f"{one.wasted_seconds:.2f}"),
    ("$/1000", lambda one: f"{one.dollars_per_1000:.3f}"),
)


def as_text(terms: Terms, found: Sequence[Figures]) -> str:
    """A heading and a Markdown table."""
    rows = [[title for title, _ in _COLUMNS], *([show(one) for _, show in _COLUMNS] for one in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(_padded(row, widths)) + " |" for row in rows]
    lines.insert(
        1, "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([heading(terms, found), "", *lines])


def as_data(terms: Terms, found: Sequence[Figures]) -> dict[str, Any]:
    """For JSON: what was asked, and a list of Figures."""
    return {
        "scenario": terms.scenario,
        "requests": terms.requests,
        "clients": terms.clients,
        "seed": terms.seed,
        "source": terms.source,
        "rate": terms.rate,
        "probe_seconds": terms.probe_seconds,
        "policies": [{key: _plain(value) for key, value in one._asdict().items()} for one in found],
    }


def heading(terms: Terms, found: Sequence[Figures]) -> str:
    """One line: what was simulated."""
    hours = found[0].hours if found else 0.0
    return (
        f"scenario {terms.scenario}: {terms.requests:,} requests to each policy in {hours:.1f} simulated hours, "
        f"{terms.clients:,} clients, traffic {terms.source}, seed {terms.seed}"
    )


def _padded(row: list[str], widths: list[int]) -> list[str]:
    return [
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _plain(value: object) -> object:
    """JSON knows no NaN."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return (
        round(value, 6) if isinstance(value, float) and isfinite(value) else None if isinstance(value, float) else value
    )
