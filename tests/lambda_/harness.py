"""A strict local Runtime API in front of the streaming loop, in this process or started through the wrapper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from isochrone.api.exchange import ByteStream, Reply
from isochrone_streaming.application import Application, Handle, Hook
from isochrone_streaming.loop import serve
from local.gateway.invocation import Invocation
from local.gateway.runtime_api import LocalRuntimeApi

ROOT = Path(__file__).parents[2]
SSE = {"content-type": "text/event-stream"}


async def _nothing() -> None:
    """A function that leaves nothing to the background."""


@asynccontextmanager
async def running(
    stream: Handle,
    *,
    lambda_timeout: float = 60.0,
    max_response: int = 200 * 2**20,
    environ: dict[str, str] | None = None,
    flush: Hook | None = None,
) -> AsyncIterator[LocalRuntimeApi]:
    """The loop, in this process, serving `stream` to a strict Runtime API."""
    api = LocalRuntimeApi(timeout=lambda_timeout, max_response=max_response)
    await api.start()
    variables = {} if environ is None else environ
    variables |= {"AWS_LAMBDA_RUNTIME_API": api.address, "_HANDLER": "handler.handler"}
    loop = asyncio.create_task(serve(variables, load=lambda _: Application(stream, flush=flush or _nothing)))
    try:
        yield api
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        await api.stop()


def rest_event(method: str = "GET", path: str = "/", body: str | None = None, **headers: str) -> dict[str, Any]:
    """A REST API's proxy event."""
    return {
        "httpMethod": method,
        "path": path,
        "multiValueHeaders": {name.replace("_", "-"): [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "body": body,
        "isBase64Encoded": False,
        "requestContext": {"identity": {"sourceIp": "203.0.113.7"}, "stage": "live"},
    }


def streaming(chunks: ByteStream) -> Reply:
    """A reply that streams events."""
    return Reply(status=200, headers=dict(SSE), stream=chunks)


async def whole(invocation: Invocation) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an invocation that succeeds."""
    status, headers = await invocation.prelude()
    return status, headers, b"".join([chunk async for chunk in invocation.body()])
