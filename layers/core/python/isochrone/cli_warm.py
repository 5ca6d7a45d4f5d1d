"""`isochrone warm`: see what would be made before it is asked for, or make what is due."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from isochrone.cli_options import NumberIn, Refused, config_option, json_option
from isochrone.settings import Settings, SettingsError

if TYPE_CHECKING:
    from isochrone.warmer_function import RegionWarmer
    from isochrone.warming.plan import Alone, Line, Plan
    from isochrone.warming.warmer import Run

_MADE = "made"
# Of dollars, seconds and chances, in JSON: one generation of a small model costs less than a millionth of a dollar.
_DIGITS = 9
# Of the answers that are left alone, so many are printed as text.
_SHOWN = 20


@click.command()
@config_option
@click.option("--region", help="Only this region; default: all, one after the other.")
@click.option("--plan", "planned", is_flag=True, help="Print what would be made, when and why; send nothing.")
@click.option("--apply", "applied", is_flag=True, help="Make what is due now.")
@click.option("--seconds", default=600.0, show_default=True, type=NumberIn(10, 86_400), help="For --apply, per region.")
@json_option
def warm(
    settings: Settings, *, region: str | None, planned: bool, applied: bool, seconds: float, as_json: bool
) -> None:
    """Make known answers anew before they expire, where somebody is likely to ask. docs/warming.md says how.

    Exit status: 0 when all that was due is made (or there was nothing to do), 1 when some of it is not or a table does
    not answer, 2 when the configuration or an argument cannot be used.
    """
    from isochrone.stores.protocols import StoreUnavailable

    if planned == applied:
        raise Refused("give either --plan or --apply")
    try:
        said = asyncio.run(_in_each(settings, _regions(settings, region), seconds if applied else None))
    except SettingsError as error:
        raise Refused(str(error)) from None
    except StoreUnavailable as error:
        raise click.ClickException(f"a table does not answer: {error}") from None
    for one in said:
        click.echo(json.dumps(one) if as_json else _as_text(one))
    if any(not one.get("complete", True) for one in said):
        raise SystemExit(1)


def _regions(settings: Settings, region: str | None) -> list[str]:
    names = [known.name for known in settings.region]
    if region and region not in names:
        raise Refused(f"--region {region!r} is not in the configuration; it has {', '.join(names)}")
    return [region] if region else names


async def _in_each(settings: Settings, regions: Iterable[str], seconds: float | None) -> list[dict[str, Any]]:
    from isochrone.warmer_function import build_warmer

    said = []
    for region in regions:
        warmer = build_warmer(settings, region=region, environ=os.environ)
        try:
            await warmer.start()
            said.append({"region": region, **await _ask(warmer, settings, seconds)})
        finally:
            await warmer.close()
    return said


async def _ask(warmer: RegionWarmer, settings: Settings, seconds: float | None) -> dict[str, Any]:
    if seconds is not None:
        return run_as_data(await warmer.run(seconds=seconds))
    plan, spent = await warmer.plan()
    return {"spent_today": round(spent, _DIGITS), "budget": settings.warm.budget, **plan_as_data(plan)}


def plan_as_data(plan: Plan) -> dict[str, Any]:
    """For JSON: `saves` is dollars with the seconds at what they are worth, `seconds` the waiting that is spared."""
    return {
        "plan": [_line(line) for line in plan.lines],
        "left": {why: count for why, count in plan.left.items() if count},
        "alone": [_alone(one) for one in plan.alone],
    }


def run_as_data(run: Run) -> dict[str, Any]:
    """For JSON: `complete` says that nothing of what was due is left."""
    made = [{**_line(one.line), "outcome": one.outcome, "spent": round(one.cost, _DIGITS)} for one in run.made]
    return {"state": run.state, "complete": run.is_complete, "spent": round(run.cost, _DIGITS), "made": made}


def _line(line: Line) -> dict[str, Any]:
    at = f"{datetime.fromtimestamp(line.at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    figures = {name: round(getattr(line, name), _DIGITS) for name in ("chance", "saves", "seconds", "cost")}
    return {"at": at, **_which(line), "kind": line.kind, **figures, "why": line.why}


def _alone(one: Alone) -> dict[str, Any]:
    return {**_which(one), "chance": round(one.chance, _DIGITS), "why": one.why}


def _which(one: Line | Alone) -> dict[str, Any]:
    return {"tenant": one.tenant, "model": one.model, "answer": one.mark, "question": one.question}


def _as_text(said: dict[str, Any]) -> str:
    return "\n".join(_plan_lines(said) if "plan" in said else _run_lines(said))


def _plan_lines(said: dict[str, Any]) -> list[str]:
    spent = f"{_dollars(said['spent_today'])} of ${said['budget']:g} spent today"
    lines = [f"{said['region']}: {len(said['plan'])} answers to make, {spent}"]
    lines += [f"  {one['at']}  {_brief(one)}  {one['why']}" for one in said["plan"]]
    lines += [f"  left: {count} ({why})" for why, count in said["left"].items()]
    lines += [_alone_line(one) for one in said["alone"][:_SHOWN]]
    if more := said["alone"][_SHOWN:]:
        lines.append(f"    and {len(more)} more, all of them with --json")
    if not said["plan"] and not said["left"]:
        lines.append("  no answer was asked for, or the edges have not told yet: they do every 10 s")
    return lines


def _alone_line(one: dict[str, Any]) -> str:
    return f"    {_name(one)}  {one['why']}; {one['chance']:.0%} that it is asked for once it has expired"


def _run_lines(said: dict[str, Any]) -> list[str]:
    count = sum(one["outcome"] == _MADE for one in said["made"])
    lines = [f"{said['region']}: {said['state']}, {count} answers made for {_dollars(said['spent'])}"]
    return lines + [f"  {one['outcome']}: {_brief(one)}" for one in said["made"]]


def _brief(one: dict[str, Any]) -> str:
    return f"{_name(one)}  saves {_dollars(one['saves'])} for {_dollars(one['cost'])}"


def _name(one: dict[str, Any]) -> str:
    return f"{one['tenant']}  {one['model']}  {one['question'] or one['answer']!r}"


def _dollars(amount: float) -> str:
    """Four digits behind the point, and two that tell something where these are but noughts."""
    return f"${amount:.4f}" if not 0 < abs(amount) < 0.001 else f"${Decimal(f'{amount:.2g}'):f}"
