#!/usr/bin/env python
"""What the relay costs: CPU microseconds for each event of a stream, over a program that only copies the bytes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import aiohttp
import click
import msgspec

from isochrone.api.exchange import Request
from isochrone.edge import Edge
from isochrone.settings import Settings
from isochrone.wiring import build_edge

EVENTS = 1000
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": "m"}
BODY = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "How far?"}]}).encode()
JSON = {"content-type": "application/json"}


@click.command(help=__doc__)
@click.option("--streams", default=2, show_default=True, help="Streams a round.")
@click.option("--rounds", default=25, show_default=True, help="The best of so many counts: the others were disturbed.")
def main(streams: int, rounds: int) -> None:
    copied, relayed, collected, shared = asyncio.run(_measure(streams, rounds))
    print(f"us of CPU for each of {EVENTS} events that arrive one by one; client, edge and backend in one process:")
    print(f"copied {copied:.1f}, relayed {relayed:.1f} (+{relayed - copied:.1f})")
    print(f"relayed, the answer kept for the cache, {collected:.1f} (+{collected - copied:.1f})")
    print(f"relayed so that others can share it, {shared:.1f} (+{shared - copied:.1f})")


async def _measure(streams: int, rounds: int) -> tuple[float, float, float, float]:
    server = await asyncio.start_server(_tell, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    plain, keeping = _edge(url, exact=False), _edge(url, exact=True)
    async with aiohttp.ClientSession() as session:
        ways = [
            lambda: _copy(session, url),
            lambda: _relay(plain),
            lambda: _relay(keeping),
            lambda: _relay(keeping, share=True),
        ]
        taken = [[await _cpu_us(way, streams) for way in ways] for _ in range(rounds)]
    for edge in (plain, keeping):
        await edge.close()
    server.close()
    copied, relayed, collected, shared = map(min, zip(*taken, strict=True))
    return copied, relayed, collected, shared


async def _cpu_us(way: Callable[[], Awaitable[int]], streams: int) -> float:
    """For one event."""
    begun = time.process_time()
    for _ in range(streams):
        size = await way()
        assert size > EVENTS * 100, size
    return (time.process_time() - begun) / streams / EVENTS * 1e6


def _edge(url: str, *, exact: bool) -> Edge:
    document = {
        "region": [{"name": "us-east-1"}],
        "backend": [{"name": "pool", "region": "us-east-1", "base_url": url, "models": {"m": "m"}}],
        "routing": {"probe_interval": 0},
        "auth": {"required": False},
        "answers": {"exact": exact},
    }
    return build_edge(msgspec.convert(document, Settings), region="us-east-1", environ={})


async def _copy(session: aiohttp.ClientSession, url: str) -> int:
    size = 0
    async with session.post(f"{url}/chat/completions", data=BODY, headers=JSON) as response:
        async for data in response.content.iter_any():
            size += len(data)
    return size


async def _relay(edge: Edge, *, share: bool = False) -> int:
    headers = JSON if share else {**JSON, "x-isochrone-cache": "no-cache"}
    body = BODY.replace(b"far", uuid4().hex.encode())
    request = Request(method="POST", path="/v1/chat/completions", headers=headers, body=body, peer="127.0.0.1")
    reply = await edge.handle(request)
    assert reply.stream, reply.body
    size = 0
    async for data in reply.stream:
        size += len(data)
    await reply.stream.aclose()
    await edge.flush()
    return size


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream for each request on the connection; the pauses let every event arrive by itself."""
    events = [_event({"delta": {"content": f"word {number} "}}) for number in range(EVENTS - 2)]
    events += [_event({"delta": {}, "finish_reason": "stop"}), b"data: [DONE]\n\n"]
    while head := await _head(reader):
        await reader.readexactly(
            next(int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:")
        )
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
    writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _event(choice: dict[str, object]) -> bytes:
    return (
        b"data: " + json.dumps({**CHUNK, "choices": [{"index": 0, "finish_reason": None, **choice}]}).encode() + b"\n\n"
    )


if __name__ == "__main__":
    main()
