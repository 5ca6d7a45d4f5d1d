"""From the caller's address to the nearest pool, and past it when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.running import Edge, Run

ROOT = Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m"
TOKYO, FRANKFURT, SAO_PAULO = "133.11.0.1", "194.25.0.125", "200.147.3.157"
NEAREST = {TOKYO: "pool-ap", FRANKFURT: "pool-eu", SAO_PAULO: "pool-us"}


@pytest.mark.parametrize(("address", "pool"), NEAREST.items())
@pytest.mark.parametrize("edge", [0, 1, 2])
def test_caller_is_answered_by_the_nearest_pool(edition: Run, edge: int, address: str, pool: str) -> None:
    reply = edition.edge(edge).ask(f"Hello from {address} to {edge}.", x_forwarded_for=address)
    assert reply.status == 200
    assert reply.headers["x-isochrone-backend"] == pool


@pytest.mark.parametrize(("address", "pool"), NEAREST.items())
def test_plan_command_names_the_nearest_pool_and_why(edition: Run, address: str, pool: str) -> None:
    command = (Path(sys.executable).with_name("isochrone"), "plan", "--config", edition.config("eu-west-1"))
    where = ("--region", "eu-west-1", "--client-ip", address, "--model", MODEL, "--json")
    told = subprocess.run((*command, *where), capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(told.stdout)["plan"][0]["backend"] == pool


def test_pasted_plan_line_explains_in_words(edition: Run) -> None:
    line = next(line for line in edition.said.splitlines() if ".venv/bin/isochrone plan" in line)
    told = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert "pool-ap" in told.stdout
    assert "km" in told.stdout or "ms" in told.stdout


def test_status_tells_where_the_caller_is(edition: Run) -> None:
    client = edition.edge(0).request("/v1/status", x_forwarded_for=TOKYO).json()["client"]
    assert (client["address"], client["country"]) == (TOKYO, "JP")


def test_every_edge_is_alive_and_ready(edition: Run) -> None:
    statuses = [edition.edge(number).request(path).status for number in range(3) for path in ("/healthz", "/readyz")]
    assert statuses == [200] * 6


@pytest.fixture(scope="module")
def without_the_nearest_pool(edition: Run) -> Iterator[Dead]:
    """pool-ap is killed while it answers; it is brought back by hand afterwards."""
    edge = edition.edge(2)
    assert backend(edge, "before") == "pool-ap"
    with ThreadPoolExecutor(3) as asking:
        stream = asking.submit(streamed, edge, "Tell a long story.", on_fifth_piece=partial(kill, edition, "pool-ap"))
        answered = [asking.submit(backend, edge, f"during {number}") for number in range(18)]
    yield Dead(stream.result(), [one.result() for one in answered])
    with pool_started_by_hand(edition, "pool-ap"):
        edition.wait_for("pool-ap answers again", 30)
        until(lambda: backend(edge, str(time.monotonic())) == "pool-ap", 60)


def test_killed_pool_costs_no_request(edition: Run, without_the_nearest_pool: Dead) -> None:
    assert without_the_nearest_pool.backends[-1] in ("pool-eu", "pool-us")
    edition.wait_for("pool-ap was ended by SIGKILL", 10)
    port = edition.pool_port("pool-ap")
    assert f"start it again with: .venv/bin/python scripts/local/model_server.py --port {port}" in edition.said


def test_stream_cut_by_a_killed_pool_is_whole_or_says_that_it_is_not(without_the_nearest_pool: Dead) -> None:
    stream = without_the_nearest_pool.stream
    whole = stream.endswith("data: [DONE]") and '"finish_reason":"' in stream
    assert whole != ('"error"' in stream)


class Dead(NamedTuple):
    """What clients got from before a pool's death until after it: one stream's text, and who answered the others."""

    stream: str
    backends: list[str]


def kill(edition: Run, pool: str) -> None:
    os.kill(edition.pool_pid(pool), signal.SIGKILL)


@contextmanager
def pool_started_by_hand(edition: Run, pool: str) -> Iterator[None]:
    command = (sys.executable, ROOT / "scripts/local/model_server.py", "--port", str(edition.pool_port(pool)))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def streamed(edge: Edge, prompt: str, *, on_fifth_piece: Callable[[], None]) -> str:
    """All that a stream says to a caller in Tokyo."""
    body = {
        "model": MODEL,
        "stream": True,
        "temperature": 0,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {"content-type": "application/json", "x-forwarded-for": TOKYO}
    request = urllib.request.Request(f"{edge.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        events = (line.decode().strip() for line in response if line.strip())
        lines = [next(events) for _ in range(5)]
        on_fifth_piece()
        lines += events
    return "\n".join(lines)


def backend(edge: Edge, words: str) -> str:
    """Who answers a question from Tokyo that was never asked; a failed request fails the test."""
    reply = edge.ask(f"A question: {words}", x_forwarded_for=TOKYO)
    assert reply.status == 200, reply.text
    return reply.headers["x-isochrone-backend"]


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)
