"""Nothing is open that does not say so: every route that there is, and every method, asked by nobody in particular."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from isochrone.admission.policies import Decision
from isochrone.api.exchange import Request
from isochrone.edge import Edge
from isochrone.settings import Settings
from isochrone.wiring import build_edge

SECRET = "k-" + "7" * 43
DOCUMENT: dict[str, Any] = {
    "region": [{"name": "us-east-1"}],
    "backend": [{"name": "b", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}}],
    "key": [
        {"id": "k", "sha256": sha256(SECRET.encode()).hexdigest(), "tenant": "t", "networks": ["10.0.0.0/8"]},
    ],
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = {"/healthz", "/readyz", "/metrics"}
CONTENTS: dict[str, dict[str, Any]] = {"/v1/completions": {"prompt": "hi"}, "/v1/embeddings": {"input": "hi"}}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = build_edge(msgspec.convert(DOCUMENT, Settings), region="us-east-1", environ={}, resident=True)
    await edge.start()
    yield edge
    await edge.close()


def asked(path: str, method: str, authorization: str | None = None, peer: str = "203.0.113.9") -> Request:
    headers = {"authorization": authorization} if authorization else {}
    body = json.dumps({"model": "m", **CONTENTS.get(path, CHAT)}).encode()
    return Request(method=method, path=path.format(id="m"), headers=headers, body=body, peer=peer)


async def test_paths_are_those_that_are_known() -> None:
    edge = build_edge(msgspec.convert(DOCUMENT, Settings), region="us-east-1", environ={}, resident=True)
    await edge.start()
    try:
        for path in edge.paths:
            statuses = {(await edge.handle(asked(path, method))).status for method in METHODS}
            assert statuses - {404}, path
    finally:
        await edge.close()


@pytest.mark.parametrize("authorization", [None, "Bearer guessed", "Basic azpr", "Bearer", f"Token {SECRET}"])
async def test_every_route_but_the_open_ones_refuses_whom_it_does_not_know(
    edge: Edge, authorization: str | None
) -> None:
    answered = {}
    for path in edge.paths:
        for method in METHODS:
            reply = await edge.handle(asked(path, method, authorization))
            answered[path, method] = reply.status
    open_ones = {path for (path, _), status in answered.items() if status not in (401, 405)}
    assert open_ones == OPEN
    assert {status for (path, _), status in answered.items() if path not in OPEN} == {401, 405}


async def test_every_route_but_the_open_ones_refuses_a_known_key_from_another_network(edge: Edge) -> None:
    for path in set(edge.paths) - OPEN:
        for method in METHODS:
            reply = await edge.handle(asked(path, method, f"Bearer {SECRET}"))
            assert reply.status in (403, 405), (path, method)


class _Unread:
    """Policies of a directory that could not be read yet."""

    is_known = False
    asks_tokens = False

    async def refresh(self, *, max_age: float = 0.0) -> None:
        pass

    def decide(self, *_: Any, **__: Any) -> Decision:
        return Decision(True, None, "must not be asked")

    def status(self) -> dict[str, Any]:
        return {}


async def test_every_route_but_the_open_ones_says_when_nobody_can_tell_what_is_allowed(edge: Edge) -> None:
    edge.pipeline.rooms.front.policies = _Unread()
    for path in set(edge.paths) - OPEN:
        for method in METHODS:
            reply = await edge.handle(asked(path, method, f"Bearer {SECRET}", "10.0.0.1"))
            assert reply.status in (503, 405), (path, method)
            if reply.status == 503:
                assert json.loads(reply.body)["error"]["code"] == "policies_unavailable"
                assert reply.headers["retry-after"] == "2"


async def test_known_key_is_let_in_where_the_others_are_not(edge: Edge) -> None:
    for path in set(edge.paths) - OPEN:
        statuses = {(await edge.handle(asked(path, m, f"Bearer {SECRET}", "10.0.0.1"))).status for m in METHODS}
        assert not statuses & {401, 403}, path


async def test_what_no_route_serves_tells_nothing(edge: Edge) -> None:
    for path in ("/", "/v1", "/v1/", "/admin/keys", "/v1/models/../ledger", "//v1/ledger", "/V1/ledger", "/metrics/"):
        assert (await edge.handle(asked(path, "GET"))).status in (401, 404), path
