#!/usr/bin/env python
"""What the streaming loop costs by itself: CPU per invocation and per chunk, CPU and memory of its start.

Runs a function that does nothing but yield, behind the local Runtime API, and reads its CPU time from /proc (Linux).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from local.gateway.environment import Environment, Sandbox
from local.gateway.runtime_api import LocalRuntimeApi

ROOT = Path(__file__).resolve().parents[1]
FUNCTION = """
import asyncio
from isochrone.api.exchange import Reply

EVENT = b"data: " + b"x" * 200 + b"\\n\\n"

async def events(number):
    for _ in range(number):
        await asyncio.sleep(0.0005)  # as from a model: each event by itself
        yield EVENT

async def stream(request):
    if request.path == "/whole":
        return Reply(status=200, headers={"content-type": "application/json"}, body=EVENT)
    return Reply(status=200, headers={"content-type": "text/event-stream"}, stream=events(int(request.body)))
"""


@click.command(help=__doc__)
@click.option("--invocations", default=2000, show_default=True)
@click.option("--chunks", default=10_000, show_default=True, help="Chunks of about 200 bytes in one long stream.")
def main(invocations: int, chunks: int) -> None:
    asyncio.run(_measure(invocations, chunks))


def _sandbox() -> Sandbox:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "handler.py").write_text(FUNCTION)
        return Sandbox(function=Path(folder), layers=(ROOT / "layers/core", ROOT / "layers/streaming"), files={})


async def _measure(invocations: int, chunks: int) -> None:
    sandbox = _sandbox()
    api = LocalRuntimeApi()
    await api.start()
    environment = Environment(api, sandbox, {}, wrapper="isochrone-streaming")
    running = asyncio.create_task(environment.run())
    try:
        await api.ready.wait()
        assert environment.pid is not None
        await _report(api, environment.pid, invocations, chunks)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await api.stop()
        sandbox.remove()


async def _report(api: LocalRuntimeApi, pid: int, invocations: int, chunks: int) -> None:
    click.echo(f"start            {_cpu(pid) * 1e3:8.0f} ms CPU   {_peak_mb(pid):6.1f} MB")
    for what, path in (("whole reply  ", "/whole"), ("short stream ", "/stream")):
        begun = _cpu(pid)
        for _ in range(invocations):
            await _invoke(api, path, 1)
        click.echo(f"per {what}{(_cpu(pid) - begun) / invocations * 1e6:8.0f} us CPU")
    begun = _cpu(pid)
    await _invoke(api, "/stream", chunks)
    click.echo(
        f"per chunk        {(_cpu(pid) - begun) / chunks * 1e6:8.1f} us CPU   {_peak_mb(pid):6.1f} MB at the end"
    )


async def _invoke(api: LocalRuntimeApi, path: str, chunks: int) -> None:
    async for _ in api.submit(_event(path, str(chunks))).body():
        pass


def _event(path: str, body: str) -> dict[str, Any]:
    context = {"identity": {"sourceIp": "127.0.0.1"}}
    return {"httpMethod": "POST", "path": path, "headers": {}, "body": body, "requestContext": context}


def _cpu(pid: int) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
