"""Where the measuring happens: the mock backend, the servers under test and the load, each on its core.

Everything listens on 127.0.0.1. Whatever was started here is ended with the arena, and nothing else is.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from msgspec import Struct

from benchmark.errors import BenchError
from benchmark.machine import Cores, move, on_core
from benchmark.tools import Tools

_LONGEST_SECONDS = 3600
_GRACE_SECONDS = 5.0
_TETHER = Path(__file__).parent.parent / "local" / "tether.py"
CHAT = "/v1/chat/completions"

Say = Callable[[str], None]

# Nothing here goes through a proxy that the environment may name.
_open = build_opener(ProxyHandler({})).open


class Series(Struct):
    """One kind of time, in microseconds."""

    count: int
    p50: float
    p99: float
    max: float


class Load(Struct):
    """What one run of the load generator saw."""

    seconds: float
    answered: int
    tokens: int
    failed: int
    statuses: dict[str, int]
    latency: Series
    first_token: Series
    token_delay: Series

    @property
    def requests_per_second(self) -> float:
        """Whole answers."""
        return self.answered / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Events that carried text."""
        return self.tokens / self.seconds

    @property
    def wrong(self) -> int:
        """Answers other than 200, and requests without an answer."""
        return self.failed + sum(count for status, count in self.statuses.items() if status != "200")


class Target(NamedTuple):
    """Where a load goes. `flags` are further options of the load generator."""

    port: int
    headers: Sequence[str] = ()
    flags: Sequence[str] = ()


class Server(NamedTuple):
    """A process under test."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


class Arena:
    """`folder` takes logs and generated configurations. Use it as a context manager."""

    def __init__(self, tools: Tools, cores: Cores, folder: Path) -> None:
        self.cores = cores
        self.folder = folder
        self._tools = tools
        self._started: list[subprocess.Popen[str]] = []
        self.mock_port = free_port()

    def __enter__(self) -> Self:
        command: list[str | Path] = [self._tools.mock_backend, str(self.mock_port), str(_LONGEST_SECONDS)]
        self.mock = self.start("mock backend", command, core=self.cores.load)
        self._wait_for_answer(self.mock, Request(f"http://127.0.0.1:{self.mock_port}/health"), 10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._started):
            _end(process)

    @property
    def direct(self) -> Target:
        """The mock backend itself."""
        return Target(self.mock_port)

    def configure(self, **values: int) -> None:
        """How the mock backend answers from now on: first_token_us, gap_us, tokens, body_us."""
        query = "&".join(f"{name}={value}" for name, value in values.items())
        _open(f"http://127.0.0.1:{self.mock_port}/_mock/config?{query}", timeout=5).close()

    def start(
        self, name: str, command: Sequence[str | Path], *, core: int, environ: Mapping[str, str] | None = None
    ) -> Server:
        """Start a process on `core`, tied to this one; what it says goes to NAME.log."""
        log = self.folder / f"{name.replace(' ', '-')}.log"
        tied = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *map(str, command)]
        with on_core(core), log.open("w") as output:
            process = popen(tied, environ, output)
        self._started.append(process)
        return Server(process, log)

    def end(self, server: Server) -> None:
        """End what `start` gave."""
        _end(server.process)

    def wait_until_it_completes(self, server: Server, target: Target, seconds: float) -> None:
        """Until a completion comes through it. Raises BenchError when it ends or `seconds` are over."""
        headers = dict(header.split(": ", 1) for header in target.headers)
        body = msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": "Are you there?"}]})
        headers["Content-Type"] = "application/json"
        request = Request(f"http://127.0.0.1:{target.port}{CHAT}", data=body, headers=headers)
        self._wait_for_answer(server, request, seconds)

    def _wait_for_answer(self, server: Server, request: Request, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not _answers(request):
            if server.process.poll() is not None:
                raise BenchError(f"it ended with status {server.process.returncode}: {last_line(server.log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"it did not answer within {seconds:.0f} s: {last_line(server.log)}")
            time.sleep(0.05)

    def load(self, target: Target, *flags: str | float, seconds: float) -> Load:
        """One run of the load generator against `target`."""
        command = [self._tools.load, "--port", target.port, *flags, "--seconds", seconds, *target.flags]
        for header in target.headers:
            command += ["--header", header]
        with on_core(self.cores.load):
            done = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, check=False, timeout=seconds + 60
            )
        if done.returncode != 0:
            raise BenchError(done.stderr.strip() or f"the load generator ended with status {done.returncode}")
        return msgspec.json.decode(done.stdout, type=Load)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Keep the load's core from halting: waking it would be charged to whoever is measured."""
        with on_core(self.cores.load):
            spinner = popen([str(self._tools.spin), str(_LONGEST_SECONDS)], None, subprocess.DEVNULL)
        self._started.append(spinner)
        try:
            yield
        finally:
            _end(spinner)

    def move(self, server: Server, core: int) -> None:
        """Take a server to another core."""
        move(server.pid, core)


def popen(command: Sequence[str], environ: Mapping[str, str] | None, output: IO[str] | int) -> subprocess.Popen[str]:
    """A process in a group of its own, but in our session: schedulers share time out by session."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **(environ or {})},
        process_group=0,
    )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(request: Request) -> bool:
    try:
        with _open(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM to its group, SIGKILL when that does not help; nothing when it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
