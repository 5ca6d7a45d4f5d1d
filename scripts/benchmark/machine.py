"""The machine under the benchmark: its cores, what its processes use, and what stands beside the figures."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

_PROC = Path("/proc")
_PRIORITY = 10
_CPU_CLOCK_OF_PROCESS = 2


class Cores(NamedTuple):
    """Where the measured server runs at its limit, and where the load and the mock backend always run."""

    server: int
    load: int


def cores() -> Cores:
    """Two cores of those this process may use; on a machine with one, that one twice."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(server=usable[0], load=usable[-1])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started in this block runs on `core`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pid: int, core: int) -> None:
    """Every thread of a process and of its children to `core`."""
    for member in family(pid):
        for task in _PROC.glob(f"{member}/task/*"):
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), {core})


def run_in_real_time() -> bool:
    """Take precedence over all ordinary processes, here and in what is started; False where that is not allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    except OSError:
        return False
    return True


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    members = [pid]
    for member in members:
        for children in _PROC.glob(f"{member}/task/*/children"):
            with suppress(OSError):
                members += map(int, children.read_text().split())
    return members


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children, to the nanosecond (the id is what clock_getcpuclockid(3) gives)."""
    total = 0.0
    for member in family(pid):
        with suppress(OSError):
            total += time.clock_gettime(~member << 3 | _CPU_CLOCK_OF_PROCESS)
    return total


class Memory(NamedTuple):
    """Resident megabytes of a process and its children: now, and the most so far."""

    now: float
    peak: float


def memory(pid: int) -> Memory:
    """Mapped files count as far as they were touched."""
    now = peak = 0.0
    for member in family(pid):
        with suppress(OSError):
            status = dict(line.split(":", 1) for line in (_PROC / str(member) / "status").read_text().splitlines())
            now += _megabytes(status["VmRSS"])
            peak += _megabytes(status["VmHWM"])
    return Memory(now, peak)


def _megabytes(kilobytes: str) -> float:
    return int(kilobytes.split(maxsplit=1)[0]) / 1024


class Circumstances(Struct, kw_only=True):
    """What a figure is worth nothing without."""

    command: str
    date: str
    commit: str
    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load_before: float
    real_time: bool


def circumstances(root: Path, *, real_time: bool) -> Circumstances:
    """Now, here."""
    return Circumstances(
        command=_command(sys.argv[1:]),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(root),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_before=round(os.getloadavg()[0], 2),
        real_time=real_time,
    )


def _command(arguments: Sequence[str]) -> str:
    return f'make bench BENCH_ARGS="{" ".join(arguments)}"' if arguments else "make bench"


def _processor() -> str:
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit(root: Path) -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        changed = " with local changes" if git("status", "--porcelain", "--", "layers") else ""
        return (git("rev-parse", "--short", "HEAD") or "unknown") + changed
    except FileNotFoundError:
        return "unknown"
