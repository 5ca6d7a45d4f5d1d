"""Two scripted upstreams for every test that asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.upstream import Upstream


@pytest.fixture
async def near() -> AsyncIterator[Upstream]:
    """The backend that a plan asks first."""
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def far() -> AsyncIterator[Upstream]:
    """The backend that a plan asks second."""
    async with Upstream() as upstream:
        yield upstream
