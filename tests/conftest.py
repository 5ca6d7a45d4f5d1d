"""What every test may use: one MiniStack for the whole session, and the event loop that async tests run on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

MINISTACK_START_SECONDS = 60.0

# A busy machine makes an example slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint URL of an AWS emulator that lives as long as the session, e.g. `http://127.0.0.1:40123`.

    Tests share it: give tables and stacks names of your own.
    """
    with running_ministack(free_port(), tmp_path_factory.mktemp("ministack") / "ministack.log") as url:
        yield url


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_ministack(port: int, log: Path) -> Iterator[str]:
    """Run MiniStack on 127.0.0.1 and give its URL; stopped on the way out."""
    url = f"http://127.0.0.1:{port}"
    scratch = log.with_name("ministack-scratch")  # it does not clean up after itself
    scratch.mkdir()
    environment = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LOG_LEVEL": "WARNING"}
    environment |= {"TMPDIR": str(scratch)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_healthy(process, url, log)
            yield url
        finally:
            _stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + MINISTACK_START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"MiniStack did not come up at {url}; its log ends with:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
