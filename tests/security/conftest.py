"""One edge with one sound backend, and a way to send it bytes that no client library would send."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Answers whatever it is asked."""
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def edge(upstream: Upstream) -> AsyncIterator[RunningEdge]:
    """Takes bodies of up to 100,000 bytes and 50 messages."""
    async with running_edge(backend(upstream), limits={"body_bytes": 100_000, "messages": 50}) as edge:
        yield edge


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged by anybody at any level, with the tracebacks, as a handler writes it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.DEBUG)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("isochrone.somewhere").debug("listening")
    assert "listening" in text.getvalue()
    yield text
    root.removeHandler(handler)
    root.setLevel(level)
