"""The edge function. Its edge is built when the module is loaded, so a broken configuration fails the deployment.

| door | called by | for |
|---|---|---|
| `stream` | the streaming loop (layers/streaming), in its own event loop | API Gateway, transfer mode STREAM |
| `handler` | Lambda's own runtime, emulators | buffered proxy integrations |

Environment: ISOCHRONE_CONFIG (the TOML file), AWS_REGION, and what the configuration names.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from isochrone.api.exchange import Request
from isochrone.doors import events
from isochrone.edge import Edge
from isochrone.ledger.emf import Pulse
from isochrone.settings import load
from isochrone.wiring import build_edge

# Seconds that the buffered door keeps: for settling after a reply (a round of probes takes up to 4), and for that and
# sending it.
_SETTLE_SECONDS = 4.5
_RESERVE = 5.5


class Context(Protocol):
    """The part of Lambda's context object that is used here."""

    def get_remaining_time_in_millis(self) -> int: ...


class BufferedDoor:
    """Proxy events in, whole results out, over one event loop that lives as long as the environment."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._edge = self._runner.run(self._open())
        atexit.register(self._close)

    def answer(self, event: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Raises EventError for an event that is no HTTP request."""
        time_left = max(0.0, context.get_remaining_time_in_millis() / 1000 - _RESERVE)
        read = events.convert(event)
        return self._runner.run(self._exchange(events.request_of(read, time_left=time_left), read))

    async def _open(self) -> Edge:
        edge = _build()
        await edge.start()
        return edge

    async def _exchange(self, request: Request, event: events.HttpEvent) -> dict[str, Any]:
        result = await events.buffered(await self._edge.handle(request), event)
        with suppress(TimeoutError):  # a reply that is there must not be lost to what comes after it
            async with asyncio.timeout(_SETTLE_SECONDS):
                await _settle(self._edge)
        return result

    def _close(self) -> None:
        self._runner.run(self._edge.close())
        self._runner.close()


_settings = load(os.environ["ISOCHRONE_CONFIG"])
_pulse = Pulse(_settings.service.name, partial(print, flush=True))
_saved = Pulse(_settings.service.name, partial(print, flush=True))
_refused = Pulse(_settings.service.name, partial(print, flush=True))


async def _settle(edge: Edge) -> None:
    """After a reply, before Lambda may freeze us: finish what is open, and say how the pools are and what of the
    directory is refused (for the alarms), and what known answers saved."""
    try:
        await edge.flush()
    finally:
        _say(edge, time.time())


def _say(edge: Edge, now: float) -> None:
    where = {"Region": edge.region}
    _pulse.beat({"HealthyPools": edge.healthy_pools()}, where, now=now)
    _refused.beat({"DirectoryRefused": edge.refused() or None}, where, now=now)  # nothing, as a rule: it costs
    if _saved.is_due(now):
        _saved.beat(edge.saved(), where, now=now)


def _build() -> Edge:
    return build_edge(_settings, region=os.environ["AWS_REGION"], environ=os.environ)


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# An edge belongs to the loop that it was built in: the streaming loop loads this module inside its own.
if _inside_a_loop():
    _edge = _build()
    start, stream, flush, close = _edge.start, _edge.handle, partial(_settle, _edge), _edge.close
else:
    handler = BufferedDoor().answer
