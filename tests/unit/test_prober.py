from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from typing import Literal

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.test_utils import TestServer

from isochrone.routing import prober
from isochrone.routing.engines import EngineLoad
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.probe import Probe, Way
from isochrone.routing.prober import open_session, probe, probe_all, why
from isochrone.settings import Backend

NOWHERE = "http://127.0.0.1:1/v1"
KEY = ConnectionKey("10.0.0.5", 80, False, True, None, None, None)


class Engine:
    """An engine with a health and a metrics route; each answer takes so many milliseconds of the clock it carries."""

    def __init__(self) -> None:
        self.health_ms, self.metrics_ms = 0.0, 0.0
        self.health_status = 200
        self.metrics: str | None = "vllm:num_requests_waiting 3\n"
        self.connections: set[object] = set()
        self.url = ""
        self._now = 0.0

    def clock(self) -> float:
        return self._now

    async def health(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        self._now += self.health_ms / 1000
        response = web.StreamResponse(status=self.health_status)
        await response.prepare(request)
        await asyncio.sleep(0.01)  # an end that comes later than the head
        await response.write_eof(b"ok")
        return response

    async def tell_metrics(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        if self.metrics is None:
            await asyncio.Event().wait()
        self._now += self.metrics_ms / 1000
        return web.Response(text=self.metrics)

    async def probe(self, *, seconds: float = 10.0) -> Probe:
        """What a new client's first probe of it sees."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session:
            return (await probe(self.url, "vllm", session, clock=self.clock)).probe


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    app = web.Application()
    app.router.add_get("/health", engine.health)
    app.router.add_get("/metrics", engine.tell_metrics)
    async with TestServer(app, host="127.0.0.1", shutdown_timeout=0) as server:
        engine.url = str(server.make_url("/v1"))
        yield engine


async def test_metrics_that_hang_do_not_make_a_healthy_engine_unreachable(engine: Engine) -> None:
    engine.metrics = None
    seen = await engine.probe(seconds=0.2)
    assert (seen.reached, seen.rtt_ms, seen.load) == (True, None, EngineLoad())


async def test_new_connection_is_not_taken_for_a_long_way(engine: Engine) -> None:
    """The first call of a round may have to connect, which takes several round trips; the second does not."""
    engine.health_ms, engine.metrics_ms = 300.0, 100.0
    seen = await engine.probe()
    assert seen.rtt_ms == pytest.approx(100.0)
    assert seen.load.waiting == 3
    assert len(engine.connections) == 1


async def test_slow_metrics_are_not_taken_for_a_long_way(engine: Engine) -> None:
    engine.health_ms, engine.metrics_ms = 100.0, 300.0
    assert (await engine.probe()).rtt_ms == pytest.approx(100.0)


async def test_engine_whose_health_route_says_so_is_not_reached(engine: Engine) -> None:
    engine.health_status = 503
    assert await engine.probe() == Probe(0.0, reached=False, reason="its health route answers 503")


async def test_probe_that_gets_through_ends_unreachability_at_once(engine: Engine) -> None:
    fleet = Fleet([Backend(name="p", base_url=engine.url, models={"m": "m"}, engine="vllm")], edge_region="us-east-1")
    fleet.states[0].on_probe(Probe(time.monotonic(), reached=False, reason="gone"))
    assert fleet.offers("m")[0].standing(time.monotonic()) is Standing.UNREACHABLE
    async with open_session() as session:
        await probe_all(fleet, session)
    assert fleet.offers("m")[0].standing(time.monotonic()) is Standing.HEALTHY


async def test_of_an_api_only_the_connection_is_tried(engine: Engine) -> None:
    """Its routes may cost money, and what they answer means nothing here."""
    async with open_session() as session:
        seen = (await probe(engine.url, "openai", session)).probe
    assert seen.reached
    assert seen.way.connect_ms is not None
    assert seen == Probe(seen.at, reached=True, rtt_ms=seen.way.connect_ms, way=Way(connect_ms=seen.way.connect_ms))
    assert not engine.connections


async def test_handshakes_of_tcp_and_of_tls_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    server_side, client_side = anonymous_tls(ssl.PROTOCOL_TLS_SERVER), anonymous_tls(ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr(prober, "_trust", lambda: client_side)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    ticks = iter(range(100))
    async with (
        await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=server_side) as server,
        open_session() as session,
    ):
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        seen = (await probe(url, "openai", session, clock=lambda: next(ticks))).probe
    assert seen.reached, seen.reason
    assert seen.way == Way(connect_ms=1000.0, tls_ms=1000.0)


async def test_server_without_tls_behind_an_https_address_is_not_reached(engine: Engine) -> None:
    async with open_session() as session:
        seen = (await probe(engine.url.replace("http:", "https:"), "openai", session)).probe
    assert (seen.reached, seen.reason) == (False, "cannot be reached: TLS failed")


async def test_next_address_of_a_name_is_tried_when_the_first_does_not_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many names have an IPv6 address, which a Lambda function outside a VPC cannot reach."""
    port = int(engine.url.rsplit(":", 1)[1].removesuffix("/v1"))
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
    loop = asyncio.get_running_loop()
    resolved: list[str] = []

    async def resolve(host: str, *_args: object, **_options: object) -> list[object]:
        resolved.append(host)
        return [one for one in found if host in ("pool.test", one[-1][0])]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    async with open_session() as session:
        seen = (await probe(f"http://pool.test:{port}/v1", "openai", session)).probe
    assert seen.reached, seen.reason
    assert resolved[0] == "pool.test"


def anonymous_tls(protocol: int) -> ssl.SSLContext:
    """TLS without a certificate, so that no test needs a key."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


@pytest.mark.parametrize("engine", ["vllm", "openai"])
async def test_status_says_why_a_backend_is_not_reached_and_only_the_log_says_where(
    engine: Literal["vllm", "openai"], caplog: pytest.LogCaptureFixture
) -> None:
    """Any key holder may read the status; private addresses are not for them."""
    caplog.set_level(logging.INFO, logger="isochrone.prober")
    fleet = Fleet([Backend(name="p", base_url=NOWHERE, models={"m": "m"}, engine=engine)], edge_region="us-east-1")
    async with open_session() as session:
        await probe_all(fleet, session)
        await probe_all(fleet, session)
    (offer,) = fleet.offers("m")
    assert offer.standing(time.monotonic()) is Standing.UNREACHABLE
    assert offer.why(time.monotonic()) == "cannot be reached: Connection refused"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "127.0.0.1" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "no name 10.0.0.5")), "its name cannot be resolved"),
        (socket.gaierror(-2, "no name 10.0.0.5"), "its name cannot be resolved"),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "10.0.0.5")), "TLS failed"),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("not for 10.0.0.5")), "TLS failed"),
        (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "('10.0.0.5', 80)")), "Connection refused"),
        (ConnectionResetError(104, "('10.0.0.5', 80)"), "Connection reset by peer"),
        (OSError("Multiple exceptions: ('10.0.0.5', 80)"), "none of its addresses answers"),
        (ssl.SSLError(1, "10.0.0.5"), "TLS failed"),
        (ConnectionAbortedError("no handshake with 10.0.0.5"), "the connection was closed"),
        (aiohttp.ServerDisconnectedError("10.0.0.5"), "ServerDisconnectedError"),
    ],
)
def test_reason_of_a_failed_probe_names_no_address(error: aiohttp.ClientError | OSError, words: str) -> None:
    assert why(error) == words
