"""What an edge costs before and beside its requests: its start, its import as a function, its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from msgspec import Struct

from benchmark.arena import Arena, Target, last_line
from benchmark.contestants import AUTHORIZED, NEW, REGIONS, ROOT, edge_command, edge_config
from benchmark.errors import BenchError
from benchmark.machine import cpu_seconds, memory, on_core
from benchmark.measure import Plan

MEMORY_REQUESTS = 1000
_IMPORT = """
import time
begun = time.process_time()
import handler
print(time.process_time() - begun)
"""


class Costs(Struct, kw_only=True):
    """Medians over the rounds. Memory is resident megabytes; pages of the location database are in it."""

    ready_s: float | None = None
    ready_cpu_s: float | None = None
    import_cpu_ms: float | None = None
    rss_idle_mb: float | None = None
    rss_peak_bodies_mb: float | None = None
    rss_peak_streams_mb: float | None = None


def measure_start(arena: Arena, plan: Plan, costs: Costs) -> None:
    """From `isochrone serve` to its line `ready`, and the CPU time until then."""
    starts = [_start(arena) for _ in range(2 * plan.rounds - 1)]
    costs.ready_s = median(seconds for seconds, _ in starts)
    costs.ready_cpu_s = median(cpu for _, cpu in starts)


def _start(arena: Arena) -> tuple[float, float]:
    command, _ = edge_command(arena.folder, edge_config(arena.mock_port))
    begun = time.monotonic()
    server = arena.start("isochrone-start", command, core=arena.cores.server)
    try:
        while "ready http://" not in server.log.read_text():
            if server.process.poll() is not None or time.monotonic() - begun > 30:
                raise BenchError(f"isochrone serve did not get ready: {last_line(server.log)}")
            time.sleep(0.002)
        return time.monotonic() - begun, cpu_seconds(server.pid)
    finally:
        arena.end(server)


def measure_import(arena: Arena, plan: Plan, costs: Costs) -> None:
    """CPU time of importing functions/edge/handler.py, which builds its edge, with DynamoDB as its state."""
    config = arena.folder / "function.toml"
    config.write_text(edge_config(arena.mock_port, state='kind = "dynamodb"'))
    costs.import_cpu_ms = median(_import(arena, config) for _ in range(2 * plan.rounds - 1)) * 1000


def _import(arena: Arena, config: Path) -> float:
    path = os.pathsep.join([str(ROOT / "functions" / "edge"), str(ROOT / "layers" / "core" / "python")])
    environ = {
        **os.environ,
        "PYTHONPATH": path,
        "ISOCHRONE_CONFIG": str(config),
        "AWS_REGION": REGIONS[0],
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with on_core(arena.cores.server):
        done = subprocess.run(
            [sys.executable, "-c", _IMPORT], env=environ, capture_output=True, text=True, check=False, timeout=60
        )
    if done.returncode != 0:
        raise BenchError(f"functions/edge/handler.py cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def measure_memory(arena: Arena, _: Plan, costs: Costs) -> None:
    """1,000 bodies and then 1,000 streams, each a new prompt from a new client somewhere in the world."""
    command, port = edge_command(arena.folder, edge_config(arena.mock_port))
    target = Target(port, (AUTHORIZED,), NEW)
    server = arena.start("isochrone-memory", command, core=arena.cores.server)
    try:
        arena.wait_until_it_completes(server, target, 30)
        costs.rss_idle_mb = memory(server.pid).now
        arena.configure(first_token_us=10_000, gap_us=1_000, tokens=64, body_us=5_000)
        costs.rss_peak_bodies_mb = _peak(arena, target, server.pid)
        costs.rss_peak_streams_mb = _peak(arena, target, server.pid, "--stream")
    finally:
        arena.end(server)


def _peak(arena: Arena, target: Target, pid: int, *flags: str) -> float:
    load = arena.load(target, "--connections", 16, "--requests", MEMORY_REQUESTS, *flags, seconds=60)
    if load.wrong or load.answered < MEMORY_REQUESTS:
        raise BenchError(f"only {load.answered - load.wrong} of {MEMORY_REQUESTS} requests were answered")
    return memory(pid).peak


COSTS: dict[str, Callable[[Arena, Plan, Costs], None]] = {
    "start": measure_start,
    "import": measure_import,
    "memory": measure_memory,
}
