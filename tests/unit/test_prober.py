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

from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.prober import Probe, open_session, probe, probe_all, waiting_in, why
from isochrone.settings import Backend

NOWHERE = "http://127.0.0.1:1/v1"
KEY = ConnectionKey("10.0.0.5", 80, False, True, None, None, None)

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="a",engine="0"} 3.0
vllm:num_requests_waiting{model_name="b"} 2.0
vllm:num_requests_waiting_total 99
vllm:num_requests_running{model_name="a"} 7.0
"""


@pytest.mark.parametrize(
    ("text", "engine", "waiting"),
    [
        (VLLM, "vllm", 5),
        ("llamacpp:requests_deferred 4\nllamacpp:requests_processing 1\n", "llama.cpp", 4),
        ("llamacpp:requests_deferred 1e1\n", "llama.cpp", 10),
        (VLLM, "llama.cpp", None),
        ("", "vllm", None),
        ("# vllm:num_requests_waiting 5", "vllm", None),
        ("<html>502</html>", "vllm", None),
    ],
)
def test_queue_is_read_from_the_engines_metrics(text: str, engine: str, waiting: int | None) -> None:
    assert waiting_in(text, engine) == waiting


@pytest.mark.parametrize("number", ["1e999", "-", "1.2.3", "e", "..", "1e", "-3"])
def test_senseless_number_in_an_engines_metrics_is_no_accident(number: str) -> None:
    waiting = waiting_in(f"vllm:num_requests_waiting {number}\n", "vllm")
    assert waiting is None or waiting >= 0


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
            return await probe(self.url, "vllm", session, clock=self.clock)


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
    assert await engine.probe(seconds=0.2) == Probe(reached=True)


async def test_new_connection_is_not_taken_for_a_long_way(engine: Engine) -> None:
    """The first call of a round may have to connect, which takes several round trips; the second does not."""
    engine.health_ms, engine.metrics_ms = 300.0, 100.0
    seen = await engine.probe()
    assert seen.rtt_ms == pytest.approx(100.0)
    assert seen.waiting == 3
    assert len(engine.connections) == 1


async def test_slow_metrics_are_not_taken_for_a_long_way(engine: Engine) -> None:
    engine.health_ms, engine.metrics_ms = 100.0, 300.0
    assert (await engine.probe()).rtt_ms == pytest.approx(100.0)


async def test_engine_whose_health_route_says_so_is_not_reached(engine: Engine) -> None:
    engine.health_status = 503
    assert await engine.probe() == Probe(reached=False, reason="its health route answers 503")


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
    health = fleet.states[0].health
    assert health.standing(time.monotonic()) is Standing.UNREACHABLE
    assert health.reason == "cannot be reached: Connection refused"
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
        (aiohttp.ServerDisconnectedError("10.0.0.5"), "ServerDisconnectedError"),
    ],
)
def test_reason_of_a_failed_probe_names_no_address(error: aiohttp.ClientError | OSError, words: str) -> None:
    assert why(error) == words
