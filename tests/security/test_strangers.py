"""What somebody without a key can make an edge do: on every route only so much, and nothing from a network that is shut
out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest

from isochrone.api.exchange import Reply, Request
from isochrone.edge import Edge
from isochrone.settings import Settings
from isochrone.wiring import build_edge
from tests.security.test_every_route import DOCUMENT, SECRET

BURST = 3
# The next request of an address would be admitted after 1000 s.
LIMITS = {"per_address": {"requests_per_second": 0.001, "burst": BURST}}
STRANGER, NEIGHBOUR = "203.0.113.9", "203.0.113.10"

Opened = Callable[..., AbstractAsyncContextManager[Edge]]


@pytest.fixture
def opened() -> Opened:
    @asynccontextmanager
    async def open_(**tables: Any) -> AsyncIterator[Edge]:
        settings = msgspec.convert({**DOCUMENT, "limits": LIMITS, **tables}, Settings)
        edge = build_edge(settings, region="us-east-1", environ={}, resident=True)
        await edge.start()
        yield edge
        await edge.close()

    return open_


async def ask(
    edge: Edge, path: str = "/v1/models", *, method: str = "GET", peer: str = STRANGER, key: str = ""
) -> Reply:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    return await edge.handle(Request(method=method, path=path, headers=headers, body=body, peer=peer))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("key", ["", "guessed"])
async def test_an_address_may_be_refused_only_so_often_before_it_must_wait(
    opened: Opened, method: str, key: str
) -> None:
    path = "/v1/models" if method == "GET" else "/v1/chat/completions"
    async with opened() as edge:
        replies = [await ask(edge, path, method=method, key=key) for _ in range(BURST + 2)]
        assert [reply.status for reply in replies] == [401] * BURST + [429] * 2
        assert int(replies[-1].headers["retry-after"]) > 900
        assert (await ask(edge, peer=NEIGHBOUR)).status == 401


async def test_an_anonymous_address_may_read_only_so_often(opened: Opened) -> None:
    async with opened(auth={"required": False}) as edge:
        paths = ["/v1/models", "/v1/status", "/metrics", "/v1/ledger", "/v1/models/m"]
        assert [(await ask(edge, path)).status for path in paths] == [200] * BURST + [429] * 2


async def test_who_has_a_key_is_not_held_up_by_strangers_of_the_same_address(opened: Opened) -> None:
    address = "10.0.0.1"
    async with opened() as edge:
        for _ in range(BURST + 1):
            refused = await ask(edge, peer=address)
        assert refused.status == 429
        assert [(await ask(edge, peer=address, key=SECRET)).status for _ in range(BURST + 1)] == [200] * (BURST + 1)


async def test_metrics_are_shown_to_no_network_that_is_shut_out(opened: Opened) -> None:
    async with opened(network={"deny": ["203.0.113.0/24"]}) as edge:
        refused = await ask(edge, "/metrics")
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (403, "address_not_allowed")
        assert [(await ask(edge, path)).status for path in ("/healthz", "/readyz")] == [200, 200]
        assert (await ask(edge, "/metrics", peer="192.0.2.1")).status == 200
