from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from isochrone.routing.prober import Probe, probe, waiting_in

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


async def test_engine_that_is_not_there_is_not_reached() -> None:
    engine = Engine()
    engine.url = "http://127.0.0.1:1/v1"
    seen = await engine.probe()
    assert (seen.reached, seen.reason.split(":")[0]) == (False, "cannot be reached")
