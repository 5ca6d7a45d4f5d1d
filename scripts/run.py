#!/usr/bin/env python3
"""`make run`: the local edition in the foreground, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from local.edition import Edition
from local.errors import LocalError
from local.layout import POOL_NAMES, ROOT, Layout
from local.screen import Screen

PORT = click.IntRange(1, 65_535)


@click.command(context_settings={"show_default": True})
@click.option("--edge-port", type=PORT, default=8801, help="first of three ports for the edges")
@click.option("--pool-port", type=PORT, default=9101, help="first port for the model servers, one each")
@click.option("--wan-port", type=PORT, default=9201, help="first port for the WAN links, one for each edge and pool")
@click.option("--cloud-port", type=PORT, default=4566, help="port of MiniStack, the AWS emulator")
@click.option("--console-port", type=PORT, default=8800, help="port of the console page")
@click.option(
    "--pools", "pool_count", type=click.IntRange(1, len(POOL_NAMES)), default=3, help="how many model servers"
)
@click.option("--model-threads", type=click.IntRange(1, 64), default=1, help="CPU threads of each model server")
@click.option("--wan/--no-wan", default=True, help="delay traffic between regions by its measured round trip")
@click.option("--restart", is_flag=True, help="start a pool again when it dies")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=ROOT / ".local",
    show_default=".local",
    help="where state, logs and generated configuration go",
)
def main(model_threads: int, restart: bool, **where: Any) -> None:
    """Run Isochrone on this machine: three edges, model servers, an AWS emulator with the CDK app in it, a console.

    Everything listens on 127.0.0.1 only. Ctrl-C stops it all; a second Ctrl-C does not wait for open answers.
    """
    layout = Layout(**where)
    screen = Screen(Console())
    try:
        asyncio.run(until_stopped(Edition(layout, screen, threads=model_threads, restart=restart), screen))
    except LocalError as error:
        click.secho(f"make run: {error}", fg="red", err=True)
        sys.exit(1)


async def until_stopped(edition: Edition, screen: Screen) -> None:
    """Run `edition` until SIGINT, SIGTERM or SIGHUP; the second signal hastens the end."""
    running = asyncio.ensure_future(edition.run())

    def stop() -> None:
        if running.cancelling():
            edition.hasten()
        else:
            running.cancel()
            screen.say("stopping")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        screen.say("stopped: nothing is left running")


if __name__ == "__main__":
    main()
