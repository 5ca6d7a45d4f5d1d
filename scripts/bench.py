#!/usr/bin/env python3
"""`make bench`: every performance figure of this project, measured here and now, beside direct access and peers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from benchmark.arena import Arena
from benchmark.contestants import CONTESTANTS, LITELLM, ROOT, Contestant, has_places, install_litellm
from benchmark.edge_costs import COSTS, Costs
from benchmark.errors import BenchError
from benchmark.machine import circumstances, cores, run_in_real_time
from benchmark.measure import Plan, Row, measure, measure_direct
from benchmark.report import Report, as_text
from benchmark.tools import build_tools

FOLDER = ROOT / ".local" / "bench"
NAMES = (*COSTS, "direct", *(contestant.name for contestant in CONTESTANTS))


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names of what can be measured."""

    name = "NAMES"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(str(value).split(","))
        if unknown := [name for name in names if name not in NAMES]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(NAMES)}", param, ctx)
        return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short round; the figures are rough.")
@click.option("--rounds", type=click.IntRange(1, 20), help="How often each block of load is repeated.  [default: 3]")
@click.option("--only", type=Names(), default=",".join(NAMES), help=f"Measure only these: {', '.join(NAMES)}.")
@click.option("--real-time/--no-real-time", default=True, help="Take precedence over other processes, if allowed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(quick: bool, rounds: int | None, only: tuple[str, ...], real_time: bool, as_json: bool) -> None:
    """Print every performance figure with the command, the machine and the date.

    A full run takes about ten minutes, --quick two. Everything stays on 127.0.0.1, and every load ends by itself.
    Exit status: 0 when everything could be measured or left out with a reason, 1 when not.
    """
    plan = Plan(rounds or 3, low=3.0, limit=2.0) if not quick else Plan(rounds or 1, low=1.0, limit=1.0)
    signal.signal(signal.SIGTERM, _stop)
    try:
        report = run(plan, only, real_time=real_time, install=not quick)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("stopped; everything that it started has ended") from None
    click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2) if as_json else as_text(report))


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def run(plan: Plan, only: Sequence[str], *, real_time: bool, install: bool) -> Report:
    """Measure what `only` names. Raises BenchError."""
    tools = build_tools(FOLDER)
    if install and "litellm" in only:
        _install_litellm()
    around = circumstances(ROOT, real_time=real_time and run_in_real_time())
    report = Report(circumstances=around, rounds=plan.rounds, places=has_places(), costs=Costs(), rows=[], load_after=0)
    with TemporaryDirectory(prefix="run-", dir=FOLDER) as folder, Arena(tools, cores(), Path(folder)) as arena:
        for name in [name for name in COSTS if name in only]:
            _say(f"{name}: measuring")
            COSTS[name](arena, plan, report.costs)
        if "direct" in only:
            _say("direct: measuring")
            report.rows.append(measure_direct(arena, plan))
        for contestant in [contestant for contestant in CONTESTANTS if contestant.name in only]:
            report.rows.append(_row(arena, contestant, plan))
    report.load_after = round(os.getloadavg()[0], 2)
    return report


def _install_litellm() -> None:
    _say(f"{LITELLM}: installing into .local/bench/litellm unless it is there (540 MB)")
    try:
        install_litellm()
    except BenchError as error:
        _say(f"litellm: {error}")


def _row(arena: Arena, contestant: Contestant, plan: Plan) -> Row:
    try:
        return measure(arena, contestant, plan, _say)
    except BenchError as error:
        _say(f"{contestant.name}: left out: {error}")
        return Row(name=contestant.name, note=f"left out: {error}")


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(main())
