"""What the front door may cost a request: CPU, and calls of tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from isochrone.background import Background
from measure_front_door import BUDGET_US, MOST_CALLS, Stores, Work, build_front, cpu_us, open_stores, whole_way

REQUESTS = 1000


@pytest.fixture
async def stores() -> AsyncIterator[Stores]:
    async with open_stores(None) as stores:
        yield stores


@pytest.fixture
async def way(stores: Stores) -> AsyncIterator[Work]:
    """A key of the directory, the guard, 20 policies, all five limits of key and tenant."""
    background = Background()
    yield partial(whole_way, build_front(stores, background, policies=20))
    await background.finish()


async def test_front_door_takes_no_more_cpu_than_is_promised(way: Work) -> None:
    # The least of several: what disturbs a measurement only ever adds to it.
    assert await cpu_us(way, 50, 10) <= BUDGET_US


async def test_hot_key_makes_the_front_door_ask_a_table_no_more_than_once_in_ten_requests(
    way: Work, stores: Stores
) -> None:
    for _ in range(REQUESTS):
        await way()
    assert 0 < sum(stores.calls.values()) <= MOST_CALLS * REQUESTS
