#!/usr/bin/env python
"""What the front door costs: CPU microseconds of each of its steps with warm caches, and how many calls of a store one
request of a hot key takes.

The tables are in memory, and leased from as DynamoDB's are; --endpoint asks those of an emulator.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from uuid import uuid4

import click
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from isochrone.admission.address import AddressRule
from isochrone.admission.content.screen import Screen
from isochrone.admission.identity import Identity
from isochrone.admission.issuers.issuers import Issuers
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.key_record import PARTITION, item_of, made, new_key
from isochrone.admission.keys import KeyRing, digest_of
from isochrone.admission.policies.shared import SharedPolicies
from isochrone.api.controls import controls_of
from isochrone.api.exchange import Request
from isochrone.api.head import normalise
from isochrone.api.requests import CHAT, Ask
from isochrone.api.trail import Trail
from isochrone.audit.entry import entry_of
from isochrone.audit.files import FileSink
from isochrone.audit.log import REPLIES, AuditLog
from isochrone.background import Background
from isochrone.durable.spool import Spool
from isochrone.errand import Caller
from isochrone.front_door import FrontDoor
from isochrone.limits_wiring import build_forecast, build_limiter
from isochrone.pii.detectors import finder
from isochrone.pii.redactor import Redactor
from isochrone.routing.geo import open_locator
from isochrone.settings import Key, Limits, Pii, Settings, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.fleet import DynamoFleetStore
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.memory import MemoryDirectoryStore, MemoryFleetStore
from isochrone.stores.protocols import DirectoryStore, FleetStore

REGION = "eu-west-1"
BUDGET_US = 600
MOST_CALLS = 0.1
# More than a loop can use up, so that every call is admitted.
ALL_FIVE = {
    "requests_per_minute": 10**8,
    "tokens_per_minute": 10**11,
    "concurrency": 1000,
    "requests_per_day": 10**9,
    "dollars_per_month": 10**9,
}
CONFIG_KEY, DIRECTORY_KEY = new_key(bytes(32)), new_key(bytes(range(32)))
SENTENCE = "Compare the three proposals by cost, risk and the time that they would take us. "
PERSONAL = "Write to ann.lee@example.com or call +1 415 555 0134 about order 77421. "
_TOKENS, _COST = 600, 0.0012
_FLUSHED = 50
_LEARNING_SECONDS = 5.0

LIMITS = Limits()
Work = Callable[[], Awaitable[object]]


class Stores(NamedTuple):
    """The tables that the front door asks, and how often which of their methods was called."""

    fleet: FleetStore
    directory: DirectoryStore
    calls: Counter[str]

    @classmethod
    def counted(cls, fleet: FleetStore, directory: DirectoryStore) -> Stores:
        """Both with their calls counted from now on."""
        calls: Counter[str] = Counter()
        for store, methods in ((fleet, ("read", "write", "add", "take")), (directory, ("items",))):
            for name in methods:
                setattr(store, name, _counting(getattr(store, name), calls))
        return cls(fleet, directory, calls)


def _counting(method: Callable[..., Awaitable[Any]], calls: Counter[str]) -> Callable[..., Awaitable[Any]]:
    async def called(*given: Any, **named: Any) -> Any:
        calls[method.__name__] += 1
        return await method(*given, **named)

    return called


@click.command(help=__doc__)
@click.option("--times", default=300, show_default=True, help="Calls a round.")
@click.option("--rounds", default=7, show_default=True, help="The best of so many counts: the others were disturbed.")
@click.option("--rate", default=20.0, show_default=True, help="Requests a second of the hot key.")
@click.option("--seconds", default=10.0, show_default=True, help="So long it asks.")
@click.option("--endpoint", metavar="URL", help="An emulator of DynamoDB.")
def main(times: int, rounds: int, rate: float, seconds: float, endpoint: str | None) -> None:
    asyncio.run(_measure(times, rounds, rate, seconds, endpoint))


async def _measure(times: int, rounds: int, rate: float, seconds: float, endpoint: str | None) -> None:
    background = Background()
    async with open_stores(endpoint) as stores:
        with TemporaryDirectory() as folder:
            async for what, work in _works(stores, background, Path(folder), times * rounds):
                print(f"{what}: {await cpu_us(work, times, rounds):.1f} us")
        way = partial(whole_way, build_front(stores, background, policies=20))
        whole, call = await cpu_us(way, times, rounds), await cpu_us(partial(_ask, stores.fleet), times, rounds)
        print(f"directory key, guard, 20 policies, limits: {whole:.1f} us", end="; ")
        print(f"of 20,000 bytes {await cpu_us(partial(way, 20_000), times, rounds):.1f} us")
        calls = await _hot_key(way, stores.calls, rate, seconds)
        print(f"{rate:g} of them a second: {calls:.3f} calls of a table for each, of {MOST_CALLS} at most;", end=" ")
        print(f"with {call:.0f} us for each call {whole + calls * call:.1f} us, of {BUDGET_US}")
        await background.finish()


async def cpu_us(work: Work, times: int, rounds: int) -> float:
    """Microseconds of one call, in the best round. What it leaves to the background counts, too."""
    await work()
    return min([await _round(work, times) for _ in range(rounds)]) * 1e6


async def _round(work: Work, times: int) -> float:
    begun = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - begun) / times


async def _hot_key(way: Work, calls: Counter[str], rate: float, seconds: float) -> float:
    """Calls of tables for each request, the first ones not counted: they have to learn how often it asks."""
    for number in range(round(rate * (seconds + _LEARNING_SECONDS))):
        if number == round(rate * _LEARNING_SECONDS):
            calls.clear()
        await asyncio.gather(way(), asyncio.sleep(1 / rate))
    return sum(calls.values()) / round(rate * seconds)


async def _ask(fleet: FleetStore) -> None:
    await fleet.take("measured", {"n": 1}, most={"n": 10**9}, expires=time.time() + 60)


# -- the steps ---------------------------------------------------------------------------------------------------------


async def _works(stores: Stores, background: Background, folder: Path, calls: int) -> AsyncIterator[tuple[str, Work]]:
    """What is measured, in the order in which a request meets it."""
    front = build_front(stores, background)
    tokens = _tokens(calls + 1)
    for who, secret in (("the configuration", CONFIG_KEY), ("the directory", DIRECTORY_KEY)):
        yield f"identify a key of {who}", partial(front.identify, _request(secret))
    yield "... a token that was seen before", partial(front.identify, _request(tokens[0]))
    requests = iter([_request(token) for token in tokens])
    yield "... a token that was not", lambda: front.identify(next(requests))
    for size in (2_000, 20_000):
        yield f"read head, wishes and body of {size:,} bytes", partial(_read, front, _request(size=size))
    for number in (0, 20, 100):
        judging = build_front(stores, background, policies=number)
        caller, ask = await _met(judging)
        yield f"authorize by {number} policies", partial(judging.authorize_model, caller, ask, Trail())
    caller, ask = await _met(judging)
    numbers = count()
    yield (
        "... what was not asked in this minute",
        lambda: judging.authorize_model(caller._replace(address=f"2001:db8::{next(numbers):x}"), ask, Trail()),
    )
    yield "10 rules for contents, 2,000 bytes", _later(front.obey_rules, ask, Trail())
    for mode in ("log", "upstream"):
        minding = caller._replace(principal=caller.principal._replace(pii=mode))
        for what, prompt in (("nothing personal", SENTENCE), ("26 things", PERSONAL)):
            asked = front.read(CHAT, _request(text=prompt))
            yield f"personal data, mode {mode!r}, {what} in 2,000 bytes", _later(front.redact, minding, asked, Trail())
    yield "limits, all five of key and tenant, from admit to close", partial(_limited, front, caller, ask)
    yield "audit to a file, with its delivery", _auditing(folder)


def _later(do: Callable[..., object], *given: Any) -> Work:
    async def work() -> None:
        do(*given)

    return work


async def _met(front: FrontDoor) -> tuple[Caller, Ask]:
    request = _request()
    return await front.identify(request), front.read(CHAT, request)


async def _read(front: FrontDoor, request: Request) -> Ask:
    normalise(request, LIMITS)
    controls_of(request.headers)
    return front.read(CHAT, request)


async def _limited(front: FrontDoor, caller: Caller, ask: Ask) -> None:
    admission = await front.admit(caller, ask)
    await front.reserve(admission, ask)
    admission.charge(_TOKENS, _COST)
    admission.close()
    admission.headers()


async def whole_way(front: FrontDoor, size: int = 2_000) -> None:
    request = _request(size=size)
    caller = await front.identify(request)
    ask = await _read(front, request)
    await front.authorize_model(caller, ask, request.trail)
    await _limited(front, caller, ask)


def _auditing(folder: Path) -> Work:
    sink = FileSink(folder / "audit", edge=REGION, days=30, clock=time.time)
    spool = Spool(folder / "spool", REPLIES)
    log = AuditLog(sink, spool, edge=REGION, clock=time.time, new_id=lambda: os.urandom(8).hex())
    trail = Trail(
        at=time.time(), request_id="r", method="POST", path="/v1/chat/completions", address="198.51.100.7",
        key_id="k", tenant="acme", kind="key", action="generate", model="m", parameters={"stream": True},
        rule="allow-0", status=200, backend="pool", cache="miss", attempts=1, outcome="complete",
    )  # fmt: skip

    async def record() -> None:
        log.record(entry_of(trail, edge=REGION))
        if len(log) >= _FLUSHED:
            await log.flush()

    return record


# -- the scene ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_stores(endpoint: str | None) -> AsyncIterator[Stores]:
    if endpoint is None:
        directory = MemoryDirectoryStore()
        await _lay_down_a_key(directory)
        yield Stores.counted(MemoryFleetStore(), directory)
        return
    async with connect(REGION, endpoint_url=endpoint, environ={}) as client:
        settings = _settings(service={"name": f"m{uuid4().hex[:12]}"})
        await create_tables(client, settings, lambda line: None)
        fleet = DynamoFleetStore(client, table_name(settings, "fleet"))
        shared = DynamoDirectoryStore(client, table_name(settings, "directory"))
        await _lay_down_a_key(shared)
        yield Stores.counted(fleet, shared)


async def _lay_down_a_key(directory: DirectoryStore) -> None:
    said = msgspec.convert({"id": "looked-up", "sha256": "0" * 64, "tenant": "acme", **ALL_FIVE}, Key)
    item = item_of(made(DIRECTORY_KEY, said, now=time.time(), by=""))
    await directory.put(PARTITION, digest_of(DIRECTORY_KEY), item)


def _settings(policies: int = 0, **more: Any) -> Settings:
    allowing = {"id": "all", "effect": "allow"}
    others = [
        {"id": f"rule-{n}", "effect": "deny", "principal": {"tenant": [f"tenant-{n}"]}, "resource": {"model": ["m*"]}}
        for n in range(policies - 1)
    ]
    document = {
        "region": [{"name": REGION}],
        "backend": [{"name": "pool", "region": REGION, "base_url": "http://127.0.0.1:9", "models": {"m": "m"}}],
        "key": [{"id": "written", "sha256": digest_of(CONFIG_KEY), "tenant": "acme", **ALL_FIVE}],
        "tenant": [{"name": "acme", **ALL_FIVE}],
        "issuer": [_issuer()],
        "policy": [*others, allowing] if policies else [],
        "content": {"rule": [{"name": f"r{n}", "pattern": rf"secret\s+recipe {n}"} for n in range(10)]},
    }
    return msgspec.convert(document | more, Settings)


def build_front(stores: Stores, background: Background, policies: int = 0) -> FrontDoor:
    settings, counts = _settings(policies), Counter[str]()
    return FrontDoor(
        settings,
        address=AddressRule(),
        identity=Identity(
            KeyRing(settings.key),
            required=True,
            network=settings.network,
            directory=KeyDirectory(stores.directory, background, max_age=3600),
            tokens=Issuers(settings.issuer, _published, background),
        ),
        locator=open_locator(os.environ.get("ISOCHRONE_GEO_DATABASE")),
        policies=SharedPolicies(
            settings, None, background=background, clock=time.time, monotonic=time.monotonic, count=counts.update
        )
        if policies
        else None,
        screen=Screen(settings.content.rule, None, count=counts.update),
        limiter=build_limiter(
            settings, REGION, stores.fleet, None, background, holder=lambda: "measured", count=counts.update
        ),
        forecast=build_forecast(settings),
        redactor=lambda: redactor,
        now=time.time,
    )


redactor = Redactor(finder(Pii().kinds))
signing_key = generate_private_key(65537, 2048)


def _issuer() -> dict[str, str]:
    url = "https://login.example.com"
    return {"name": "corp", "url": url, "audience": "isochrone", "tenant": "acme", "jwks_url": f"{url}/keys"}


async def _published(_: str, __: str) -> tuple[bytes, int | None]:
    public = RSAAlgorithm.to_jwk(signing_key.public_key(), as_dict=True)
    return msgspec.json.encode({"keys": [{**public, "kid": "1", "use": "sig"}]}), None


def _tokens(number: int) -> list[str]:
    said = {"iss": _issuer()["url"], "aud": "isochrone", "exp": int(time.time()) + 3600}
    headers = {"kid": "1"}
    return [jwt.encode({**said, "sub": f"user-{n}"}, signing_key, "RS256", headers) for n in range(number)]


def _request(secret: str = DIRECTORY_KEY, *, size: int = 2_000, text: str = SENTENCE) -> Request:
    prompt = (text * (size // len(text) + 1))[: size - 80]
    asked = {"model": "m", "messages": [{"role": "user", "content": prompt}], "temperature": 0.2}
    headers = {
        "host": "api.example.com",
        "authorization": f"Bearer {secret}",
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "OpenAI/Python 2.8.0",
        "x-stainless-lang": "python",
        "x-request-id": "r",
    }
    return Request(
        method="POST",
        path="/v1/chat/completions",
        headers=headers,
        body=msgspec.json.encode(asked),
        peer="198.51.100.7",
        trust_forwarded=False,
    )


if __name__ == "__main__":
    main()
