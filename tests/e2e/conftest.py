"""The local edition, once for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from tests.e2e.running import PORTS, Run, free_block


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Starts `scripts/run.py` with more options; stopped with the session."""
    runs: list[Run] = []

    def start_one(*options: str, folder: Path | None = None, ports: int | None = None) -> Run:
        place = folder or tmp_path_factory.mktemp("edition") / "run"
        runs.append(Run(place, ports or free_block(PORTS), *options))
        return runs[-1]

    yield start_one
    for run in runs:
        run.stop()


@pytest.fixture(scope="session")
def edition(start: Callable[..., Run]) -> Run:
    """A local edition that is ready."""
    run = start()
    run.wait_for("Isochrone is ready")
    run.wait_for("Logs:")
    return run


@pytest.fixture
def client_of(edition: Run) -> Iterator[Callable[[int], openai.OpenAI]]:
    """openai-python, unmodified, pointed at an edge."""
    with ExitStack() as closing:

        def make(number: int) -> openai.OpenAI:
            url = f"{edition.edge(number).url}/v1"
            return closing.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0))

        yield make
