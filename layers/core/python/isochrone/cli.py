"""The `isochrone` command: each subcommand a thin door to one function."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isochrone import __version__
from isochrone.cli_answers import answers
from isochrone.cli_audit import audit
from isochrone.cli_curated import curated
from isochrone.cli_keys import keys
from isochrone.cli_options import ConfigFile, Moment, NumberIn, Refused, config_option, json_option
from isochrone.cli_policy import policy
from isochrone.cli_warm import warm
from isochrone.settings import Settings, SettingsError

if TYPE_CHECKING:
    from isochrone.simulation.figures import Figures
    from isochrone.simulation.run import Terms

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="isochrone")
def main() -> None:
    """An edge router for LLM requests."""


main.add_command(answers)
main.add_command(audit)
main.add_command(curated)
main.add_command(keys)
main.add_command(policy)
main.add_command(warm)


@main.command()
@config_option
@click.option("--region", required=True, help="The region that this edge stands in.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8801, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--log-level", default="WARNING", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def serve(settings: Settings, region: str, host: str, port: int, log_level: str) -> None:
    """Run one edge in the foreground, until SIGTERM or Ctrl-C.

    Prints `ready http://HOST:PORT` when it can serve. Exit status: 0 after a clean stop, 1 when the address is taken,
    2 for a configuration that cannot be used.
    """
    from isochrone.doors.local import LocalDoor
    from isochrone.wiring import build_edge

    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def run() -> None:
        edge = build_edge(settings, region=region, resident=True)
        door = LocalDoor(edge, settings.limits)
        await door.serve(host, port, on_ready=lambda address: print(f"ready {address}", flush=True))

    try:
        asyncio.run(run())
    except SettingsError as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror or error}") from None


@main.command()
@config_option
@click.option("--region", help="The edge to plan for; without it, the one nearest to the client.")
@click.option("--client-ip", required=True, help="The client's address.")
@click.option("--model", required=True, help="The public model name.")
@click.option(
    "--regions", default=None, help="Where the request may be answered, separated by commas; default: anywhere."
)
@click.option("--prompt", help="How the request begins: decides among near-equals.")
@json_option
def plan(
    *,
    settings: Settings,
    region: str | None,
    client_ip: str,
    model: str,
    regions: str | None,
    prompt: str | None,
    as_json: bool,
) -> None:
    """Print the plan for a request and its reasons, without sending anything.

    Nothing is measured: round trips are those of the shipped matrix or estimates. `GET /v1/status` of a running edge
    shows what it measured. Exit status: 0, or 2 when the configuration or an argument cannot be used.
    """
    from isochrone.explain import explain
    from isochrone.wiring import locator_of

    try:
        locator = locator_of(settings, os.environ)
        explained = explain(
            settings,
            region=region,
            client_ip=client_ip,
            model=model,
            locator=locator,
            regions=_names(regions),
            prompt=prompt,
        )
    except (SettingsError, ValueError) as error:
        raise Refused(str(error)) from None
    click.echo(json.dumps(explained.as_dict(), indent=2) if as_json else explained.as_text())
    if not (settings.geo.database or os.environ.get("ISOCHRONE_GEO_DATABASE")):
        click.echo("no geo.database is set, so the client's place is unknown", err=True)


def _names(regions: str | None) -> list[str]:
    """As the header x-isochrone-regions has them: an empty list is a mistake, not "anywhere"."""
    names = [] if regions is None else [name.strip() for name in regions.split(",")]
    if not all(names):
        raise Refused("--regions takes names of regions, separated by commas")
    return names


@main.group()
def tables() -> None:
    """The tables on an emulator; on AWS, `cdk deploy` makes them."""


@tables.command()
@config_option
@click.option("--region", "regions", multiple=True, help="Only this region (may be repeated); default: all.")
def create(settings: Settings, regions: tuple[str, ...]) -> None:
    """Create the tables on the emulator that state.endpoint_url names; those that exist are left alone."""
    if not settings.state.endpoint_url:
        raise Refused("tables create is for an emulator only: state.endpoint_url is not set; on AWS use cdk deploy")
    from isochrone.stores.dynamodb.client import connect
    from isochrone.stores.dynamodb.tables import create_tables
    from isochrone.stores.protocols import StoreUnavailable

    async def run() -> None:
        for region in regions or tuple(known.name for known in settings.region):
            async with connect(region, endpoint_url=settings.state.endpoint_url) as client:
                await create_tables(client, settings, partial(_say, region))

    try:
        asyncio.run(run())
    except StoreUnavailable as error:
        raise click.ClickException(f"{settings.state.endpoint_url} does not answer: {error}") from None


def _say(region: str, line: str) -> None:
    click.echo(f"{region}: {line}")


@main.command()
@config_option
@click.option("--region", help="The region whose ledger to read; default: all.")
@click.option("--tenant", help="Only this tenant's entries.")
@click.option(
    "--since", type=Moment(), help="Only what began then or later: 90s, 15m, 2h, 7d, or 2026-11-23T05:00 (UTC)."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only so many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def ledger(
    settings: Settings, *, region: str | None, tenant: str | None, since: float | None, limit: int | None, as_json: bool
) -> None:
    """Print the ledger: one entry per attempt, oldest first."""
    if settings.state.kind == "memory":
        raise Refused("state.kind is memory: a running edge keeps its ledger, ask its GET /v1/ledger")
    names = [known.name for known in settings.region]
    if region and region not in names:
        raise Refused(f"--region {region!r} is not in the configuration; it has {', '.join(names)}")
    from isochrone.ledger.report import line_of
    from isochrone.settings import table_name
    from isochrone.stores.dynamodb.client import connect
    from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
    from isochrone.stores.protocols import StoreUnavailable

    async def read() -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for name in [region] if region else names:
            async with connect(name, endpoint_url=settings.state.endpoint_url) as client:
                store = DynamoLedgerStore(client, table_name(settings, "ledger"))
                entries += await store.all(tenant=tenant, since=since)
        return sorted(entries, key=lambda entry: float(entry["started_at"]))

    try:
        entries = asyncio.run(read())
    except StoreUnavailable as error:
        raise click.ClickException(str(error)) from None
    for entry in entries[-limit:] if limit else entries:
        click.echo(json.dumps(entry) if as_json else line_of(entry))


@main.command()
@click.option("--scenario", default="bad-day", show_default=True, metavar="NAME", help="What happens to the world.")
@click.option("--requests", default=100_000, show_default=True, type=click.IntRange(1), help="To each policy.")
@click.option("--clients", default=5_000, show_default=True, type=click.IntRange(1, 1_000_000), help="In cities.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same figures.")
@click.option("--traffic", metavar="NAME", help="A trace to play, or `rate`; default: what the scenario has.")
@click.option("--rate", type=NumberIn(0.001, 10_000), help="Requests per second; default: as recorded.")
@click.option("--cv", default=3.0, show_default=True, type=NumberIn(0.1, 20), help="Burstiness of `rate`.")
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="Only this one (may be repeated).")
@click.option("--probe-seconds", default=5.0, show_default=True, type=NumberIn(0.1, 600), help="Between probes.")
@click.option("--config", "settings", type=ConfigFile(), help="A world of your own instead of the scenario's.")
@click.option("--model", help="The public model name that all ask for; default: the first.")
@click.option("--processes", type=click.IntRange(1, 64), help="Policies at the same time; default: one for each core.")
@click.option("--png", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw a picture, too.")
@json_option
def simulate(*, processes: int | None, png: Path | None, as_json: bool, **wish: Any) -> None:
    """Compare ways to choose a backend in a simulated world; nothing is sent. docs/simulation.md says what it shows.

    Scenarios: bad-day, calm, outage, brownout, crowd, official-outage. Traffic: azure, azure-conv, azure-code,
    mooncake, servegen, rate. Policies: distance, rtt, round-robin, least-load, api-alone, api-three-times, ours.

    Progress goes to standard error. Exit status: 0, 1 when the picture cannot be drawn, or 2 for an argument that
    cannot be used.
    """
    from isochrone.simulation.contest import Wish, compare, terms_of
    from isochrone.simulation.report import as_data, as_text

    if png:
        _check_picture(png)
    try:
        terms, names = terms_of(Wish(source=wish.pop("traffic"), **wish))
    except (SettingsError, ValueError) as error:
        raise Refused(str(error)) from None
    found = compare(terms, names, processes=processes or os.cpu_count() or 1)
    click.echo(json.dumps(as_data(terms, found)) if as_json else as_text(terms, found))
    if png:
        _draw(terms, found, png)


def _check_picture(png: Path) -> None:
    """Refuse before anything is simulated."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise Refused("--png needs matplotlib, which an edge does not need: .venv/bin/pip install matplotlib")
    if not png.parent.is_dir():
        raise Refused(f"--png {png}: there is no folder {png.parent}")


def _draw(terms: Terms, found: Sequence[Figures], png: Path) -> None:
    from isochrone.simulation.chart import draw

    try:
        draw(terms, found, png)
    except OSError as error:
        raise click.ClickException(f"{png}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
