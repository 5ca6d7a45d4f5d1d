"""What the edges of a region know of the backends together: one document, merged by the newest word on each part. Pure.

A part is one note on one thing (a probe, an ejection, the circuit of one model...) with the stamp of when it was made.
Merging takes the later stamp, and between equal stamps the greater text, so it makes no difference in which order, how
often or through whom words come in: a semilattice.

Clocks of processes differ, so a stamp is no time of day but a Lamport clock that follows one: whoever has news on a
part stamps it later than all it has heard of that part. So a clock that is ahead wins no argument for longer than it
takes to hear it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

TICK_SECONDS = 0.001
# How soon a backend answers changes with every answer; by itself it is worth a write only so often.
SPEED_SECONDS = 10.0
SPEED = "speed "


class Part(Struct, frozen=True):
    """A note, as JSON has it, and its stamp in seconds."""

    stamp: Annotated[float, Meta(ge=0, le=1e11)]
    note: dict[str, Any]


Key = tuple[str, str]
"""The backend's name, and what the note is on: `probe`, `ejection`, `circuit MODEL` or `speed MODEL`."""

Snapshot = Mapping[Key, Part]


class _Document(Struct):
    backends: dict[str, dict[str, Part]]


def merge(one: Snapshot, other: Snapshot) -> dict[Key, Part]:
    """The newest word on each part."""
    return {**one, **newer(other, one)}


def newer(one: Snapshot, other: Snapshot) -> dict[Key, Part]:
    """The parts of `one` that are news to who knows `other`."""
    return {key: part for key, part in one.items() if key not in other or _is_newer(part, other[key])}


def _is_newer(part: Part, other: Part) -> bool:
    if part.stamp != other.stamp:
        return part.stamp > other.stamp
    return _text(part) > _text(other)


def _text(part: Part) -> bytes:
    return msgspec.json.encode(part.note, order="sorted")


def stamped(note: dict[str, Any], now: float, heard: Part | None) -> Part:
    """News at `now` (epoch seconds) on a part of which `heard` was the last word."""
    return Part(max(now, heard.stamp + TICK_SECONDS) if heard else now, note)


def is_worth_writing(mine: Snapshot, there: Snapshot) -> bool:
    """Would others learn enough from mine? All that is news counts, but a speed only when the one there is old."""
    return any(
        not key[1].startswith(SPEED) or key not in there or part.stamp - there[key].stamp >= SPEED_SECONDS
        for key, part in newer(mine, there).items()
    )


def document_of(snapshot: Snapshot) -> dict[str, Any]:
    """As the table holds it: `{"backends": {NAME: {KIND: {"stamp": ..., "note": {...}}}}}`."""
    backends: dict[str, dict[str, Any]] = {}
    for (backend, kind), part in snapshot.items():
        backends.setdefault(backend, {})[kind] = {"stamp": part.stamp, "note": part.note}
    return {"backends": backends}


def snapshot_of(document: Mapping[str, Any] | None, keys: Collection[Key]) -> dict[Key, Part]:
    """What a document says of `keys`; the rest is dropped, so it cannot grow. One that makes no sense says nothing."""
    try:
        found = msgspec.convert(document or {"backends": {}}, _Document).backends
    except msgspec.ValidationError:
        return {}
    parts = {(backend, kind): part for backend, kinds in found.items() for kind, part in kinds.items()}
    return {key: part for key, part in parts.items() if key in keys}
