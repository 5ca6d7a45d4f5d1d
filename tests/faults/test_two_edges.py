"""Two resident edges of one region over one real table: what one of them sees, both know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from isochrone.stores.dynamodb.client import Timeouts, connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.conftest import free_port
from tests.faults.harness import RunningEdge, backend, eventually, running_edge, settings_with
from tests.upstream import Upstream

StartEdge = Callable[[], AbstractAsyncContextManager[RunningEdge]]

SHARED_SECONDS = 10.0  # a second or two, on a machine that is busy


@asynccontextmanager
async def region(endpoint: str, *backends: dict[str, Any], **sections: Any) -> AsyncIterator[StartEdge]:
    """Tables of its own, and what starts an edge over them."""
    own = {"service": {"name": f"t{uuid4().hex[:12]}"}, "state": {"kind": "dynamodb", "endpoint_url": endpoint}}
    shared = {**own, **sections}
    patient = Timeouts(connect=10, total=60)
    async with connect("us-east-1", endpoint_url=endpoint, timeouts=patient, environ={}) as client:
        await create_tables(client, settings_with(*backends, **shared), lambda line: None)
    yield lambda: running_edge(*backends, **shared)


async def shows(edge: RunningEdge, what: str, value: Any) -> bool:
    """Does the edge's status tell that of its nearest backend?"""
    return bool((await edge.status())["backends"][0][what] == value)


@pytest.mark.cloud
async def test_backend_that_failed_one_edge_is_left_alone_by_the_other(
    ministack: str, near: Upstream, far: Upstream
) -> None:
    backends = (backend(near, "silent"), backend(far, place=1))
    async with region(ministack, *backends) as start, start() as one, start() as other:
        asks = (one.chat(messages=[{"role": "user", "content": word}]) for word in ("one", "two", "three"))
        assert [answer.status for answer in await asyncio.gather(*asks)] == [200] * 3
        asked = len(near.requests)
        await eventually(lambda: shows(other, "standing", "ejected"), within=SHARED_SECONDS)
        answer = await other.chat()
        assert (answer.headers["x-isochrone-backend"], answer.headers["x-isochrone-attempts"]) == ("pool-1", "1")
        assert len(near.requests) == asked


@pytest.mark.cloud
async def test_what_one_edge_probes_both_know_and_when_it_ends_the_other_probes(ministack: str, near: Upstream) -> None:
    near.metrics = b"vllm:num_requests_waiting 3\n"
    facts = backend(near, engine="vllm")
    async with region(ministack, facts, routing={"probe_interval": 0.2}) as start, AsyncExitStack() as stack:
        async with start() as one:
            await eventually(lambda: shows(one, "waiting", 3), within=SHARED_SECONDS)
            other = await stack.enter_async_context(start())
            await eventually(lambda: shows(other, "waiting", 3), within=SHARED_SECONDS)
        near.metrics = b"vllm:num_requests_waiting 5\n"
        await eventually(lambda: shows(other, "waiting", 5), within=SHARED_SECONDS)


async def test_edges_whose_table_is_gone_answer_as_before(near: Upstream) -> None:
    state = {"kind": "dynamodb", "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    async with running_edge(backend(near), state=state) as edge:
        answer = await edge.chat()
    assert (answer.status, len(near.requests)) == (200, 1)
