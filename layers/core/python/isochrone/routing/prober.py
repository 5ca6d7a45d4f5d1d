"""Active probes: is a backend there, how long is the way, how many requests wait. Never a paid generation.

Engines with a health route (vLLM, llama.cpp) are asked there, and for their queue; of any other backend only the TCP
connection is tried. An answer below 500 counts as reached: what the answer means is for attempts to find out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import aiohttp
from yarl import URL

from isochrone.routing.fleet import BackendState, Fleet

log = logging.getLogger("isochrone.prober")

Clock = Callable[[], float]

TIMEOUT_SECONDS = 2.0
_QUEUE_METRIC = {"vllm": "vllm:num_requests_waiting", "llama.cpp": "llamacpp:requests_deferred"}


class Probe(NamedTuple):
    """What one probe saw; `waiting` is None where the engine does not say, `rtt_ms` where nothing could measure it.

    `reason` is for everybody, `error` for the log: it may name private addresses.
    """

    reached: bool
    rtt_ms: float | None = None
    waiting: int | None = None
    reason: str = ""
    error: str = ""


def open_session() -> aiohttp.ClientSession:
    """A client whose connections outlive the pause between probes, so that a probe measures the way alone."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def probe_all(fleet: Fleet, session: aiohttp.ClientSession) -> None:
    """Look once at every backend, side by side."""
    probes = (_probe_into(state, session) for state in fleet.states)
    for outcome in await asyncio.gather(*probes, return_exceptions=True):
        if outcome is not None:
            log.error("a probe failed by itself", exc_info=outcome)


async def _probe_into(state: BackendState, session: aiohttp.ClientSession) -> None:
    seen = await probe(state.facts.base_url, state.facts.engine, session)
    if not seen.reached and state.offers[0].health.reason != seen.reason:
        log.info("backend %s is unreachable: %s", state.facts.name, seen.error or seen.reason)
    state.on_probe(time.monotonic(), reached=seen.reached, reason=seen.reason, waiting=seen.waiting or 0)
    if seen.rtt_ms is not None:
        state.on_rtt(seen.rtt_ms)


async def probe(
    base_url: str, engine: str, session: aiohttp.ClientSession, *, clock: Clock = time.perf_counter
) -> Probe:
    """One look at one backend."""
    root = URL(base_url)
    try:
        if engine not in _QUEUE_METRIC:
            return Probe(reached=True, rtt_ms=await _connect_ms(root, clock))
        return await _ask_engine(root, engine, session, clock)
    except TimeoutError:
        return Probe(reached=False, reason=f"no answer to a probe within {TIMEOUT_SECONDS:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Probe(reached=False, reason=f"cannot be reached: {why(error)}", error=str(error))


def why(error: aiohttp.ClientError | OSError) -> str:
    """In words for whoever may read the status: the system's own would name private addresses."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno else "none of its addresses answers"
    return type(error).__name__


class _Said(NamedTuple):
    status: int
    text: str
    after_ms: float


async def _ask_engine(root: URL, engine: str, session: aiohttp.ClientSession, clock: Clock) -> Probe:
    """Two calls. The first may have to connect, several round trips long; the quicker of the two is the way."""
    health = await _get(root.with_path("/health"), session, clock)
    if health.status >= 500:
        return Probe(reached=False, reason=f"its health route answers {health.status}")
    try:
        metrics = await _get(root.with_path("/metrics"), session, clock)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return Probe(reached=True)
    waiting = waiting_in(metrics.text, engine) if metrics.status == 200 else None
    return Probe(reached=True, rtt_ms=min(health.after_ms, metrics.after_ms), waiting=waiting)


async def _get(url: URL, session: aiohttp.ClientSession, clock: Clock) -> _Said:
    """The reply, read to its end so that its connection can take the next call; timed to its head."""
    begun = clock()
    async with session.get(url) as response:
        after_ms = (clock() - begun) * 1000
        return _Said(response.status, await response.text(errors="replace"), after_ms)


async def _connect_ms(root: URL, clock: Clock) -> float:
    begun = clock()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, writer = await asyncio.open_connection(root.host, root.port)
    rtt_ms = (clock() - begun) * 1000
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return rtt_ms


def waiting_in(exposition: str, engine: str) -> int | None:
    """Requests in the engine's queue, summed over its models, from its Prometheus text; None when it does not say."""
    pattern = rf"^{re.escape(_QUEUE_METRIC[engine])}(?:\{{[^}}]*\}})?\s+(\d{{1,9}}(?:\.\d+)?(?:[eE]\+?\d)?)\s*$"
    counts = re.findall(pattern, exposition, re.MULTILINE)
    return round(sum(float(count) for count in counts)) if counts else None
