"""How soon one model at one backend answers. Pure; milliseconds for durations, seconds for the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil, inf

from msgspec import Struct

# A first token within this time counts as brisk: differences below it are noise of prompts, not of places.
BRISK_MS = 2000.0
# An answer within this time is there before anybody has reason to wonder about it.
SOON_MS = 2000.0
_LATE_REMEMBERED_SECONDS = 600.0
SAMPLES = 64
_WEIGHT = 0.3
_HALF_LIFE_SECONDS = 10.0


class SpeedNote(Struct, frozen=True):
    """What edges tell each other: the smoothed time to first token as it was at `at`, on the reader's clock."""

    at: float
    first_token_ms: float


def percentile_95(values: Sequence[float]) -> float | None:
    """The least of `values` that 95 % of them do not exceed; None for no values."""
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else None


class Speed:
    """`answer_ms` is the smoothed time of a whole answer, as long as it holds a place at the backend (a caller who
    reads slowly is part of that); None while unknown."""

    __slots__ = (
        "_first_token_at", "_first_token_ms", "_last_first_token_ms", "_late_at", "_samples", "answer_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.answer_ms: float | None = None
        self._late_at = -inf
        self._first_token_ms: float | None = None
        self._first_token_at = 0.0
        self._last_first_token_ms = BRISK_MS
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    def on_first_token(self, ms: float, *, now: float) -> None:
        """An attempt's first token came after `ms`; what is slower than known counts at once, what is faster smoothed.

        One very long prompt must not exile a backend: a first token counts only as far as the one before was slow, too.
        """
        self._samples.append((now, ms))
        ms, self._last_first_token_ms = min(ms, self._last_first_token_ms), ms
        known = self.first_token_ms(now)
        self._first_token_at = now
        self._first_token_ms = ms if known is None or ms > known else _smoothed(known, ms)

    def first_token_ms(self, now: float) -> float | None:
        """The recent time to first token; it fades, so that a backend left alone for it gets its turn again."""
        if self._first_token_ms is None:
            return None
        return float(self._first_token_ms * 0.5 ** ((now - self._first_token_at) / _HALF_LIFE_SECONDS))

    def slowness_ms(self, now: float) -> float:
        """How far the recent time to first token lies above what is brisk."""
        if self._first_token_ms is None or self._first_token_ms <= BRISK_MS:
            return 0.0  # it only fades
        return max(0.0, (self.first_token_ms(now) or 0.0) - BRISK_MS)

    def first_tokens(self, since: float) -> list[float]:
        """The times to first token that were measured after `since`, at most the last SAMPLES."""
        return [ms for at, ms in self._samples if at > since]

    def on_answer(self, ms: float, *, now: float) -> None:
        """An answer was complete after `ms`."""
        self.answer_ms = _smoothed(self.answer_ms, ms)
        if ms >= SOON_MS:
            self.on_late(now)

    def on_late(self, now: float) -> None:
        """An answer was not there in the time in which answers usually are."""
        self._late_at = now

    def answers_come_soon(self, now: float) -> bool:
        """Have all answers of the last ten minutes come soon? One that took long says that others may."""
        return self.answer_ms is not None and now - self._late_at >= _LATE_REMEMBERED_SECONDS

    def export(self) -> SpeedNote | None:
        """What other edges may know of it; None while nothing is known."""
        return None if self._first_token_ms is None else SpeedNote(self._first_token_at, self._first_token_ms)

    def absorb(self, note: SpeedNote, now: float) -> None:
        """Take over what another edge saw, if it is newer than what was seen here."""
        if note.at <= now and (self._first_token_ms is None or note.at > self._first_token_at):
            self._first_token_at, self._first_token_ms = note.at, note.first_token_ms


def _smoothed(known: float | None, ms: float) -> float:
    return ms if known is None else known + _WEIGHT * (ms - known)
