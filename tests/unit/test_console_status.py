"""What the console needs of GET /v1/status: where backends are, and replies counted apart from its own questions."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from isochrone.api.exchange import Request
from isochrone.edge import Edge
from isochrone.settings import Settings
from isochrone.wiring import build_edge

pytestmark = pytest.mark.anyio

DOCUMENT = {
    "region": [{"name": "eu-west-1"}],
    "backend": [
        {"name": "known", "region": "eu-west-1", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}},
        {"name": "placed", "location": [10.0, 20.0], "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}},
        {"name": "anywhere", "kind": "api", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}},
    ],
    "auth": {"required": False},
    "answers": {"exact": False},
    "retry": {"attempts": 1},
}


async def ask(edge: Edge, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    reply = await edge.handle(Request(method=method, path=path, headers=headers, body=body, peer="127.0.0.1"))
    fields: dict[str, Any] = json.loads(reply.body)
    return fields


async def test_status_says_where_each_backend_is_and_counts_only_generating_requests_as_answered() -> None:
    edge = build_edge(msgspec.convert(DOCUMENT, Settings), region="eu-west-1", environ={})
    try:
        await ask(edge, "GET", "/v1/models")
        await ask(edge, "POST", "/v1/chat/completions", b"{")
        await ask(edge, "POST", "/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"?"}]}')
        status = await ask(edge, "GET", "/v1/status")
    finally:
        await edge.close()
    places = {backend["name"]: backend["location"] for backend in status["backends"]}
    assert places == {"known": [53.35, -6.26], "placed": [10.0, 20.0], "anywhere": None}
    answered = {name: count for name, count in status["counters"].items() if name.startswith("answered_")}
    assert answered == {"answered_400": 1, "answered_503": 1}
