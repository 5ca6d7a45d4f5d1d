"""Active probes: is a backend there, how long is the way, how much does it have to do. Never a paid generation.

To every backend a connection is opened; engines with a health route (vLLM, llama.cpp) are asked there, and for their
load. An answer below 500 counts as reached: what the answer means is for attempts to find out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import aiohttp
from yarl import URL

from isochrone.routing.engines import METRICS, EngineLoad, load_in
from isochrone.routing.fleet import BackendState, Fleet
from isochrone.routing.leases import Leases
from isochrone.routing.probe import Probe, Way

log = logging.getLogger("isochrone.prober")

T = TypeVar("T")
Clock = Callable[[], float]

TIMEOUT_SECONDS = 2.0
DUTY = "duty/probe"


def open_session() -> aiohttp.ClientSession:
    """A client whose connections outlive the pause between probes, so that a probe measures the way alone."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def probe_in_turn(fleet: Fleet, session: aiohttp.ClientSession, leases: Leases, *, seconds: float) -> bool:
    """Look once at every backend if this process has the duty to, of all that share its table; it then keeps the duty
    for so many seconds. False when another has it: what that one sees comes through the exchange."""
    if not await leases.hold(DUTY, seconds):
        return False
    await probe_all(fleet, session)
    return True


async def probe_all(fleet: Fleet, session: aiohttp.ClientSession) -> None:
    """Look once at every backend, side by side."""
    probes = (_probe_into(state, session) for state in fleet.states)
    for outcome in await asyncio.gather(*probes, return_exceptions=True):
        if outcome is not None:
            log.error("a probe failed by itself", exc_info=outcome)


async def _probe_into(state: BackendState, session: aiohttp.ClientSession) -> None:
    seen, detail = await probe(state.facts.base_url, state.facts.engine, session)
    if not seen.reached and state.probe.last.reason != seen.reason:
        log.info("backend %s is unreachable: %s", state.facts.name, detail)
    state.on_probe(seen)


class Look(NamedTuple):
    """What a probe saw, and for the log in `detail`, which may name private addresses, why it was not reached."""

    probe: Probe
    detail: str = ""


async def probe(base_url: str, engine: str, session: aiohttp.ClientSession, *, clock: Clock = time.monotonic) -> Look:
    """One look at one backend."""
    root, at = URL(base_url), clock()
    try:
        if engine in METRICS:
            return Look(await _ask_engine(root, engine, session, clock))
        way = await _open_and_close(root, clock)
        return Look(Probe(at, reached=True, rtt_ms=way.connect_ms, way=way))
    except TimeoutError:
        reason = detail = f"no answer to a probe within {TIMEOUT_SECONDS:g} s"
    except (aiohttp.ClientError, OSError) as error:
        reason, detail = f"cannot be reached: {why(error)}", str(error)
    return Look(Probe(at, reached=False, reason=reason), detail)


def why(error: aiohttp.ClientError | OSError) -> str:
    """In words for whoever may read the status: the system's own would name private addresses."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "TLS failed"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, ConnectionError):
        return "the connection was closed"
    return "none of its addresses answers" if isinstance(error, OSError) else type(error).__name__


class _Said(NamedTuple):
    status: int
    text: str
    after_ms: float


async def _ask_engine(root: URL, engine: str, session: aiohttp.ClientSession, clock: Clock) -> Probe:
    """Two calls. The first may have to connect, several round trips long; the quicker of the two is the way."""
    at = clock()
    health = await _get(root.with_path("/health"), session, clock)
    if health.status >= 500:
        return Probe(at, reached=False, reason=f"its health route answers {health.status}")
    way, metrics = await asyncio.gather(
        _if_it_can(lambda: _open_and_close(root, clock)),
        _if_it_can(lambda: _get(root.with_path("/metrics"), session, clock)),
    )
    if metrics is None:
        return Probe(at, reached=True, first_byte_ms=health.after_ms, way=way or Way())
    first_byte_ms = min(health.after_ms, metrics.after_ms)
    load = load_in(metrics.text, engine) if metrics.status == 200 else EngineLoad()
    return Probe(at, reached=True, rtt_ms=first_byte_ms, first_byte_ms=first_byte_ms, way=way or Way(), load=load)


async def _if_it_can(look: Callable[[], Awaitable[T]]) -> T | None:
    """What an engine that was reached need not tell."""
    try:
        return await look()
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


async def _get(url: URL, session: aiohttp.ClientSession, clock: Clock) -> _Said:
    """The reply, read to its end so that its connection can take the next call; timed to its head."""
    begun = clock()
    async with session.get(url) as response:
        after_ms = (clock() - begun) * 1000
        return _Said(response.status, await response.text(errors="replace"), after_ms)


async def _open_and_close(root: URL, clock: Clock) -> Way:
    """A new connection, its name resolved before the clock runs, so that the handshake is all that is timed."""
    assert root.host is not None
    async with asyncio.timeout(TIMEOUT_SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(root.host, root.port, type=socket.SOCK_STREAM)
        writer, connect_ms = await _connect([address[:2] for *_, address in found], clock)
        try:
            tls_ms = await _shake_hands(writer, root.host, clock) if root.scheme == "https" else None
        finally:
            writer.transport.abort()  # a farewell could take longer than the greeting
    return Way(connect_ms, tls_ms)


async def _connect(addresses: Sequence[tuple[Any, ...]], clock: Clock) -> tuple[asyncio.StreamWriter, float]:
    """To the first address that answers. A machine without IPv6 gets such addresses, too."""
    for last, (host, port) in enumerate(addresses, start=1 - len(addresses)):
        begun = clock()
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            if last == 0:
                raise
        else:
            return writer, (clock() - begun) * 1000
    raise socket.gaierror("the name has no address")


async def _shake_hands(writer: asyncio.StreamWriter, host: str, clock: Clock) -> float:
    begun = clock()
    await writer.start_tls(_trust(), server_hostname=host)
    return (clock() - begun) * 1000


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
