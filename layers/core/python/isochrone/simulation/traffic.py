"""Who asks when, and how much: real traces played again and again, or arrivals with a rate and a burstiness."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Literal, NamedTuple, get_args

from isochrone.simulation.world import read_rows

Source = Literal["azure", "azure-conv", "azure-code", "mooncake", "servegen", "rate"]
SOURCES: tuple[Source, ...] = get_args(Source)

_FILES: dict[str, tuple[str, ...]] = {
    "azure": ("azure_conv.csv.gz", "azure_code.csv.gz"),
    "azure-conv": ("azure_conv.csv.gz",),
    "azure-code": ("azure_code.csv.gz",),
    "mooncake": ("mooncake.csv.gz",),
}
_QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
# What the model on a T4 takes; a longer prompt of a trace counts as this long.
CONTEXT_TOKENS = 8192
_WINDOW = 600.0
_LENGTHS_WINDOW = 21_600.0


class Arrival(NamedTuple):
    """One request: seconds from the start, tokens of its prompt and of its answer."""

    at: float
    input_tokens: int
    output_tokens: int


def arrivals(source: Source, chance: random.Random, *, rate: float | None, cv: float) -> Iterator[Arrival]:
    """Without end, in order of time.

    `rate` is in requests per second: a trace is played faster or slower to have it, None leaves it as it was. `cv` is
    the coefficient of variation of the time between arrivals, for "rate" only: 1 is Poisson, real load has up to 13.
    """
    if source == "servegen":
        return _generate(chance, rate)
    if source == "rate":
        return _draw(_trace("azure"), chance, rate or natural_rate("azure"), cv)
    return _replay(_trace(source), 1.0 if rate is None else rate / natural_rate(source))


def natural_rate(source: Source) -> float:
    """Requests per second of a trace as it was recorded."""
    if source == "servegen":
        windows = _windows()
        return sum(window.rate for those in windows for window in those) / len(windows)
    rows = _trace("azure" if source == "rate" else source)
    return len(rows) / rows[-1].at


def _trace(source: str) -> list[Arrival]:
    rows = [row for name in _FILES[source] for row in read_rows(name)]
    return sorted(
        Arrival(float(at), min(int(asked), CONTEXT_TOKENS), max(1, int(answered))) for at, asked, answered in rows
    )


def _replay(rows: list[Arrival], speed: float) -> Iterator[Arrival]:
    lap = rows[-1].at
    for begun in count(0.0, lap):
        for at, asked, answered in rows:
            yield Arrival((begun + at) / speed, asked, answered)


def _draw(rows: list[Arrival], chance: random.Random, rate: float, cv: float) -> Iterator[Arrival]:
    """Gamma-distributed times between arrivals; the lengths are those of rows drawn at random."""
    now = 0.0
    shape, scale = 1 / cv**2, cv**2 / rate
    while True:
        now += chance.gammavariate(shape, scale)
        row = rows[int(chance.random() * len(rows))]
        yield Arrival(now, row.input_tokens, row.output_tokens)


class _Window(NamedTuple):
    """Ten minutes of one ServeGen client."""

    client: int
    rate: float
    cv: float


class _Lengths(NamedTuple):
    """Token counts at `_QUANTILES`."""

    input_tokens: list[float]
    output_tokens: list[float]


def _windows() -> list[list[_Window]]:
    """All clients' windows, by time."""
    by_time: dict[float, list[_Window]] = {}
    for client, at, rate, cv in read_rows("servegen_rates.csv.gz"):
        by_time.setdefault(float(at), []).append(_Window(int(client), float(rate), float(cv)))
    return [by_time[at] for at in sorted(by_time)]


def _lengths() -> dict[int, list[_Lengths]]:
    """By client, in order of time; a client that has none takes another's."""
    known: dict[int, list[_Lengths]] = {}
    for row in read_rows("servegen_lengths.csv.gz"):
        values = [float(value) for value in row[2:]]
        known.setdefault(int(row[0]), []).append(_Lengths(values[: len(_QUANTILES)], values[len(_QUANTILES) :]))
    return known


def _generate(chance: random.Random, rate: float | None) -> Iterator[Arrival]:
    """ServeGen's clients, each bursty in its own way, window after window, and from the start when they are over."""
    lengths, windows = _lengths(), _windows()
    usual = list(lengths.values())
    factor = 1.0 if rate is None else rate / natural_rate("servegen")
    for number in count():
        begun = number * _WINDOW
        part = int(begun % (len(windows) * _WINDOW) // _LENGTHS_WINDOW)
        found: list[Arrival] = []
        for window in windows[number % len(windows)]:
            own = lengths.get(window.client) or usual[window.client % len(usual)]
            found += _of_window(window, own[min(part, len(own) - 1)], chance, begun, factor)
        yield from sorted(found)


def _of_window(
    window: _Window, lengths: _Lengths, chance: random.Random, begun: float, factor: float
) -> Iterable[Arrival]:
    cv = max(0.1, window.cv)
    shape, scale = 1 / cv**2, cv**2 / (window.rate * factor)
    # As if the client had been there before: without that every window would begin with everybody at once.
    at = begun + chance.random() * chance.gammavariate(shape, scale)
    while at < begun + _WINDOW:
        yield Arrival(at, _length(lengths.input_tokens, chance), _length(lengths.output_tokens, chance))
        at += chance.gammavariate(shape, scale)


def _length(quantiles: list[float], chance: random.Random) -> int:
    """A draw from the distribution with these quantiles, straight lines between them."""
    p = min(max(chance.random(), _QUANTILES[0]), _QUANTILES[-1])
    i = min(bisect(_QUANTILES, p), len(_QUANTILES) - 1)
    low, high = _QUANTILES[i - 1], _QUANTILES[i]
    drawn = round(quantiles[i - 1] + (quantiles[i] - quantiles[i - 1]) * (p - low) / (high - low))
    return min(max(1, drawn), CONTEXT_TOKENS)
