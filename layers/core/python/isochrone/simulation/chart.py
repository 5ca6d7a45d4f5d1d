"""The picture of a contest: how soon requests are answered, and how that went through the hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isochrone.simulation.figures import BUCKET_SECONDS, IN_TIME_SECONDS, Figures
from isochrone.simulation.report import heading
from isochrone.simulation.run import Terms
from isochrone.simulation.scenarios import SCENARIOS, Incident
from isochrone.simulation.world import build_world

# After Okabe and Ito: told apart by those who see fewer colours, too. The last policy of a contest is ours.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00")
_OURS = "#000000"
_POINTS = 120
_MANY_HOURS = 6


def draw(terms: Terms, found: Sequence[Figures], path: Path) -> None:
    """Write a PNG. Raises OSError when that cannot be done."""
    world = build_world(terms.settings, terms.model, clients=1, seed=terms.seed)
    figure = Figure(figsize=(12, 4.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    soon, through_time = figure.subplots(1, 2)
    _draw_first_tokens(soon, found)
    _draw_hours(through_time, found, SCENARIOS[terms.scenario].incidents(world))
    figure.suptitle(heading(terms, found), fontsize=10)
    figure.savefig(path, format="png")


def _style(number: int, found: Sequence[Figures]) -> dict[str, Any]:
    if number == len(found) - 1:
        return {"color": _OURS, "linewidth": 2.2, "zorder": 3}
    return {"color": _COLOURS[number % len(_COLOURS)], "linewidth": 1.3}


def _draw_first_tokens(axes: Axes, found: Sequence[Figures]) -> None:
    for i, one in enumerate(found):
        shares = [percent * one.answered_share for percent in range(len(one.ttft_curve))]
        axes.plot(one.ttft_curve, shares, label=one.policy, **_style(i, found))
    axes.axvline(IN_TIME_SECONDS, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlim=(0.3, 100), ylim=(0, 101), xlabel="first token within, s", ylabel="of all requests, %")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


def _draw_hours(axes: Axes, found: Sequence[Figures], incidents: Iterator[Incident]) -> None:
    hours = max((one.hours for one in found), default=0.0)
    for i, one in enumerate(found):
        minutes = max(1, -(-len(one.timeline) // _POINTS))
        axes.plot(*_by_hour(one, minutes), **_style(i, found))
    if hours <= _MANY_HOURS:
        for trouble in takewhile(lambda incident: incident.at < hours * 3600, incidents):
            begins, ends = trouble.at / 3600, min(hours, (trouble.at + trouble.lasts) / 3600)
            axes.axvspan(begins, ends, color="#000000", alpha=0.07, linewidth=0)
            axes.text(begins, 1, trouble.trouble, fontsize=7, rotation=90, va="bottom")
    axes.set(ylim=(0, 101), xlabel="hour", ylabel=f"answered, first token within {IN_TIME_SECONDS:.0f} s, %")
    axes.grid(alpha=0.3)


def _by_hour(one: Figures, minutes: int) -> tuple[list[float], list[float]]:
    """The timeline in steps of so many minutes: hours, percent."""
    hours, percent = [], []
    for start in range(0, len(one.timeline), minutes):
        shares = [share for share in one.timeline[start : start + minutes] if share is not None]
        if shares:
            hours.append((start + minutes / 2) * BUCKET_SECONDS / 3600)
            percent.append(100 * sum(shares) / len(shares))
    return hours, percent
