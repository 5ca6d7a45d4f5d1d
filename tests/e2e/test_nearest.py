"""From the caller's address to the nearest pool, and past it when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_killed_pool_costs_no_request_and_serves_again_once_it_is_back(edition: Run) -> None:
    edge = edition.edge(2)
    assert backend(edge, "before") == "pool-ap"
    with ThreadPoolExecutor(3) as asking:
        answered = [asking.submit(backend, edge, f"during {number}") for number in range(18)]
        answered[1].result()
        os.kill(edition.pool_pid("pool-ap"), signal.SIGKILL)
        assert answered[-1].result() in ("pool-eu", "pool-us")
        assert {one.result() for one in answered} <= {"pool-ap", "pool-eu", "pool-us"}
    edition.wait_for("pool-ap was ended by SIGKILL", 10)
    port = edition.pool_port("pool-ap")
    assert f"start it again with: .venv/bin/python scripts/local/model_server.py --port {port}" in edition.said
    revived = subprocess.Popen(
        [sys.executable, ROOT / "scripts/local/model_server.py", "--port", str(port)], stdout=subprocess.DEVNULL
    )
    try:
        edition.wait_for("pool-ap answers again", 30)
        until(lambda: backend(edge, str(time.monotonic())) == "pool-ap", 60)
    finally:
        revived.kill()
        revived.wait()


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
