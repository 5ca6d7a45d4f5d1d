"""The load generator, the mock backend and the spinner: C, compiled when they are first needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmark.errors import BenchError

_SOURCES = Path(__file__).with_name("native")


class Tools(NamedTuple):
    """Paths of the programs."""

    mock_backend: Path
    load: Path
    spin: Path


def build_tools(folder: Path) -> Tools:
    """The programs in `folder`, compiled anew where a source is newer. Raises BenchError."""
    if sys.platform != "linux":
        raise BenchError("make bench needs Linux: the load generator is written for epoll")
    folder.mkdir(parents=True, exist_ok=True)
    return Tools(*(_build(name, folder) for name in Tools._fields))


def _build(name: str, folder: Path) -> Path:
    program, source = folder / name, _SOURCES / f"{name}.c"
    newest = max(source.stat().st_mtime, (_SOURCES / "common.h").stat().st_mtime)
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchError("make bench needs a C compiler for its load generator: install gcc or clang")
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or "nothing"
        raise BenchError(f"{compiler} could not compile {source.name}; it said: {said.splitlines()[0]}")
    return program
