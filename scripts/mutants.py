#!/usr/bin/env python
"""How many small faults, put into the code on purpose, do the tests find? Measured with mutmut, module by module.

\b
    .venv/bin/python scripts/mutants.py                    # every module of TARGETS: takes tens of minutes
    .venv/bin/python scripts/mutants.py circuit sse --show # these two, with the diff of each mutant that survived

It works on a copy under build/mutants, with one process, and only with the fast tests that are named here. Its tools
are installed there, too (requirements-mutation.txt).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
TOOLS = WORK / "tools"


class Target(NamedTuple):
    """A module of the package, and the tests under tests/ that speak for it."""

    module: str
    tests: tuple[str, ...]


TARGETS = {
    "circuit": Target("routing/circuit", ("unit/test_circuit", "unit/test_fleet", "properties/test_circuit")),
    "ejection": Target("routing/ejection", ("unit/test_ejection", "unit/test_fleet", "properties/test_ejection")),
    "itinerary": Target("upstream/itinerary", ("unit/test_itinerary", "unit/test_pursuit")),
    "budget": Target("upstream/budget", ("unit/test_retry_budget", "properties/test_budget")),
    "pursuit": Target("upstream/pursuit", ("unit/test_pursuit", "unit/test_hedge")),
    "sse": Target("api/sse", ("unit/test_sse", "properties/test_sse")),
}
_HELPERS = ("upstream.py", "tellings.py", "fake_edge.py")
_FOUND = frozenset({"killed", "timeout", "segfault", "suspicious", "caught by type check"})

_CONFTEST = """
import pytest
from hypothesis import Phase, settings

# What fails need not be made small, and the same examples for each mutant make the outcome repeatable.
phases = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
settings.load_profile("mutants")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
"""

_PROJECT = """
[tool.mutmut]
source_paths = ["src/"]
only_mutate = ["src/isochrone/{module}.py"]
pytest_add_cli_args_test_selection = {tests}
max_children = 1

[tool.pytest.ini_options]
pythonpath = ["."]
addopts = "--import-mode=importlib -p no:cacheprovider"
anyio_mode = "auto"
timeout = 30
"""


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option("--show", is_flag=True, help="Print the diff of every mutant that survived.")
def main(names: tuple[str, ...], show: bool) -> None:
    install_tools()
    for name in names or TARGETS:
        folder = stage(name, TARGETS[name])
        log = mutmut(folder, "run", "--max-children", "1")
        outcomes = dict(outcomes_in(mutmut(folder, "results", "--all", "true")))
        if not outcomes:
            raise click.ClickException(f"{name}: no mutant was tried; the end of mutmut's output:\n{log[-2000:]}")
        click.echo(line_of(name, Counter(outcomes.values())))
        if show:
            for mutant in (mutant for mutant, outcome in outcomes.items() if outcome not in _FOUND):
                click.echo(mutmut(folder, "show", mutant))


def install_tools() -> None:
    if not TOOLS.is_dir():
        uv = Path(sys.executable).with_name("uv")
        wanted = ("--require-hashes", "-r", ROOT / "requirements-mutation.txt")
        subprocess.run([uv, "pip", "install", "-q", "--python", sys.executable, "--target", TOOLS, *wanted], check=True)


def stage(name: str, target: Target) -> Path:
    """A copy of the package and of these tests, laid out as mutmut expects it."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "layers/core/python/isochrone", folder / "src/isochrone", ignore=compiled)
    tests = [f"tests/{test}.py" for test in target.tests]
    for path in (*tests, *(f"tests/{helper}" for helper in _HELPERS)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    (folder / "tests/conftest.py").write_text(_CONFTEST)
    (folder / "pyproject.toml").write_text(_PROJECT.format(module=target.module, tests=tests))
    return folder


def mutmut(folder: Path, *arguments: str) -> str:
    """What it prints."""
    command = ["nice", "-n", "15", sys.executable, "-m", "mutmut", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(TOOLS), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environ, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout


def outcomes_in(results: str) -> Iterator[tuple[str, str]]:
    """(mutant, outcome) for each."""
    for line in results.splitlines():
        mutant, _, outcome = line.strip().rpartition(": ")
        if mutant:
            yield mutant, outcome


def line_of(name: str, outcomes: Counter[str]) -> str:
    total = outcomes.total()
    found = sum(count for outcome, count in outcomes.items() if outcome in _FOUND)
    details = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{name:10} {total:4} mutants, {found / total:6.1%} found: {details}"


if __name__ == "__main__":
    main()
