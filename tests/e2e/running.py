"""Starts the local edition as `make run` does, asks its edges, and finds what it left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUN = (sys.executable, ROOT / "scripts/run.py")
START_SECONDS = 240.0  # a first deploy beside other work on two cores
MARK = "ISOCHRONE_TEST_RUN"
MODEL = "smollm2-135m"
PORTS = 17  # of one run: edges, pools, emulator, WAN links, console


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Run:
    """One `scripts/run.py`. All that it starts carries a mark in its environment, so that nothing can hide."""

    def __init__(self, folder: Path, ports: int, *options: str) -> None:
        self.folder = folder
        self.ports = ports
        self._mark = uuid.uuid4().hex
        self.output = folder.with_name(f"{self._mark}.out")
        first_of = {"edge": 0, "pool": 3, "cloud": 6, "wan": 7, "console": PORTS - 1}
        places = [word for name, place in first_of.items() for word in (f"--{name}-port", ports + place)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*RUN, *map(str, places), "--folder", folder, *options],
                env=os.environ | {MARK: self._mark},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str, seconds: float = START_SECONDS) -> None:
        """Until it has said `words`."""
        deadline = time.monotonic() + seconds
        while words not in self.said:
            assert self.process.poll() is None, f"run.py ended before it said {words!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"run.py did not say {words!r}:\n{self.said}"
            time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal the supervisor alone, as a terminal or a service manager would, and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def left_over(self, seconds: float = 10.0) -> list[str]:
        """Command lines of what it started and still lives after `seconds`."""
        deadline = time.monotonic() + seconds
        while (found := self.living()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def living(self) -> list[str]:
        """Command lines of what it started and lives now, itself included."""
        mark = f"{MARK}={self._mark}".encode()
        return [_command_of(folder) for folder in Path("/proc").glob("[0-9]*") if mark in _read(folder / "environ")]

    def edge(self, number: int) -> Edge:
        """Edge 0 is us-east-1, 1 is eu-west-1, 2 is ap-southeast-1."""
        return Edge(f"http://127.0.0.1:{self.ports + number}")

    def config(self, region: str) -> Path:
        return self.folder / "edges" / f"{region}.toml"

    def pool_pid(self, name: str) -> int:
        found = re.search(rf"{name}, pid (\d+)", self.said)
        assert found, self.said
        return int(found[1])

    def pool_port(self, name: str) -> int:
        return self.ports + 3 + ["pool-us", "pool-eu", "pool-ap"].index(name)


class Edge(NamedTuple):
    url: str

    def request(self, path: str, body: object = None, *, method: str | None = None, **headers: str) -> Response:
        """One request; `x_forwarded_for="1.2.3.4"` becomes the header X-Forwarded-For. Bytes are sent as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"content-type": "application/json"} | named
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Response(response.status, dict(response.headers.items()), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, dict(error.headers.items()), error.read().decode())

    def ask(self, prompt: str, *, options: Mapping[str, object] | None = None, **headers: str) -> Response:
        """A short completion that is not streamed."""
        body = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": prompt}], **(options or {})}
        return self.request("/v1/chat/completions", body, **headers)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""  # ended, or not ours


def _command_of(folder: Path) -> str:
    return _read(folder / "cmdline").replace(b"\0", b" ").decode(errors="replace")


def free_block(size: int) -> int:
    """The first of `size` free ports in a row."""
    for first in range(20_000 + os.getpid() % 5_000, 32_000, size):
        if all(_is_free(port) for port in range(first, first + size)):
            return first
    raise RuntimeError(f"no {size} free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
