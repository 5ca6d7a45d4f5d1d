#!/usr/bin/env python
"""A local stand-in for API Gateway and Lambda: runs the function that is deployed, and streams its replies over HTTP.

What it is for: to see the deployed handler itself stream, through the exec wrapper and the Runtime API. For work on
the edge, `isochrone serve` is simpler and faster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click
from aiohttp import web

from isochrone.settings import Settings, SettingsError, load
from local.errors import LocalError
from local.gateway.environment import Environment, Sandbox
from local.gateway.front import application
from local.gateway.runtime_api import LocalRuntimeApi

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (ROOT / "layers/core", ROOT / "layers/streaming")


@click.command(help=__doc__)
@click.option("--config", required=True, type=click.Path(path_type=Path), help="The TOML file of the deployment.")
@click.option("--region", required=True, help="One of the configuration's regions.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8790, show_default=True, help="0 takes a free one.")
@click.option("--timeout", default=900.0, show_default=True, help="The function's timeout in seconds.")
def main(config: Path, region: str, host: str, port: int, timeout: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        settings = load(config)
        asyncio.run(_run(config.resolve(), settings, LocalRuntimeApi(region=region, timeout=timeout), host, port))
    except asyncio.CancelledError:
        return
    except (SettingsError, LocalError) as error:
        sys.exit(f"gateway: {error}")


async def _run(config: Path, settings: Settings, api: LocalRuntimeApi, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises LocalError."""
    _cancel_when_told()
    sandbox = Sandbox(function=ROOT / "functions/edge", layers=LAYERS, files={"isochrone.toml": config})
    runner = web.AppRunner(application(api), shutdown_timeout=1.0)
    await api.start()
    environment = Environment(api, sandbox, _variables(settings, sandbox), wrapper="isochrone-streaming")
    function = asyncio.create_task(environment.run())
    try:
        await _until_ready(api, function)
        await runner.setup()
        await _listen(runner, host, port)
        await function
    finally:
        function.cancel()
        with suppress(asyncio.CancelledError, LocalError):
            await function
        await runner.cleanup()
        await api.stop()
        sandbox.remove()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise LocalError(f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port") from None
    click.echo(f"ready http://{host}:{runner.addresses[0][1]}")


def _variables(settings: Settings, sandbox: Sandbox) -> dict[str, str]:
    """What the CDK app sets for the function, and the keys of the backends, which it would get from Secrets Manager."""
    wanted = {backend.api_key_env for backend in settings.backend} | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    kept = {name: os.environ[name] for name in wanted if name and name in os.environ}
    database = {"ISOCHRONE_GEO_DATABASE": str(Path(settings.geo.database).resolve())} if settings.geo.database else {}
    return {**kept, **database, "ISOCHRONE_CONFIG": str(sandbox.task / "isochrone.toml")}


async def _until_ready(api: LocalRuntimeApi, function: asyncio.Task[None]) -> None:
    """Wait for the function's first question for an event. Raises its LocalError when it cannot start."""
    ready = asyncio.create_task(api.ready.wait())
    try:
        await asyncio.wait({function, ready}, return_when=asyncio.FIRST_COMPLETED)
        if function.done():
            await function
    finally:
        ready.cancel()


def _cancel_when_told() -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


if __name__ == "__main__":
    main()
