"""The ledger of an edge that is killed, and of one whose table is gone: what it had begun is told by the next one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from click.testing import CliRunner

from isochrone.cli import main
from tests.conftest import free_port
from tests.faults.harness import eventually
from tests.upstream import Upstream

CONFIG = """
[service]
name = "{service}"

[state]
kind = "dynamodb"
endpoint_url = "{cloud}"
spool = "{spool}"

[[region]]
name = "us-east-1"

[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{base_url}"
models = {{ m = "ok", endless = "endless" }}
price = {{ input = 1.0, output = 2.0 }}

[auth]
required = false
"""


class Edge:
    """A running `isochrone serve`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.url = url
        self._session = session

    async def chat(self, model: str = "m") -> None:
        """One answer; of an endless one the first bytes."""
        asked = {"model": model, "messages": [{"role": "user", "content": uuid4().hex}], "stream": model == "endless"}
        response = await self._session.post(self.url + "/v1/chat/completions", json=asked)
        assert response.status == 200
        await (response.content.readany() if model == "endless" else response.read())

    async def get(self, path: str) -> Any:
        async with self._session.get(self.url + path) as response:
            return await response.json()

    async def outcomes(self) -> list[str]:
        entries: list[dict[str, Any]] = (await self.get("/v1/ledger"))["data"]
        return sorted(entry["outcome"] for entry in entries)


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[Edge]:
    """It is told to stop on the way out, if it still runs."""
    command = ["-m", "isochrone.cli", "serve", "--config", str(config), "--region", "us-east-1", "--port", "0"]
    environ = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environ
    )
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().removeprefix("ready ").strip()
        async with aiohttp.ClientSession() as session:
            yield Edge(process, url, session)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)


async def kill(edge: Edge) -> None:
    edge.process.kill()
    await edge.process.wait()


@asynccontextmanager
async def way_to(url: str, port: int) -> AsyncIterator[None]:
    """Whoever connects to `port` is connected to the server at `url`."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(65536):
                writer.write(data)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer), return_exceptions=True)

    async with await asyncio.start_server(connect, "127.0.0.1", port):
        yield


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def configure(tmp_path: Path, spool: Path, upstream: Upstream, ministack: str) -> Callable[[str], Path]:
    """The configuration with its tables at a given address; those of MiniStack are there already."""
    service = f"t{uuid4().hex[:12]}"

    def written(cloud: str) -> Path:
        path = tmp_path / "isochrone.toml"
        path.write_text(CONFIG.format(service=service, cloud=cloud, spool=spool, base_url=upstream.base_url))
        return path

    created = CliRunner().invoke(main, ["tables", "create", "--config", str(written(ministack))])
    assert created.exit_code == 0, created.output
    return written


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_every_attempt_of_a_killed_edge_is_in_the_ledger_once(
    configure: Callable[[str], Path], ministack: str, spool: Path
) -> None:
    config = configure(ministack)
    async with serving(config) as edge:
        for model in ("m", "m", "m", "endless", "endless"):
            await edge.chat(model)
        await kill(edge)
    async with serving(config) as edge:

        async def told() -> bool:
            return await edge.outcomes() == ["lost", "lost", "ok", "ok", "ok"]

        await eventually(told, within=30)
    assert files(spool) == []


async def test_entries_of_an_edge_without_its_table_wait_for_the_next_start(
    configure: Callable[[str], Path], ministack: str, spool: Path
) -> None:
    port = free_port()
    config = configure(f"http://127.0.0.1:{port}")
    async with serving(config) as edge:
        await edge.chat()
        await edge.chat()
    assert len(files(spool)) == 1
    async with way_to(ministack, port), serving(config) as edge:

        async def told() -> bool:
            return await edge.outcomes() == ["ok", "ok"]

        await eventually(told, within=30)
    assert files(spool) == []
