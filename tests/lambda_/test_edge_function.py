"""The deployed function itself, behind the stand-in: wrapper, loop, real edge, and a scripted backend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from tests.lambda_.harness import ROOT

CONFIG = """
[[region]]
name = "us-east-1"
default = true

[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "{url}/v1"
models = {{ "m" = "m" }}
assemble = false

[auth]
required = false
"""


class Backend:
    """A model server that says its words one by one, each only when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Semaphore(0)
        self.connections: set[Any] = set()
        self.calls = 0
        self.gateway_pid = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.connections.add(request.transport)
        if not (await request.json()).get("stream"):
            return web.json_response(_whole("hello"))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in ("one", "two", "three"):
            await self.go_on.acquire()
            await response.write(_event({"content": word}))
        await response.write(_event({}, finish="stop") + b"data: [DONE]\n\n")
        return response


def _whole(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def _event(delta: dict[str, str], *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


@asynccontextmanager
async def backend_running() -> AsyncIterator[tuple[Backend, str]]:
    backend = Backend()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", backend.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield backend, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def start_gateway(config: Path, *options: str) -> asyncio.subprocess.Process:
    command = [sys.executable, str(ROOT / "scripts/gateway.py"), "--config", str(config), "--region", "us-east-1"]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, "--port", "0", *options, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def gateway(folder: Path, *options: str) -> AsyncIterator[tuple[Backend, ClientSession, str]]:
    """The backend, a client, and the address of the function in front of it."""
    config = folder / "isochrone.toml"
    async with backend_running() as (backend, url), ClientSession() as session:
        config.write_text(CONFIG.format(url=url))
        async with gateway_running(config, *options) as (process, address):
            backend.gateway_pid = process.pid
            yield backend, session, address


@asynccontextmanager
async def gateway_running(config: Path, *options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The stand-in's process, and its address."""
    process = await start_gateway(config, *options)
    assert process.stdout is not None
    ready = (await process.stdout.readline()).decode()
    try:
        assert ready.startswith("ready http://"), (await process.communicate())[1].decode()
        yield process, ready.removeprefix("ready ").strip()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


async def events(response: Any) -> AsyncGenerator[bytes, None]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].strip()


async def test_tokens_reach_the_client_while_the_model_still_speaks(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (backend, session, url):
        backend.go_on.release()
        async with session.post(f"{url}/v1/chat/completions", json=ask(stream=True)) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            assert response.headers["x-isochrone-backend"] == "pool-us"
            words, last = [], b""
            async for data in events(response):
                last = data
                if data != b"[DONE]" and (word := json.loads(data)["choices"][0]["delta"].get("content")):
                    words.append(word)
                    backend.go_on.release()  # the model's next word, only now that this one was seen
    assert (words, last) == (["one", "two", "three"], b"[DONE]")


async def test_known_answer_is_repeated_by_the_same_process(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (backend, session, url):
        seen = []
        for _ in range(2):
            async with session.post(f"{url}/v1/chat/completions", json=ask(temperature=0)) as response:
                text = (await response.json())["choices"][0]["message"]["content"]
                seen.append((response.status, response.headers["x-isochrone-cache"], text))
    assert seen == [(200, "miss", "hello"), (200, "hit", "hello")]
    assert backend.calls == 1


async def test_connection_to_the_backend_outlives_the_invocation(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (backend, session, url):
        for number in range(4):
            await one_answer(session, url, str(number))
    assert (backend.calls, len(backend.connections)) == (4, 1)


async def test_connection_that_died_while_the_function_was_frozen_breaks_no_request(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (backend, session, url):
        await one_answer(session, url, "before")
        [frozen] = children_of(backend.gateway_pid)
        os.kill(frozen, signal.SIGSTOP)
        for connection in backend.connections:
            connection.abort()
        os.kill(frozen, signal.SIGCONT)
        await one_answer(session, url, "after")
    assert (backend.calls, len(backend.connections)) == (2, 2)


async def one_answer(session: ClientSession, url: str, text: str) -> None:
    question = ask(messages=[{"role": "user", "content": text}])
    async with session.post(f"{url}/v1/chat/completions", json=question) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b'{"model": "nobody", "messages": [{"role": "user", "content": "x"}]}', 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("GET", "/no/such/path", None, 404),
    ],
)
async def test_every_refusal_is_a_streamed_reply_in_the_one_error_shape(
    tmp_path: Path, method: str, path: str, body: bytes | None, status: int
) -> None:
    async with gateway(tmp_path) as (_, session, url):
        headers = {"content-type": "application/json"}
        async with session.request(method, url + path, data=body, headers=headers) as response:
            assert response.status == status
            assert set((await response.json())["error"]) == {"message", "type", "code", "param"}


async def test_client_address_is_the_gateways_word_only(tmp_path: Path) -> None:
    async with gateway(tmp_path) as (_, session, url):
        forged = {"x-forwarded-for": "133.11.0.1", "x-real-ip": "133.11.0.1", "forwarded": "for=133.11.0.1"}
        async with session.get(f"{url}/v1/status", headers=forged) as response:
            assert (await response.json())["client"]["address"] == "127.0.0.1"


async def test_stream_that_would_outlive_the_function_ends_with_an_error_in_band(tmp_path: Path) -> None:
    async with gateway(tmp_path, "--timeout", "3") as (backend, session, url):
        backend.go_on.release()  # one word, then silence
        async with session.post(f"{url}/v1/chat/completions", json=ask(stream=True)) as response:
            received = [data async for data in events(response)]
        assert json.loads(received[0])["choices"][0]["delta"]["content"] == "one"
        assert "error" in json.loads(received[-1])
        async with session.get(f"{url}/healthz") as response:
            assert response.status == 200


async def test_openai_python_works_unmodified(tmp_path: Path) -> None:
    from openai import AsyncOpenAI

    async with gateway(tmp_path) as (backend, _, url), AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for _ in range(3):
            backend.go_on.release()
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        words = [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(word or "" for word in words) == "onetwothree"


async def test_sigterm_ends_the_gateway_and_its_function(tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(url="http://127.0.0.1:1"))
    process = await start_gateway(config)
    assert process.stdout is not None
    await process.stdout.readline()
    [function] = children_of(process.pid)
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    with pytest.raises(ProcessLookupError):
        os.kill(function, 0)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[[region]]\nname = 'us-east-1'\nwrong = 1\n", "isochrone.toml:3: region[0].wrong: unknown key"),
        (CONFIG.format(url="http://127.0.0.1:1").replace("us-east-1", "eu-west-1"), "region 'us-east-1' is not"),
    ],
    ids=["unknown-key", "unknown-region"],
)
async def test_configuration_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(text)
    process = await start_gateway(config)
    output, errors = await process.communicate()
    assert process.returncode == 1
    assert output == b""
    said = errors.decode().splitlines()
    assert line in said[-1]
    assert len(said) <= 2  # the function's own log line, and the gateway's
