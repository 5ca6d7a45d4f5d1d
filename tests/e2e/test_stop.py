"""However a run ends, nothing of it stays behind; and what keeps it from starting is said in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Run, free_block

QUESTION = "Name a colour. Answer with one word."
Start = Callable[..., Run]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_signal_in_the_middle_of_the_start_leaves_no_process(start: Start, number: signal.Signals) -> None:
    run = start("--pools", "1")
    run.wait_for("synthesising the templates")
    wait_for_child(run, "app.py")  # the supervisor's great-grandchild: the CDK's Node has started it
    status = run.stop(number)
    assert run.left_over() == []
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert "Traceback" not in run.said


def wait_for_child(run: Run, words: str) -> None:
    deadline = time.monotonic() + 60
    while not any(words in command for command in run.living()):
        assert time.monotonic() < deadline, run.said
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stopped(start: Start) -> Run:
    """A run that was ready, answered one question and got its Ctrl-C."""
    run = start()
    run.wait_for("Logs:")
    assert run.edge(0).ask(QUESTION, options={"seed": 7, "max_tokens": 50}).status == 200
    assert run.stop(signal.SIGINT) == 0
    return run


@pytest.fixture(scope="module")
def second(start: Start, stopped: Run) -> Run:
    """Another run in the folder of the one that was stopped."""
    run = start("--restart", "--no-wan", folder=stopped.folder, ports=stopped.ports)
    run.wait_for("Logs:")
    return run


def test_ctrl_c_stops_everything(stopped: Run) -> None:
    assert stopped.left_over() == []
    assert "nothing is left running" in stopped.said
    assert "Traceback" not in stopped.said


def test_second_start_finds_its_cloud_as_it_left_it(stopped: Run, second: Run) -> None:
    assert re.findall(r"API +(http\S+)", second.said) == re.findall(r"API +(http\S+)", stopped.said)
    known = second.edge(0).ask(QUESTION, options={"seed": 7, "max_tokens": 50}, x_isochrone_cache="only")
    assert (known.status, known.headers["x-isochrone-cache"]) == (200, "hit")


def test_without_the_wan_every_edge_still_answers(second: Run) -> None:
    assert [second.edge(number).ask(f"Hello, {number}.").status for number in range(3)] == [200] * 3


def test_pool_that_dies_is_started_again_when_that_was_asked_for(second: Run) -> None:
    os.kill(second.pool_pid("pool-us"), signal.SIGKILL)
    second.wait_for("pool-us started again, pid", 30)


def test_second_run_in_the_same_folder_is_refused_with_the_pid_of_the_first(start: Start, second: Run) -> None:
    said = complaint(start(folder=second.folder))
    assert len(said.splitlines()) == 1
    assert f"another run (pid {second.process.pid})" in said


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def complaint(run: Run) -> str:
    """All that a run said which could not start."""
    assert run.process.wait(timeout=30) == 1
    assert run.left_over() == []
    return run.said


@pytest.mark.parametrize("option", ["--edge-port", "--pool-port", "--cloud-port", "--wan-port", "--console-port"])
def test_busy_port_is_one_line_with_the_port_its_holder_and_the_option(
    start: Start, busy_port: int, option: str
) -> None:
    said = complaint(start(option, str(busy_port)))
    assert len(said.splitlines()) == 1
    assert f"port {busy_port} is in use (pid " in said
    assert f"choose another {option}" in said


def test_ports_that_overlap_are_one_line(start: Start) -> None:
    port = free_block(1)
    said = complaint(start("--edge-port", str(port), "--pool-port", str(port)))
    assert said == f"make run: port {port} is wanted twice: move --edge-port away from the other ports\n"


def test_folder_that_cannot_be_made_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = complaint(start("--folder", str(tmp_path / "file/inside")))
    assert len(said.splitlines()) == 1
    assert "choose another --folder" in said
