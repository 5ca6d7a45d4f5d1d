"""`make bench` measures what it says: its figures come from the right loads, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from benchmark.arena import Arena, Load, Series
from benchmark.edge_costs import Costs
from benchmark.errors import BenchError
from benchmark.machine import Circumstances, cores
from benchmark.measure import Added, Row, offered
from benchmark.report import Report, as_text, promises
from benchmark.tools import build_tools

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="the load generator is C for Linux"
)


@pytest.fixture
def arena(tmp_path: Path) -> Any:
    with Arena(build_tools(tmp_path), cores(), tmp_path) as arena:
        yield arena


def report(*rows: Row) -> Report:
    around = Circumstances(
        command="make bench", date="today", commit="abc", processor="a CPU", cores=2, memory_gb=4.0,
        system="Linux", python="3.11", load_before=0.1, real_time=False,
    )  # fmt: skip
    return Report(circumstances=around, rounds=3, places=True, costs=Costs(), rows=list(rows), load_after=0.2)


def series(**values: float) -> Series:
    return Series(**{"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0} | values)  # type: ignore[arg-type]


@needs_compiler
def test_latency_counts_what_the_backend_was_told_to_take(arena: Arena) -> None:
    arena.configure(body_us=20_000)
    load = arena.load(arena.direct, "--connections", 2, "--rate", 40, seconds=0.5)
    assert load.latency.p50 >= 20_000
    assert (load.wrong, load.statuses) == (0, {"200": load.answered})


@needs_compiler
def test_stream_is_counted_by_its_tokens(arena: Arena) -> None:
    arena.configure(first_token_us=20_000, gap_us=1_000, tokens=7)
    load = arena.load(arena.direct, "--connections", 1, "--stream", "--requests", 3, seconds=20)
    assert (load.answered, load.tokens) == (3, 21)
    assert load.first_token.p50 >= 20_000
    assert load.token_delay.count == 21


@needs_compiler
def test_load_on_a_closed_port_says_so(arena: Arena) -> None:
    arena.end(arena.mock)
    with pytest.raises(BenchError, match="cannot connect"):
        arena.load(arena.direct, seconds=0.1)


@needs_compiler
def test_server_that_dies_at_its_start_is_named_with_its_last_words(arena: Arena) -> None:
    server = arena.start("doomed", [sys.executable, "-c", "raise SystemExit('no such key')"], core=0)
    with pytest.raises(BenchError, match="ended with status 1: no such key"):
        arena.wait_until_it_completes(server, arena.direct._replace(port=1), 20)


@needs_compiler
def test_bench_prints_its_figures_as_json_and_ends_what_it_started() -> None:
    mark = uuid4().hex
    command = [sys.executable, "scripts/bench.py", "--quick", "--no-real-time", "--only", "import,isochrone-known"]
    environ = {**os.environ, "BENCH_TEST_MARK": mark}
    run = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    found = msgspec.json.decode(run.stdout, type=Report)
    assert (found.costs.import_cpu_ms or 0) > 0
    assert [(row.name, row.wrong) for row in found.rows] == [("isochrone-known", 0)]
    assert (found.rows[0].requests_per_s or 0) > 0
    assert not any(_inherited(mark, process) for process in Path("/proc").glob("[0-9]*"))


def _inherited(mark: str, process: Path) -> bool:
    try:
        return mark.encode() in (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False


def test_unknown_part_is_refused_in_one_line_that_lists_the_parts() -> None:
    command = [sys.executable, "scripts/bench.py", "--only", "strat"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "'strat' is none of start, import, memory" in run.stderr


def test_machine_without_a_compiler_gets_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="needs a C compiler for its load generator: install gcc or clang"):
        build_tools(tmp_path)


def test_wrong_answers_are_those_other_than_200_and_those_that_did_not_come() -> None:
    load = Load(
        seconds=2.0, answered=10, tokens=30, failed=2, statuses={"200": 7, "503": 3},
        latency=series(), first_token=series(), token_delay=series(),
    )  # fmt: skip
    assert (load.wrong, load.requests_per_second, load.tokens_per_second) == (5, 5.0, 15.0)


def test_streams_offer_their_tokens_over_first_token_and_gaps() -> None:
    assert offered(51) == pytest.approx(51 * 50 / 0.255)


def test_promises_compare_upper_and_lower_bounds() -> None:
    row = Row(name="isochrone", note="", body=Added(p50=900.0, p99=3_100.0), requests_per_s=2_400.0)
    kept = {promise.what: promise.kept for promise in promises(report(row)) if promise.value is not None}
    assert kept == {
        "added to a forwarded request, p50": True,
        "added to a forwarded request, p99": False,
        "forwarded requests on one core": False,
    }


def test_report_shows_ratios_and_says_what_was_left_out_and_why() -> None:
    half = Row(name="isochrone", note="ours", requests_per_s=50.0, requests_of_direct=0.25, wrong=2)
    text = as_text(
        report(
            half, Row(name="nginx", note="theirs", requests_per_s=100.0), Row(name="litellm", note="left out: no disk")
        )
    )
    cells = next([cell.strip() for cell in line.split("|")] for line in text.splitlines() if "| isochrone" in line)
    assert cells[6:9] == ["50.0", "0.25", "0.50"]
    assert "- litellm: left out: no disk" in text
    assert "Answers that were not 200, or did not come: isochrone 2" in text


def test_report_without_figures_still_says_where_and_when() -> None:
    assert as_text(report()).startswith("today, commit abc: `make bench`\na CPU, 2 cores, 4.0 GB; Linux; Python 3.11")
