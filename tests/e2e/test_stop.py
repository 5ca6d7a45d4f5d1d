"""However a run ends, nothing of it stays behind; and what keeps it from starting is said in one line."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Run, free_block

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
def second(start: Start, edition: Run) -> Run:
    """A run in the folder of one that was stopped. Whoever asks for `edition` after this gets a stopped one."""
    edition.stop()
    run = start("--restart", "--no-wan", folder=edition.folder, ports=edition.ports)
    run.wait_for("Logs:")
    return run


def test_ctrl_c_stops_everything(edition: Run) -> None:
    assert edition.stop(signal.SIGINT) == 0
    assert edition.left_over() == []
    assert "Traceback" not in edition.said


def test_second_start_finds_its_cloud_as_it_left_it(second: Run) -> None:
    assert "deploying" not in second.said
    assert second.edge(0).request("/readyz").status == 200
    assert second.edge(2).ask("Hello again.").status == 200


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


@pytest.mark.parametrize("option", ["--edge-port", "--pool-port", "--cloud-port", "--wan-port"])
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
