"""The processes of the local edition: each in its own session, logged to a file, and none outlives the supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.errors import LocalError

_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, eq=False)
class Child:
    """A started process. It leads its own process group, so its pid is also the group's id."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    round: int

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def ending(self) -> str:
        """How it ended: "ended", "was ended by SIGKILL" or "ended with status 1: last line of its log"."""
        code = self.process.returncode
        if not code:
            return "ended"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}: {last_line(self.log)}"

    async def end(self) -> None:
        """Wait until it ends by itself, and take with it what it started."""
        await self.process.wait()
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send to the whole group; silent when nobody is left, or nobody of ours (macOS says so of a zombie)."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


class Children:
    """Every process that this supervisor started."""

    def __init__(self, logs: Path, environ: Mapping[str, str]) -> None:
        self._logs = logs
        self._environ = environ
        self._started: list[Child] = []

    async def start(
        self, name: str, command: Sequence[str | Path], *, environ: Mapping[str, str] | None = None, round: int
    ) -> Child:
        """Start `command`; its output goes to NAME.log. `environ` adds to the common environment.

        `round` says when it is stopped: all of round 1 have ended before round 2 is told to.
        """
        log = self._logs / f"{name}.log"
        tied = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *map(str, command)]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *tied,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**self._environ, **(environ or {})},
                start_new_session=True,
            )
        child = Child(name, process, log, round)
        self._started.append(child)
        return child

    async def stop(self, children: Iterable[Child], grace: float) -> None:
        """SIGTERM to all, and SIGKILL to what is left of them after `grace` seconds."""
        stopping = [child for child in children if child.running]
        for child in stopping:
            child.signal(signal.SIGTERM)
        waiting = [asyncio.ensure_future(child.process.wait()) for child in stopping]
        if waiting:
            await asyncio.wait(waiting, timeout=grace)
        for child in stopping:
            child.signal(signal.SIGKILL)
        await asyncio.gather(*waiting)

    async def stop_all(self, grace: float) -> None:
        """Stop every child, round after round."""
        for number in sorted({child.round for child in self._started}):
            await self.stop([child for child in self._started if child.round == number], grace)

    def kill_all(self) -> None:
        """SIGKILL to everything that runs, now."""
        for child in self._started:
            if child.running:
                child.signal(signal.SIGKILL)


Probe = Callable[[], Awaitable[bool]]


async def until(probe: Probe) -> None:
    """Wait, for as long as it takes, until `probe` says yes."""
    while not await probe():  # noqa: ASYNC110 - another process changes, and no event tells
        await asyncio.sleep(1)


async def until_ready(child: Child, probe: Probe, seconds: float) -> None:
    """Wait until `probe` says yes. Raises LocalError when the process ends or the time is over."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await probe():
        if not child.running:
            raise LocalError(f"{child.name} {child.ending()} (log: {child.log})")
        if asyncio.get_running_loop().time() > deadline:
            raise LocalError(f"{child.name} is not ready after {seconds:.0f} s: see {child.log}")
        await asyncio.sleep(0.1)


async def follow(child: Child, tell: Callable[[str], None]) -> None:
    """Tell each line of its log as it comes, until the process ends."""
    told, running = 0, True
    while running:
        running = child.running
        lines = child.log.read_text(errors="replace").splitlines()
        for line in lines[told:]:
            tell(line)
        told = len(lines)
        await asyncio.sleep(0.2 if running else 0)


async def answers(port: int, path: str, seconds: float = 2.0) -> bool:
    """Whether GET http://127.0.0.1:port/path gives status 200 in time."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except OSError:  # refused, reset or, as TimeoutError, too slow
        return False
