"""`isochrone policy`: rules of who may do what, tried and kept; `isochrone.admission.policies` does the work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from isochrone.cli_options import Refused, config_option, json_option
from isochrone.settings import Policy, Settings, main_region
from isochrone.toml_errors import KeyPath, in_plain_words

if TYPE_CHECKING:
    from isochrone.admission.policies import Decision
    from isochrone.admission.policies.book import PolicyBook
    from isochrone.admission.policies.examples import Outcome, Request
    from isochrone.admission.policies.reasons import Reason
    from isochrone.stores.protocols import DirectoryStore

T = TypeVar("T")
MOST = 500
"""Rules in the directory: each edge reads all of them every few seconds."""

_FILE = click.Path(dir_okay=False, path_type=Path)
_also = click.option("--also", type=_FILE, help="A file with more rules, such as one that is to be `put`.")
_directory = click.option("--directory", is_flag=True, help="With the rules of the directory table too.")


@click.group()
def policy() -> None:
    """Rules of who may do what: those of the configuration, and with auth.policies those of the directory table.

    Without an allowing rule nothing is allowed, and a denying one wins. Edges obey a change within ten seconds.
    """


# -- trying them -----------------------------------------------------------------------------------------------------


@policy.command()
@click.argument("file", type=_FILE)
@config_option
@_also
@_directory
@json_option
def test(settings: Settings, *, file: Path, also: Path | None, directory: bool, as_json: bool) -> None:
    """Ask the rules the examples of FILE, and compare what they say with what is expected.

    Exit status: 0 when all is as expected, 1 when it is not, 2 when a file cannot be used.
    """
    from isochrone.admission.policies.examples import ExampleError, doubts, read, tried

    policies = _rules(settings, also, directory)
    book, now = _book(policies, settings), time.time()
    try:
        examples = read(_text(file), str(file))
        outcomes = [tried(book, example, now=now) for example in examples]
    except ExampleError as error:
        raise Refused(str(error)) from None
    for outcome in outcomes:
        click.echo(json.dumps(_outcome(outcome)) if as_json else _line(outcome))
    for example in examples:
        for doubt in doubts(example, policies, settings):
            click.echo(f"Warning: {example.name}: {doubt}", err=True)
    for one in _ended(policies, now):
        click.echo(f"Warning: rule {one.id!r} never matches any more: its time is over", err=True)
    if wrong := sum(bool(outcome.unexpected) for outcome in outcomes):
        raise click.ClickException(f"{wrong} of {len(outcomes)} examples are not as expected")


@policy.command()
@config_option
@click.option("--tenant", default="anonymous", show_default=True)
@click.option("--kind", type=click.Choice(["key", "token", "anonymous"]), default="key", show_default=True)
@click.option("--key", help="The id of its key.")
@click.option("--owner", default="", help="Of the key.")
@click.option("--subject", help="Of the token.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--action", type=click.Choice(["generate", "read", "revoke"]), default="generate", show_default=True)
@click.option("--model", help="The public model name.")
@click.option("--region", help="Where it would be answered; default: anywhere.")
@click.option("--ip", default="", help="The caller's address.")
@click.option("--country", help="The caller's, such as FR.")
@click.option("--tokens", type=click.IntRange(0), help="The most that it may use, in and out.")
@click.option("--at", metavar="TIME", help="As 2027-01-31T09:30:00+08:00; default: now.")
@_also
@_directory
@json_option
def explain(
    settings: Settings, *, region: str | None, also: Path | None, directory: bool, as_json: bool, **asked: Any
) -> None:
    """Print what the rules say to one request, and of each rule why. Exit status: 0 when it is allowed, 1 when not."""
    from isochrone.admission.policies.examples import decided

    request = _request(asked, region)
    policies, now = _rules(settings, also, directory), time.time()
    decision = decided(_book(policies, settings), request, now=now)
    told = _reasons(policies, request, region, now)
    if as_json:
        click.echo(json.dumps({**_decision(decision), "rules": [one._asdict() for one in told]}))
    else:
        click.echo(f"{'allowed' if decision.allowed else 'denied'}: {decision.reason}")
        for one in told:
            click.echo(f"  {one.effect:5} {one.rule}: {_why(one)}")
    if not decision.allowed:
        raise click.exceptions.Exit(1)


def _request(asked: dict[str, Any], region: str | None) -> Request:
    from msgspec import ValidationError, convert

    from isochrone.admission.policies.examples import ExampleError, Request, asking

    pairs = [pair.partition("=") for pair in asked.pop("attributes")]
    if bare := [name for name, sign, _ in pairs if not sign]:
        raise Refused(f"--attribute {bare[0]}: give NAME=VALUE")
    given = {name: value for name, value in asked.items() if value is not None}
    given |= {"attributes": {name: value for name, _, value in pairs}, "regions": None if region is None else [region]}
    try:
        request = convert(given, Request)
        asking(request)
    except ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise Refused(f"--{place.rstrip('`')}: {in_plain_words(message, (), Request)}") from None
    except ExampleError as error:
        raise Refused(f"--ip: {error}") from None
    return request


def _reasons(policies: Sequence[Policy], request: Request, region: str | None, now: float) -> list[Reason]:
    from isochrone.admission.policies.examples import asking
    from isochrone.admission.policies.facts import question_of
    from isochrone.admission.policies.reasons import reasons

    question = question_of(asking(request), request.action, model=request.model, tokens=request.tokens)
    return reasons(policies, question, region, now=request.at.timestamp() if request.at else now)


# -- keeping them ----------------------------------------------------------------------------------------------------


@policy.command("list")
@config_option
@json_option
def list_(settings: Settings, *, as_json: bool) -> None:
    """Print the rules: those of the configuration, and with auth.policies those of the directory."""
    from isochrone.admission.policies.reading import text_of

    kept = _kept(settings) if settings.auth.policies and settings.state.kind == "dynamodb" else []
    for where, policies in (("configuration", settings.policy), ("directory", kept)):
        for one in policies:
            said = f"{one.effect:5} {one.id} ({where}){': ' if one.description else ''}{one.description}"
            click.echo(json.dumps({"from": where, **json.loads(text_of(one))}) if as_json else said)


@policy.command()
@click.argument("file", type=_FILE)
@config_option
@json_option
def put(settings: Settings, *, file: Path, as_json: bool) -> None:
    """Keep the rules of FILE in the directory table, each in place of the one of the same id.

    FILE has [[policy]] tables as the configuration has them, or in JSON one policy or a list. All or none is written,
    as long as the table answers. Exit status: 0, 1 when it does not, 2 when the file cannot be used.
    """
    from isochrone.admission.policies import directory
    from isochrone.admission.policies.reading import PolicyUnusable, policies_in

    text = _text(file)
    try:
        new = policies_in(text, str(file))
    except PolicyUnusable as error:
        raise Refused(str(error)) from None

    async def work(store: DirectoryStore) -> None:
        texts = await directory.read(store, consistent=True)
        _check(text, str(file), new, texts, settings)
        for one in new:
            await directory.put(store, one)

    _run(settings, work)
    _say_done("put", [one.id for one in new], settings, as_json=as_json)


@policy.command()
@click.argument("names", metavar="ID...", nargs=-1, required=True)
@config_option
@json_option
def remove(settings: Settings, *, names: tuple[str, ...], as_json: bool) -> None:
    """Take rules out of the directory table, also those that no edge can obey.

    Exit status: 0, 1 when one is not there (then none is taken out) or the table does not answer.
    """
    from isochrone.admission.policies import directory

    async def work(store: DirectoryStore) -> None:
        if unknown := sorted(set(names) - set(await directory.read(store, consistent=True))):
            raise click.ClickException(f"there is no rule {unknown[0]!r} in the directory; nothing was taken out")
        for name in names:
            await directory.remove(store, name)

    _run(settings, work)
    _say_done("removed", names, settings, as_json=as_json)


def _check(text: str, name: str, new: Sequence[Policy], texts: dict[str, str], settings: Settings) -> None:
    """Refuse what would never have an effect, or another one than is meant."""
    from isochrone.admission.policies.directory import policies_of
    from isochrone.admission.policies.reading import PolicyUnusable, unusable_at
    from isochrone.policy_contradictions import contradictions

    ids = [one.id for one in new]
    others = {key: kept for key, kept in texts.items() if key not in ids}
    try:
        beside = (*settings.policy, *policies_of(others))
    except PolicyUnusable as error:
        raise Refused(f"the directory has one that no edge can obey; remove it first: {error}") from None
    taken = {one.id for one in settings.policy}
    found: list[tuple[KeyPath, str]] = [
        ((i, "id"), "stands in the configuration") for i, one in enumerate(ids) if one in taken
    ]
    found += [((i, "id"), f"{one!r} stands twice") for i, one in enumerate(ids) if one in ids[:i]]
    found += [
        ((i, "condition", "time", "before"), "never matches: it is over")
        for i, one in enumerate(new)
        if one in _ended(new, time.time())
    ]
    found += [(path, why) for path, why in contradictions((*new, *beside), settings) if int(path[0]) < len(new)]
    for path, why in found:
        raise Refused(str(unusable_at(text, name, ("policy", *path), why)))
    if len(others) + len(new) > MOST:
        raise Refused(f"{name}: the directory would have more than {MOST} rules")


def _kept(settings: Settings) -> list[Policy]:
    from isochrone.admission.policies import directory
    from isochrone.admission.policies.reading import PolicyUnusable

    try:
        return directory.policies_of(_run(settings, directory.read))
    except PolicyUnusable as error:
        raise click.ClickException(f"no edge can obey what stands in the directory: {error}") from None


def _run(settings: Settings, work: Callable[[DirectoryStore], Awaitable[T]]) -> T:
    """Do it with the directory of the main region; the others have it a moment later."""
    from isochrone.stores.dynamodb.client import Timeouts, connect
    from isochrone.stores.dynamodb.directory import open_directory
    from isochrone.stores.protocols import StoreUnavailable

    if settings.state.kind == "memory":
        raise Refused("state.kind is memory: rules stand in the configuration, as [[policy]]")
    patient = Timeouts(connect=5.0, total=10.0)  # the operator may be far away

    async def run() -> T:
        async with AsyncExitStack() as stack:
            clients = {
                known.name: await stack.enter_async_context(
                    connect(known.name, endpoint_url=settings.state.endpoint_url, timeouts=patient)
                )
                for known in settings.region
            }
            return await work(open_directory(clients.__getitem__, settings, main_region(settings)))

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise click.ClickException(f"the directory table does not answer: {error}") from None


# -- what the commands have in common --------------------------------------------------------------------------------


def _rules(settings: Settings, also: Path | None, directory: bool) -> tuple[Policy, ...]:
    from isochrone.admission.policies.reading import PolicyUnusable, policies_in

    try:
        more = policies_in(_text(also), str(also)) if also else ()
    except PolicyUnusable as error:
        raise Refused(str(error)) from None
    rules = (*settings.policy, *(_kept(settings) if directory else ()), *more)
    if not rules and not settings.auth.policies:
        raise Refused("there is no policy: then edges go by the lists of keys alone; --also FILE tries some")
    return rules


def _book(policies: Sequence[Policy], settings: Settings) -> PolicyBook:
    from isochrone.admission.policies.book import PolicyBook

    return PolicyBook(policies, {backend.region for backend in settings.backend if backend.region})


def _ended(policies: Sequence[Policy], now: float) -> list[Policy]:
    from isochrone.policy_contradictions import has_ended

    moment = datetime.fromtimestamp(now, UTC)
    return [one for one in policies if has_ended(one, moment)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise Refused(f"{file}: is no UTF-8 text") from None


# -- words -----------------------------------------------------------------------------------------------------------


def _decision(decision: Decision) -> dict[str, Any]:
    regions = None if decision.regions is None else sorted(decision.regions)
    return {"allowed": decision.allowed, "rule": decision.rule, "reason": decision.reason, "regions": regions}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    as_expected = {"name": outcome.name, "as_expected": not outcome.unexpected}
    return {**as_expected, "unexpected": outcome.unexpected or None, **_decision(outcome.decision)}


def _line(outcome: Outcome) -> str:
    said = outcome.unexpected or ("allow" if outcome.decision.allowed else "deny")
    return f"{'WRONG' if outcome.unexpected else 'ok':5} {outcome.name}: {said} ({outcome.decision.reason})"


def _why(reason: Reason) -> str:
    why = ", ".join([*reason.unlike, *(f"{name} asks for what is not known" for name in reason.missing)])
    return ("matches" if reason.matches else "does not match") + (f": {why}" if why else "")


def _say_done(done: str, names: Sequence[str], settings: Settings, *, as_json: bool) -> None:
    click.echo(json.dumps({done: list(names)}) if as_json else f"{done}: {', '.join(names)}")
    if not settings.auth.policies:
        click.echo("auth.policies is false in this configuration: its edges obey none of the directory's", err=True)
