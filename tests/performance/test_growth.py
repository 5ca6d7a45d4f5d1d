"""An edge that has served many requests is no larger than one that has served few."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.upstream import WORDS, Upstream

# What issue 2 allows an edge after 1,000 requests, so that it fits small Lambda sizes.
PEAK_MEGABYTES = 110
CONFIG = """
[[region]]
name = "us-east-1"

[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{base_url}"
models = {{ m = "ok", endless = "endless" }}

[auth]
required = false
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")


class Served:
    """A running `isochrone serve` and what the system says of it."""

    def __init__(self, pid: int, url: str, session: aiohttp.ClientSession) -> None:
        self.pid = pid
        self._url = url
        self._session = session

    async def chat(self, number: int) -> None:
        """One request of its own: every second one a stream, every third one known from before."""
        content = "known" if number % 3 == 0 else f"question {number}"
        asked = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": number % 2 == 1}
        async with self._session.post(self._url + "/v1/chat/completions", json=asked) as response:
            assert response.status == 200
            assert WORDS[1].strip().encode() in await response.read()

    async def leave(self) -> None:
        """One stream that is not read to its end."""
        asked = {"model": "endless", "messages": [{"role": "user", "content": "x"}], "stream": True}
        response = await self._session.post(self._url + "/v1/chat/completions", json=asked)
        await response.content.readany()
        response.close()

    async def many(self, count: int) -> None:
        """So many requests, eight at a time."""
        for begin in range(0, count, 8):
            await asyncio.gather(*(self.chat(number) for number in range(begin, min(begin + 8, count))))

    def open_files(self) -> int:
        """File descriptors, sockets among them."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def megabytes(self, field: str) -> float:
        """`VmHWM` is the most it ever had, `VmRSS` what it has now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[Served]:
    command = ["serve", "--config", str(config), "--region", "us-east-1", "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "isochrone.cli", *command, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        async with asyncio.timeout(30):
            url = (await process.stdout.readline()).decode().removeprefix("ready ").strip()
        async with aiohttp.ClientSession() as session:
            yield Served(process.pid, url, session)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Served]:
    async with Upstream() as upstream:
        config = tmp_path / "edge.toml"
        config.write_text(CONFIG.format(base_url=upstream.base_url))
        async with serving(config) as served:
            yield served


async def test_edge_fits_its_memory_after_a_thousand_requests(edge: Served) -> None:
    await edge.many(1000)
    assert edge.megabytes("VmHWM") <= PEAK_MEGABYTES


async def test_requests_leave_no_files_open(edge: Served) -> None:
    await edge.many(50)
    before = edge.open_files()
    await edge.many(300)
    assert edge.open_files() <= before + 2


async def test_clients_that_leave_keep_no_files_open(edge: Served) -> None:
    await edge.many(50)
    before = edge.open_files()
    for _ in range(10):
        await asyncio.gather(*(edge.leave() for _ in range(5)))
    async with asyncio.timeout(5):
        while edge.open_files() > before + 2:  # noqa: ASYNC110 another process closes them
            await asyncio.sleep(0.02)
