"""The figures as JSON, or as tables in Markdown that can be read in a terminal and pasted into a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from benchmark.edge_costs import Costs
from benchmark.machine import Circumstances
from benchmark.measure import Added, Row

_WITHOUT = "-"
_NOTHING = Row(name="", note="")


class Report(Struct, kw_only=True):
    """One run. Times of rows are microseconds."""

    circumstances: Circumstances
    rounds: int
    places: bool
    costs: Costs
    rows: list[Row]
    load_after: float


class Promise(NamedTuple):
    """One figure and the bound it must keep; `most` false means that it is a least value."""

    what: str
    unit: str
    value: float | None
    bound: float
    most: bool = True

    @property
    def kept(self) -> bool:
        """False also for what was not measured."""
        return self.value is not None and (self.value <= self.bound if self.most else self.value >= self.bound)


def promises(report: Report) -> list[Promise]:
    """The targets that this project set itself."""
    rows = {row.name: row for row in report.rows}
    forwarded = rows.get("isochrone", _NOTHING)
    body, first = _in_ms(forwarded.body), _in_ms(forwarded.first_token)
    known = _in_ms(rows.get("isochrone-known", _NOTHING).body)
    return [
        Promise("added to a forwarded request, p50", "ms", body.p50, 1.0),
        Promise("added to a forwarded request, p99", "ms", body.p99, 3.0),
        Promise("added to the first token, p99", "ms", first.p99, 4.0),
        Promise("forwarded requests on one core", "/s", forwarded.requests_per_s, 2_500, most=False),
        Promise("streamed events on one core", "/s", forwarded.events_per_s, 30_000, most=False),
        Promise("answer from memory, p50", "ms", known.p50, 1.0),
        Promise("start to `ready`", "s", report.costs.ready_s, 1.0),
        Promise("import of the edge function, CPU", "ms", report.costs.import_cpu_ms, 400),
        Promise("peak memory after 1,000 requests", "MB", report.costs.rss_peak_bodies_mb, 110),
        Promise("... and 1,000 streams more", "MB", report.costs.rss_peak_streams_mb, 110),
    ]


class _Milliseconds(NamedTuple):
    p50: float | None
    p99: float | None


def _in_ms(added: Added | None) -> _Milliseconds:
    return _Milliseconds(_ms(added.p50), _ms(added.p99)) if added else _Milliseconds(None, None)


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def as_text(report: Report) -> str:
    """The whole report."""
    parts = [_head(report), _promises(report), _rows(report.rows), *_notes(report)]
    return "\n\n".join(part for part in parts if part)


def _head(report: Report) -> str:
    around = report.circumstances
    urgency = "in the real-time class" if around.real_time else "as ordinary processes"
    places = "with" if report.places else "without"
    return "\n".join(
        [
            f"{around.date}, commit {around.commit}: `{around.command}`",
            f"{around.processor}, {around.cores} cores, {around.memory_gb} GB; {around.system}; Python {around.python}",
            f"Rounds: {report.rounds} (medians), {urgency}, {places} the location database; "
            f"load average before {around.load_before}, after {report.load_after}.",
        ]
    )


def _promises(report: Report) -> str:
    lines = [promise for promise in promises(report) if promise.value is not None]
    if not lines:
        return ""
    cells = [[p.what, _with_unit(p.value, p.unit), _bound(p), "yes" if p.kept else "**no**"] for p in lines]
    return _table(["figure", "measured", "bound", "kept"], cells)


def _bound(promise: Promise) -> str:
    return f"{'<=' if promise.most else '>='} {promise.bound:,g} {promise.unit}".replace(" /s", "/s")


def _with_unit(value: float | None, unit: str) -> str:
    return f"{_number(value)} {unit}".replace(" /s", "/s")


def _number(value: float | None) -> str:
    """Three digits that matter, or all before the point."""
    if value is None:
        return _WITHOUT
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _rows(rows: Sequence[Row]) -> str:
    measured = [row for row in rows if row.requests_per_s]
    if not measured:
        return ""
    nginx = next((row for row in measured if row.name == "nginx"), _NOTHING)
    heads = ["", "added p50 / p99 ms", "CPU ms", "first token added p50 / p99 ms", "each token added p50 / p99 ms"]
    heads += ["requests/s", "of direct", "of nginx", "events/s", "of nginx", "MB idle -> peak"]
    return _table(heads, [_cells(row, nginx) for row in measured])


def _cells(row: Row, nginx: Row) -> list[str]:
    return [
        row.name,
        _pair(row.body),
        _number(_ms(row.cpu_us)),
        _pair(row.first_token),
        _pair(row.token),
        _number(row.requests_per_s),
        _ratio(row.requests_of_direct),
        _ratio(_share(row.requests_per_s, nginx.requests_per_s)),
        _number(row.events_per_s),
        _ratio(_share(row.events_per_s, nginx.events_per_s)),
        f"{_number(row.rss_idle_mb)} -> {_number(row.rss_peak_mb)}" if row.rss_peak_mb else _WITHOUT,
    ]


def _pair(added: Added | None) -> str:
    return f"{_number(_ms(added.p50))} / {_number(_ms(added.p99))}" if added else _WITHOUT


def _share(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _ratio(value: float | None) -> str:
    return _WITHOUT if value is None else f"{value:#.2g}"


def _notes(report: Report) -> Iterator[str]:
    yield "\n".join(f"- {row.name}: {row.note}" for row in report.rows)
    if wrong := [f"{row.name} {row.wrong}" for row in report.rows if row.wrong]:
        yield "Answers that were not 200, or did not come: " + ", ".join(wrong)
    if any(row.name == "isochrone-known" and row.body for row in report.rows):
        yield "The times of isochrone-known are its own, not added: no backend is asked."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (heads, rule, *rows)
    )
