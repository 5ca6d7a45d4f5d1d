"""Compare DynamoDB clients in one run: CPU until the first call can be made, CPU per GetItem, peak memory.

Every sample is a fresh process; clients take turns, so that a busy machine slows all of them; figures are medians.
The figures of docs/decisions/0004-own-dynamodb-client.md were printed by this script. Besides .venv it needs the
clients that it compares:

    .venv/bin/uv run --no-project --with-editable . --with aiodynamo==26.4 --with aiobotocore --with boto3 \\
        --with ministack==1.5.33 python scripts/compare_dynamodb_clients.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any

REGION, TABLE, KEY = "eu-west-1", "compare", "ab" * 32
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
BLOB = bytes(range(256)) * 12

Get = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def isochrone(endpoint: str) -> AsyncIterator[Get]:
    answers = import_module("isochrone.stores.dynamodb.answers")
    client = import_module("isochrone.stores.dynamodb.client")
    async with client.connect(REGION, endpoint_url=endpoint, timeouts=client.Timeouts(5, 30)) as connection:
        store = answers.DynamoAnswerStore(connection, TABLE)
        yield lambda: store.get(KEY, now=0)


@asynccontextmanager
async def aiodynamo(endpoint: str) -> AsyncIterator[Get]:
    aiohttp, yarl = import_module("aiohttp"), import_module("yarl")
    client, credentials = import_module("aiodynamo.client"), import_module("aiodynamo.credentials")
    http = import_module("aiodynamo.http.aiohttp")
    async with aiohttp.ClientSession() as session:
        table = client.Client(
            http.AIOHTTP(session), credentials.Credentials.auto(), REGION, endpoint=yarl.URL(endpoint)
        ).table(TABLE)

        async def get() -> bytes:
            value: bytes = (await table.get_item({"pk": KEY}))["value"]
            return value

        yield get


@asynccontextmanager
async def aiobotocore(endpoint: str) -> AsyncIterator[Get]:
    session = import_module("aiobotocore.session").get_session()
    async with session.create_client("dynamodb", region_name=REGION, endpoint_url=endpoint) as client:

        async def get() -> bytes:
            value: bytes = (await client.get_item(TableName=TABLE, Key={"pk": {"S": KEY}}))["Item"]["value"]["B"]
            return value

        yield get


@asynccontextmanager
async def boto3(endpoint: str) -> AsyncIterator[Get]:
    client = import_module("boto3").client("dynamodb", region_name=REGION, endpoint_url=endpoint)

    def get() -> bytes:
        value: bytes = client.get_item(TableName=TABLE, Key={"pk": {"S": KEY}})["Item"]["value"]["B"]
        return value

    yield lambda: asyncio.to_thread(get)


CLIENTS = {"isochrone": isochrone, "aiodynamo": aiodynamo, "aiobotocore": aiobotocore, "boto3": boto3}


async def sample(name: str, endpoint: str, calls: int) -> dict[str, float]:
    """Run in a process of its own. aiohttp and msgspec are the edge's anyway and stand outside the clock."""
    import_module("aiohttp")
    import_module("msgspec.json")
    started = time.process_time()
    async with CLIENTS[name](endpoint) as get:
        ready = time.process_time() - started
        assert await get() == BLOB
        alone = await _cpu_per_call(get, calls, at_once=1)
        together = await _cpu_per_call(get, calls, at_once=16)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ready_ms": ready * 1e3, "alone_us": alone * 1e6, "together_us": together * 1e6, "peak_mb": peak}


async def _cpu_per_call(get: Get, calls: int, *, at_once: int) -> float:
    async def some() -> None:
        for _ in range(calls // at_once):
            await get()

    started = time.process_time()
    await asyncio.gather(*(some() for _ in range(at_once)))
    return (time.process_time() - started) / (calls // at_once * at_once)


def _sample_in_a_process(name: str, endpoint: str, calls: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", name, "--endpoint", endpoint, "--calls", str(calls)]
    output = subprocess.run(command, env=os.environ | KEYS, stdout=subprocess.PIPE, check=True).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


def _start_emulator() -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}
    return subprocess.Popen([sys.executable, "-m", "ministack"], env=environment), f"http://127.0.0.1:{port}"


def _fill(endpoint: str) -> None:
    os.environ.update(KEYS)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=1).close()  # noqa: S310 (our own server)
            break
        except OSError:
            time.sleep(0.1)
    client: Any = import_module("boto3").client("dynamodb", region_name=REGION, endpoint_url=endpoint)
    client.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )
    item = {"pk": {"S": KEY}, "value": {"B": BLOB}, "tenant": {"S": "team-a"}, "expires": {"N": "4000000000"}}
    client.put_item(TableName=TABLE, Item=item)


def compare(rounds: int, calls: int) -> None:
    """Print one line per client."""
    emulator, endpoint = _start_emulator()
    try:
        _fill(endpoint)
        samples = [{name: _sample_in_a_process(name, endpoint, calls) for name in CLIENTS} for _ in range(rounds)]
    finally:
        emulator.terminate()
        emulator.wait()
    machine = f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}, {datetime.now(UTC):%Y-%m-%d}; {rounds} rounds of {calls} calls, item of {len(BLOB)} bytes")
    print("client               ready, ms CPU   GetItem alone, us CPU   16 at once, us CPU   peak memory, MB")
    for name in CLIENTS:
        ready, alone, together, peak = (
            statistics.median(one[name][figure] for one in samples)
            for figure in ("ready_ms", "alone_us", "together_us", "peak_mb")
        )
        label = f"{name} {version(name)}"
        print(f"{label:<20} {ready:13.1f}   {alone:21.0f}   {together:18.0f}   {peak:15.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="samples per client (default 7)")
    parser.add_argument("--calls", type=int, default=1600, help="calls per sample and kind (default 1600)")
    parser.add_argument("--child", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(asyncio.run(sample(options.child, options.endpoint, options.calls))))
    else:
        compare(options.rounds, options.calls)


if __name__ == "__main__":
    main()
