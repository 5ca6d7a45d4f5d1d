"""The deployed function in front of a real model: its tokens arrive while the model still makes more."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientConnectionError, ClientSession

from tests.conftest import free_port
from tests.lambda_.harness import ROOT
from tests.lambda_.test_edge_function import CONFIG, ask, events, gateway_running

TOKENS = 150


@asynccontextmanager
async def model_running(session: ClientSession) -> AsyncIterator[str]:
    port = free_port()
    command = (sys.executable, str(ROOT / "scripts/local/model_server.py"), "--port", str(port))
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        while not await _healthy(session, f"http://127.0.0.1:{port}"):
            assert process.returncode is None
            await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _healthy(session: ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except ClientConnectionError:
        return False


async def test_tokens_of_a_real_model_stream_through_the_deployed_function(tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    async with ClientSession() as session, model_running(session) as model:
        config.write_text(CONFIG.format(url=model))
        async with gateway_running(config) as (_, url):
            story = [{"role": "user", "content": "Write a long story about a river and its people."}]
            question = ask(messages=story, stream=True, max_tokens=TOKENS, temperature=0, seed=1)
            async with session.post(f"{url}/v1/chat/completions", json=question) as response:
                received = events(response)
                first = await anext(received)
                async with session.get(f"{model}/slots") as slots:
                    still_at_work = any(slot["is_processing"] for slot in await slots.json())
                rest = [data async for data in received]
    assert still_at_work
    words = [_word(data) for data in (first, *rest[:-1])]
    assert sum(bool(word) for word in words) > 10
    assert rest[-1] == b"[DONE]"


def _word(data: bytes) -> Any:
    choices = json.loads(data)["choices"]
    return choices and choices[0]["delta"].get("content")
