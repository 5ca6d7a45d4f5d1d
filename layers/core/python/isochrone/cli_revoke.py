"""`isochrone answers revoke`, `show` and `revocations`: what an operator does about the answers of any tenant."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isochrone.cli_options import Refused, config_option, json_option
from isochrone.settings import Settings, main_region, table_name

if TYPE_CHECKING:
    from isochrone.answers.completion import Answer
    from isochrone.answers.rulebook import Rule, Rulebook
    from isochrone.stores.dynamodb.answers import DynamoAnswerStore
    from isochrone.stores.dynamodb.client import DynamoClient
    from isochrone.stores.protocols import DirectoryStore

T = TypeVar("T")
_SHOWN = 100

region_option = click.option("--region", help="Whose directory table to use; default: the main region's. All obey it.")


@click.command()
@config_option
@click.option("--tenant", required=True, help="Whose answers.")
@click.option("--id", "mark", help="One answer, as the header x-isochrone-answer names it.")
@click.option("--pattern", help="All answers to questions like this glob; case does not matter.")
@click.option("--all", "everything", is_flag=True, help="All answers.")
@click.option("--model", help="Only those of this public model name.")
@region_option
@json_option
def revoke(
    settings: Settings,
    *,
    tenant: str,
    mark: str | None,
    pattern: str | None,
    everything: bool,
    model: str | None,
    region: str | None,
    as_json: bool,
) -> None:
    """Take back answers of one tenant: within ten seconds no edge of any region gives them any more.

    One that is named by its id is deleted from the tables, too. Exit status: 0, 1 when a table does not answer, 2 when
    the configuration or an argument cannot be used.
    """
    from isochrone.answers.fingerprint import is_of
    from isochrone.answers.rulebook import EVERYTHING, LONGEST_PATTERN

    _check(settings, region)
    if sum(map(bool, (mark, pattern, everything))) != 1:
        raise Refused("give one of --id, --pattern and --all")
    if mark and model:
        raise Refused("--model goes with --pattern or --all: an id names one answer")
    if mark and not is_of(tenant, mark):
        raise Refused(f"--id {mark}: no answer of tenant {tenant!r} has such an id")
    if pattern and len(pattern) > LONGEST_PATTERN:
        raise Refused(f"--pattern: more than {LONGEST_PATTERN} characters")
    what = {"answer": mark, "pattern": EVERYTHING if everything else pattern, "model": model}
    _run(_revoke(settings, region or main_region(settings), tenant, what, as_json))
    if tenant not in _tenants(settings):
        click.echo(f"no [[key]] of this configuration has the tenant {tenant!r}: obeyed all the same", err=True)


def _tenants(settings: Settings) -> set[str]:
    from isochrone.admission.principal import ANONYMOUS

    return {key.tenant for key in settings.key} | (set() if settings.auth.required else {ANONYMOUS.tenant})


async def _revoke(settings: Settings, region: str, tenant: str, what: dict[str, str | None], as_json: bool) -> None:
    from isochrone.answers.revocations import Revocations, TooManyRevocations, longest_life

    async with AsyncExitStack() as stack:
        directory = await _directory(stack, settings, region)
        shared = Revocations(directory, life=longest_life(settings), clock=time.time, monotonic=time.monotonic)
        try:
            rule = await shared.revoke(tenant, **what)
        except TooManyRevocations:
            raise click.ClickException(f"{tenant} has too many revocations; --all is always possible") from None
        click.echo(json.dumps(_told(rule)) if as_json else _line(rule))
        if rule.answer:
            await _delete_everywhere(stack, settings, rule.answer)


async def _delete_everywhere(stack: AsyncExitStack, settings: Settings, mark: str) -> None:
    """It is taken back already; where its bytes cannot be deleted now, they go when their time is over."""
    from isochrone.stores.protocols import StoreUnavailable

    for known in settings.region:
        try:
            await (await _answers(stack, settings, known.name)).delete(mark)
        except StoreUnavailable as error:
            click.echo(f"{known.name}: not deleted from the table, it goes when its time is over: {error}", err=True)


@click.command()
@click.argument("mark", metavar="ID")
@config_option
@click.option("--region", help="Only this region's table; default: all.")
@json_option
def show(settings: Settings, mark: str, *, region: str | None, as_json: bool) -> None:
    """Print what is known of one answer, and in which regions: its question and where it came from, not what it says.
    One that was taken back is marked: no edge gives it any more.

    Exit status: 0, 1 when no table has it or one does not answer, 2 when the configuration or an argument cannot be
    used.
    """
    _check(settings, region)
    found, rulebook = _run(_found(settings, region, mark))
    if not found:
        raise click.ClickException(f"no table has an answer {mark}" + _taken_back_at(rulebook, mark))
    if as_json:
        click.echo(json.dumps(found))
        return
    for where, answer in found.items():
        created = datetime.fromtimestamp(answer["created"], UTC)
        said = f"{answer['model']} at {answer['backend']}, {created:%Y-%m-%d %H:%M:%SZ}: {_short(answer)}"
        click.echo(f"{where}: {said}" + (" (taken back)" if answer["revoked"] else ""))


async def _found(settings: Settings, region: str | None, mark: str) -> tuple[dict[str, dict[str, Any]], Rulebook]:
    """The answer by region, and what was taken back."""
    from isochrone.answers.codec import from_bytes
    from isochrone.answers.rulebook import Rulebook
    from isochrone.edge_answers import describe

    found, rulebook = {}, Rulebook()
    async with AsyncExitStack() as stack:
        rules = await _rules(stack, settings, region)
        rulebook.replace({rule.key: rule for rule in rules})
        for where in [region] if region else [known.name for known in settings.region]:
            store = await _answers(stack, settings, where)
            value = await store.get(mark, now=time.time(), consistent=True)
            if answer := from_bytes(value) if value else None:
                found[where] = {**describe(mark, answer, "store"), "revoked": _is_revoked(rulebook, mark, answer)}
    return found, rulebook


def _is_revoked(rulebook: Rulebook, mark: str, answer: Answer) -> bool:
    from isochrone.answers.fingerprint import is_of

    tenants = {rule.tenant for rule in rulebook.rules.values() if is_of(rule.tenant, mark)}
    return not all(rulebook.allows(tenant, mark, answer) for tenant in tenants)


def _taken_back_at(rulebook: Rulebook, mark: str) -> str:
    times = [rule.revoked_at for rule in rulebook.rules.values() if rule.answer == mark]
    return f"; it was taken back at {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%SZ}" if times else ""


@click.command()
@config_option
@click.option("--tenant", help="Only this tenant's.")
@region_option
@json_option
def revocations(settings: Settings, *, tenant: str | None, region: str | None, as_json: bool) -> None:
    """Print what was taken back and still has to be obeyed, oldest first.

    Exit status: 0, 1 when the table does not answer, 2 when the configuration or an argument cannot be used.
    """

    async def read() -> list[Rule]:
        async with AsyncExitStack() as stack:
            return [rule for rule in await _rules(stack, settings, region) if tenant in (None, rule.tenant)]

    _check(settings, region)
    for rule in _run(read()):
        click.echo(json.dumps(_told(rule)) if as_json else _line(rule))


async def _rules(stack: AsyncExitStack, settings: Settings, region: str | None) -> list[Rule]:
    """What was taken back, oldest first, by the directory of this region (None: of the main one)."""
    from isochrone.answers.revocations import PARTITION
    from isochrone.answers.rulebook import rule_of

    items = await (await _directory(stack, settings, region or main_region(settings))).items(PARTITION)
    return [rule for rule in map(rule_of, items.values()) if rule]


def _check(settings: Settings, region: str | None) -> None:
    if settings.state.kind == "memory":
        raise Refused("state.kind is memory: a running edge keeps its answers, ask its /v1/answers")
    names = [known.name for known in settings.region]
    if region and region not in names:
        raise Refused(f"--region {region!r} is not in the configuration; it has {', '.join(names)}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    from isochrone.stores.protocols import StoreUnavailable

    try:
        return asyncio.run(work)
    except StoreUnavailable as error:
        raise click.ClickException(f"a table does not answer: {error}") from None


async def _directory(stack: AsyncExitStack, settings: Settings, region: str) -> DirectoryStore:
    from isochrone.stores.dynamodb.directory import open_directory

    clients = {known.name: await _client(stack, settings, known.name) for known in settings.region}
    return open_directory(clients.__getitem__, settings, region)


async def _answers(stack: AsyncExitStack, settings: Settings, region: str) -> DynamoAnswerStore:
    from isochrone.stores.dynamodb.answers import DynamoAnswerStore

    return DynamoAnswerStore(await _client(stack, settings, region), table_name(settings, "answers"))


async def _client(stack: AsyncExitStack, settings: Settings, region: str) -> DynamoClient:
    """The operator may be far away, so nothing is given up as early as for a request."""
    from isochrone.stores.dynamodb.client import Timeouts, connect

    patient = Timeouts(connect=5.0, total=10.0)
    return await stack.enter_async_context(connect(region, endpoint_url=settings.state.endpoint_url, timeouts=patient))


def _told(rule: Rule) -> dict[str, Any]:
    return {
        "tenant": rule.tenant,
        "id": rule.answer,
        "pattern": rule.pattern,
        "model": rule.model,
        "revoked_at": rule.revoked_at,
    }


def _line(rule: Rule) -> str:
    when = datetime.fromtimestamp(rule.revoked_at, UTC)
    what = f"answer {rule.answer}" if rule.answer else f"answers to questions like {rule.pattern!r}"
    return f"{when:%Y-%m-%d %H:%M:%SZ} {rule.tenant}: {what}" + (f" of {rule.model}" if rule.model else "")


def _short(answer: dict[str, Any]) -> str:
    question = answer["question"] or ""
    return repr(question if len(question) <= _SHOWN else question[:_SHOWN] + "...")
