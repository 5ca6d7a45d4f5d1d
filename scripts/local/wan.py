#!/usr/bin/env python3
"""The wide-area network between edges and pools: TCP relays that hold every byte back by half of a round trip.

Order and spacing stay as they were and only the time moves; the end of a connection travels the same way. A connection
is accepted at once: the round trip of a TCP handshake is not imitated, because edges keep their connections.
"""

from __future__ import annotations

import asyncio
import signal
from asyncio import Queue, StreamReader, StreamWriter
from contextlib import suppress

import click

_CHUNK = 65_536  # bytes
_UNDER_WAY = 64  # chunks in one direction before the sender has to wait


async def relay(reader: StreamReader, writer: StreamWriter, *, target: int, delay: float) -> None:
    """Join one accepted connection with a new one to 127.0.0.1:target; `delay` seconds each way."""
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(_carry(reader, far_writer, delay), _carry(far_reader, writer, delay))


async def _carry(reader: StreamReader, writer: StreamWriter, delay: float) -> None:
    under_way: Queue[tuple[float, bytes]] = Queue(_UNDER_WAY)
    await asyncio.gather(_send(reader, under_way), _deliver(under_way, writer, delay))


async def _send(reader: StreamReader, under_way: Queue[tuple[float, bytes]]) -> None:
    now = asyncio.get_running_loop().time
    data = b"first"
    while data:
        data = await _read(reader)
        await under_way.put((now(), data))


async def _read(reader: StreamReader) -> bytes:
    try:
        return await reader.read(_CHUNK)
    except ConnectionError:
        return b""  # a broken connection ends like a closed one


async def _deliver(under_way: Queue[tuple[float, bytes]], writer: StreamWriter, delay: float) -> None:
    now = asyncio.get_running_loop().time
    while True:
        sent, data = await under_way.get()
        await asyncio.sleep(sent + delay - now())
        if not data:
            writer.close()
            return
        if not writer.is_closing():
            writer.write(data)
            await _drain(writer)


async def _drain(writer: StreamWriter) -> None:
    try:
        await writer.drain()
    except ConnectionError:
        writer.close()


async def open_link(port: int, target: int, rtt_ms: float) -> asyncio.Server:
    """Listen on 127.0.0.1:port and relay to 127.0.0.1:target with a round trip of `rtt_ms`. Raises OSError."""

    async def accepted(reader: StreamReader, writer: StreamWriter) -> None:
        # Python 3.11 reports a connection that is cancelled at the end as an unhandled error.
        with suppress(asyncio.CancelledError):
            await relay(reader, writer, target=target, delay=rtt_ms / 2000)

    return await asyncio.start_server(accepted, "127.0.0.1", port)


async def _serve(links: list[tuple[int, int, float]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    for port, target, rtt_ms in links:
        await open_link(port, target, rtt_ms)
        click.echo(f"127.0.0.1:{port} -> 127.0.0.1:{target}, round trip {rtt_ms:.1f} ms")
    click.echo("ready")
    await stop.wait()


def _parse(
    _context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]
) -> list[tuple[int, int, float]]:
    try:
        return [(int(port), int(target), float(rtt)) for port, target, rtt in (text.split(":") for text in texts)]
    except ValueError:
        raise click.BadParameter("expected PORT:TARGET_PORT:ROUND_TRIP_MS") from None


@click.command()
@click.argument("links", nargs=-1, required=True, metavar="PORT:TARGET_PORT:ROUND_TRIP_MS...", callback=_parse)
def main(links: list[tuple[int, int, float]]) -> None:
    """Relay each PORT to TARGET_PORT on 127.0.0.1, with a round trip of ROUND_TRIP_MS, until SIGTERM or Ctrl-C."""
    try:
        asyncio.run(_serve(links))
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from None


if __name__ == "__main__":
    main()
