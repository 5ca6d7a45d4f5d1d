"""`isochrone answers`: what known answers saved. Taking them back stands in `isochrone.cli_revoke`."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict

import click

from isochrone.cli_options import Moment, Refused, config_option, json_option
from isochrone.cli_revoke import revocations, revoke, show
from isochrone.settings import Settings, table_name

_WEEK = 7 * 86_400


@click.group()
def answers() -> None:
    """The answers that are known."""


for command in (revoke, show, revocations):
    answers.add_command(command)


@answers.command()
@config_option
@click.option("--region", help="Only what this region's edges saved; default: all.")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--since", type=Moment(), help="From the day of this moment on (UTC): 2h, 7d, 2026-11-23; default: 7d.")
@json_option
def stats(settings: Settings, *, region: str | None, tenant: str | None, since: float | None, as_json: bool) -> None:
    """Print how many answers were known, and what that saved in seconds, dollars and tokens.

    Sums are of whole days (UTC), and a few seconds old. Exit status: 0, 1 when a table does not answer, 2 when the
    configuration or an argument cannot be used.
    """
    from isochrone.ledger.figures import as_text, figures
    from isochrone.stores.protocols import StoreUnavailable

    if settings.state.kind == "memory":
        raise Refused("state.kind is memory: a running edge keeps its sums, ask its GET /v1/status")
    names = [known.name for known in settings.region]
    if region and region not in names:
        raise Refused(f"--region {region!r} is not in the configuration; it has {', '.join(names)}")
    now = time.time()
    began = now - _WEEK if since is None else since
    try:
        sums = asyncio.run(_sums(settings, [region] if region else names, tenant, began, now))
    except StoreUnavailable as error:
        raise click.ClickException(f"a table does not answer: {error}") from None
    found = {whose: figures(saved) for whose, saved in sorted(sums.items())}
    if as_json:
        click.echo(json.dumps(found))
    for whose, saved in found.items() if not as_json else ():
        click.echo(f"{whose}: {as_text(saved)}")
    if not found:
        click.echo("nothing was asked in that time that might have been known", err=True)


async def _sums(
    settings: Settings, regions: list[str], tenant: str | None, since: float, now: float
) -> dict[str, dict[str, float]]:
    """Of each tenant, over the regions."""
    from isochrone.ledger.rollups import Sums, merge, no_sums
    from isochrone.ledger.savings import saved_since
    from isochrone.stores.dynamodb.client import connect
    from isochrone.stores.dynamodb.rollups import DynamoRollupStore

    total: dict[str, Sums] = defaultdict(no_sums)
    for region in regions:
        async with connect(region, endpoint_url=settings.state.endpoint_url) as client:
            store = DynamoRollupStore(client, table_name(settings, "ledger"))
            for whose, sums in (await saved_since(store, since, now=now, tenant=tenant)).items():
                merge(total[whose], sums)
    return total
