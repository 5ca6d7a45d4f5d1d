"""`isochrone keys`: who may come in. `isochrone.admin` does the work."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isochrone.cli_options import NumberIn, Refused, config_option, json_option
from isochrone.settings import Settings, main_region

if TYPE_CHECKING:
    from isochrone.admin import KeyAdmin, NewKey
    from isochrone.admission.key_record import Record
    from isochrone.settings import Key

T = TypeVar("T")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_DAYS = 36_500

via_option = click.option(
    "--via", metavar="REGION", help="Whose table to use; default: the main region's. All obey it."
)


class Duration(click.ParamType[float]):
    """`90d` on the command line, seconds in the command."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        said = re.fullmatch(r"(\d{1,9})([smhd])", value.strip())
        seconds = int(said[1]) * _SECONDS[said[2]] if said else 0
        if said is None or seconds > _LONGEST_DAYS * 86_400:
            self.fail(f"{value!r} is no time such as 90s, 15m, 24h or 90d, up to {_LONGEST_DAYS}d", param, ctx)
        return float(seconds)


@click.group()
def keys() -> None:
    """The keys of the directory table: any edge of any region knows them within seconds, without a deployment.

    With state.kind = "memory" there is no such table: `create --toml` prints a [[key]] table to paste instead.
    """


@keys.command()
@config_option
@click.option("--tenant", required=True, help="To whom its calls are counted.")
@click.option("--id", "key_id", help="Its name in lists, limits and logs; default: one is made.")
@click.option("--owner", help="Who answers for it: a person or a team.")
@click.option("--tag", "tags", multiple=True, help="For policies to go by (may be repeated).")
@click.option("--model", "models", multiple=True, help="Only this public model name (may be repeated).")
@click.option("--region", "regions", multiple=True, help="Only answers from here (may be repeated).")
@click.option("--network", "networks", multiple=True, help="Only from here, as 10.0.0.0/8 (may be repeated).")
@click.option("--deny-network", "denied_networks", multiple=True, help="Not from here (may be repeated).")
@click.option("--requests-per-minute", type=click.IntRange(1))
@click.option("--tokens-per-minute", type=click.IntRange(1))
@click.option("--concurrency", type=click.IntRange(1), help="Requests at the same time.")
@click.option("--requests-per-day", type=click.IntRange(1))
@click.option("--dollars-per-month", type=NumberIn(0, 1e9, min_open=True))
@click.option("--priority", type=click.IntRange(1, 10), help="The highest that is believed; default: 10.")
@click.option("--private", is_flag=True, help="Nothing of what it asks is kept or shared.")
@click.option("--pii", type=click.Choice(["off", "log", "upstream"]), help="Where personal data is taken out.")
@click.option("--expires-in", type=Duration(), help="It ends so long from now: 24h, 90d.")
@click.option("--expires", metavar="DATE", help="It ends then: 2027-01-31 or 2027-01-31T18:00:00+01:00.")
@click.option("--toml", "as_toml", is_flag=True, help="Keep it nowhere: print a [[key]] table for the configuration.")
@via_option
@json_option
def create(
    settings: Settings,
    *,
    key_id: str | None,
    expires_in: float | None,
    expires: str | None,
    as_toml: bool,
    via: str | None,
    as_json: bool,
    **said: Any,
) -> None:
    """Make a key and print it, once: afterwards only its digest is known anywhere.

    Exit status: 0, 1 when there is one of this id or a table does not answer, 2 for what cannot be used.
    """
    from isochrone.admin import make_key

    now = time.time()
    wish = {name: value for name, value in said.items() if value not in (None, (), False)}
    wish |= {"id": key_id} if key_id else {}
    wish |= _end(expires_in, expires, now)
    random = secrets.token_bytes(32)
    if as_toml:
        new = _checked(lambda: make_key(settings, wish, random=random, now=now))
    else:
        new = _ask(settings, via, lambda admin: admin.create(wish, random=random, now=now))
    _tell_new(new, now, as_json=as_json, as_toml=as_toml)


@keys.command("list")
@config_option
@click.option("--tenant", help="Only this tenant's.")
@via_option
@json_option
def list_(settings: Settings, *, tenant: str | None, via: str | None, as_json: bool) -> None:
    """Print the keys of the directory, one a line, with how each begins and whether it is good.

    Exit status: 0, 1 when the table does not answer, 2 for what cannot be used.
    """
    from isochrone.admin import as_data

    now = time.time()
    listing = _ask(settings, via, lambda admin: admin.listing())
    for record in listing.records:
        if tenant in (None, record.key.tenant):
            click.echo(json.dumps(as_data(record, now)) if as_json else _line(record, now))
    for why in listing.unreadable:
        click.echo(f"left out: {why}", err=True)


@keys.command()
@click.argument("key_id", metavar="ID")
@config_option
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="So long the old key goes on.")
@via_option
@json_option
def rotate(settings: Settings, *, key_id: str, grace: float, via: str | None, as_json: bool) -> None:
    """Make a new key in the place of an old one, and print it, once. It may what the old one may.

    Exit status: 0, 1 when there is no good key of this id or a table does not answer, 2 for what cannot be used.
    """
    now, random = time.time(), secrets.token_bytes(32)
    new = _ask(settings, via, lambda admin: admin.rotate(key_id, grace=grace, random=random, now=now))
    _tell_new(new, now, as_json=as_json, as_toml=False)
    click.echo(f"the key before it goes on until {_date(now + grace)}", err=True)


@keys.command()
@click.argument("key_id", metavar="[ID]", required=False)
@config_option
@click.option("--stdin", "from_stdin", is_flag=True, help="Read the key itself from standard input, for a found one.")
@via_option
@json_option
def revoke(settings: Settings, *, key_id: str | None, from_stdin: bool, via: str | None, as_json: bool) -> None:
    """Take back every key of an ID, or one that was found: within ten seconds no edge of any region takes it any more.

    It is for ever: an id is never used again. Exit status: 0, 1 when there is no such key or a table does not answer, 2
    for what cannot be used.
    """
    from isochrone.admin import as_data

    if bool(key_id) == from_stdin:
        raise Refused("give an ID, or --stdin with the key itself on standard input")
    now = time.time()

    def work(admin: KeyAdmin) -> Awaitable[list[Record]]:
        if key_id:
            return admin.revoke(key_id, now=now)
        return admin.revoke_key(sys.stdin.readline().strip(), now=now)

    records = _ask(settings, via, work)
    if not records:
        click.echo("taken back; what its item in the table said cannot be read", err=True)
    for record in records:
        click.echo(json.dumps(as_data(record, now)) if as_json else _line(record, now))


def _end(expires_in: float | None, expires: str | None, now: float) -> dict[str, str]:
    if expires_in is not None and expires is not None:
        raise Refused("give --expires-in or --expires, not both")
    if expires_in is not None:
        return {"expires": _date(now + expires_in)}
    if expires is None:
        return {}
    try:
        moment = datetime.fromisoformat(expires)
    except ValueError:
        raise Refused(f"--expires: {expires!r} is no date such as 2027-01-31 or 2027-01-31T18:00:00Z") from None
    return {"expires": (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()}


def _ask(settings: Settings, via: str | None, work: Callable[[KeyAdmin], Awaitable[T]]) -> T:
    """What the keys of the directory answer."""
    from isochrone.stores.protocols import StoreUnavailable

    if settings.state.kind == "memory":
        raise Refused(
            "state.kind is memory: there is no table of keys; `isochrone keys create --toml` makes one to paste"
        )
    if not settings.auth.keys:
        raise Refused("auth.keys = false: edges do not look into the table of keys, so nothing here would have effect")
    names = [known.name for known in settings.region]
    if via and via not in names:
        raise Refused(f"--via {via!r} is not in the configuration; it has {', '.join(names)}")
    region = via or main_region(settings)
    try:
        return _checked(lambda: asyncio.run(_with_table(settings, region, work)))
    except StoreUnavailable as error:
        raise click.ClickException(
            f"the directory table of {region} does not answer: {error}; --via takes another region's"
        ) from None


async def _with_table(settings: Settings, region: str, work: Callable[[KeyAdmin], Awaitable[T]]) -> T:
    from isochrone.admin import KeyAdmin
    from isochrone.stores.dynamodb.client import Timeouts, connect
    from isochrone.stores.dynamodb.directory import open_directory

    patient = Timeouts(connect=5.0, total=10.0)  # the operator may be far away
    async with AsyncExitStack() as stack:
        clients = {}
        for known in settings.region:
            client = connect(known.name, endpoint_url=settings.state.endpoint_url, timeouts=patient)
            clients[known.name] = await stack.enter_async_context(client)
        return await work(KeyAdmin(settings, open_directory(clients.__getitem__, settings, region)))


def _checked(work: Callable[[], T]) -> T:
    from isochrone.api.errors import ApiError, BadRequest

    try:
        return work()
    except BadRequest as error:
        raise Refused(error.message) from None
    except ApiError as error:
        raise click.ClickException(error.message) from None


def _tell_new(new: NewKey, now: float, *, as_json: bool, as_toml: bool) -> None:
    """The key goes to standard output, what is said about it elsewhere: so a script can keep the one."""
    from isochrone.admin import as_data

    if as_json:
        toml = {"toml": _toml(new.record.key)} if as_toml else {}
        click.echo(json.dumps({"key": new.key, **as_data(new.record, now), **toml}))
        return
    if as_toml:
        click.echo(_toml(new.record.key))
        click.echo(f"The key, which nothing shows again: {new.key}", err=True)
        return
    click.echo(new.key)
    click.echo(f"{_line(new.record, now)}\nKeep the key now: nothing shows it again.", err=True)


def _line(record: Record, now: float) -> str:
    key, state = record.key, record.state(now)
    ends = record.principal.expires
    about = [f"{record.shown}…", f"{key.id:24}", f"{key.tenant:16}", f"{state:8}", f"made {_date(record.created)}"]
    if state != "revoked" and ends is not None:
        about.append(f"{'ended' if state == 'expired' else 'ends'} {_date(ends)}")
    if record.revoked:
        about.append(f"since {_date(record.revoked)}")
    return "  ".join([*about, *([f"owner {key.owner}"] if key.owner else [])])


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _toml(key: Key) -> str:
    """A `[[key]]` table that says what the key does."""
    from isochrone.admission.key_record import said_by

    lines = [f"{name} = {_toml_value(name, value)}" for name, value in said_by(key).items()]
    return "\n".join(["[[key]]", *lines])


def _toml_value(name: str, value: Any) -> str:
    """A moment is no string there; strings are written as JSON's, but for one character."""
    if name == "expires":
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
