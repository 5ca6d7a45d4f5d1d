"""The console as a process of its own: `python -m local.console`, with scripts/ on the import path."""

from __future__ import annotations

import asyncio
import signal

import click

from local.console.server import serving


def _parse(_context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    named = {name: url.rstrip("/") for name, _, url in (text.partition("=") for text in texts)}
    if not all(name and url.startswith("http://") for name, url in named.items()):
        raise click.BadParameter("expected NAME=http://HOST:PORT", param=parameter)
    return named


@click.command(context_settings={"show_default": True})
@click.option("--port", type=click.IntRange(0, 65_535), default=8800, help="where to listen; 0 takes a free one")
@click.option("--edge", "edges", multiple=True, required=True, metavar="REGION=URL", callback=_parse, help="an edge")
@click.option("--pool", "pools", multiple=True, metavar="NAME=URL", callback=_parse, help="a pool's own address")
def main(port: int, edges: dict[str, str], pools: dict[str, str]) -> None:
    """Show edges and pools on a page at 127.0.0.1, until SIGTERM or Ctrl-C."""
    try:
        asyncio.run(_serve(port, edges, pools))
    except OSError as error:
        raise click.ClickException(f"port {port}: {error.strerror or error}: choose another --port") from None


async def _serve(port: int, edges: dict[str, str], pools: dict[str, str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(port, edges, pools) as own_port:
        click.echo(f"ready http://127.0.0.1:{own_port}/")
        await stop.wait()


if __name__ == "__main__":
    main()
