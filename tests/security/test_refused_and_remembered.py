"""Whoever is refused is remembered: from where, and who it was as far as that was known, wherever it ended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from isochrone.api.errors import BadRequest, BodyTooSlow
from isochrone.api.exchange import Request
from isochrone.api.trail import Trail
from isochrone.edge import Edge
from isochrone.routing.geo import Location
from isochrone.settings import Settings
from isochrone.wiring import build_edge

KEY = {"tenant": "t"}
DOCUMENT: dict[str, Any] = {
    "region": [{"name": "us-east-1"}],
    "backend": [{"name": "b", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}}],
    "key": [
        {**KEY, "id": "inside", "sha256": sha256(b"inside").hexdigest(), "networks": ["10.0.0.0/8"]},
        {**KEY, "id": "over", "sha256": sha256(b"over").hexdigest(), "expires": "2020-01-01T00:00:00Z"},
    ],
    "network": {"deny": ["198.51.100.0/24"]},
    "geo": {"trusted_proxies": ["192.0.2.1/32"]},
}


class Everywhere:
    """Every address is in France."""

    def locate(self, address: str) -> Location | None:
        return Location(48.9, 2.4, "FR")


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    monkeypatch.setattr("isochrone.wiring.locator_of", lambda *_: Everywhere())
    edge = build_edge(msgspec.convert(DOCUMENT, Settings), region="us-east-1", environ={}, resident=True)
    await edge.start()
    yield edge
    await edge.close()


async def remembered(edge: Edge, **fields: Any) -> Trail:
    asked = {"method": "GET", "path": "/v1/models", "headers": {}, "body": b"", "peer": "203.0.113.9", **fields}
    request = Request(**asked)
    reply = await edge.handle(request)
    assert reply.status == request.trail.status >= 400
    return request.trail


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "/nowhere"},
        {"path": "/v1/../models"},
        {"path": "/v1/%2e%2e/models"},
        {"path": "/" + "x" * 9000},
        {"method": "PUT"},
        {"headers": {f"x-{n}": "" for n in range(200)}},
        {"headers": {"x": "y" * 40_000}},
        {"flaw": BodyTooSlow("The body came too slowly.")},
        {"flaw": BadRequest("Speak HTTP/1.1."), "path": ""},
        {"headers": {"authorization": "Bearer guessed"}},
        {},
    ],
)
async def test_who_is_refused_before_anybody_knows_who_it_is_has_an_address_and_a_country(
    edge: Edge, fields: dict[str, Any]
) -> None:
    trail = await remembered(edge, **fields)
    assert (trail.address, trail.country, trail.key_id) == ("203.0.113.9", "FR", None)


async def test_who_is_refused_unread_has_the_address_that_a_trusted_proxy_saw(edge: Edge) -> None:
    headers = {"x-forwarded-for": "127.0.0.1, 203.0.113.7", "x_forwarded_for": "10.0.0.1"}
    for flaw in (None, BodyTooSlow("The body came too slowly.")):
        trail = await remembered(edge, headers=headers, peer="192.0.2.1", path="//", flaw=flaw)
        assert trail.address == "203.0.113.7"


@pytest.mark.parametrize(
    ("secret", "peer", "code", "key_id"),
    [
        ("inside", "203.0.113.9", "address_not_allowed", "inside"),
        ("over", "203.0.113.9", "expired_api_key", "over"),
        ("inside", "198.51.100.1", "address_not_allowed", None),  # refused before any key is looked at
    ],
)
async def test_a_known_key_that_is_refused_is_remembered_by_its_name(
    edge: Edge, secret: str, peer: str, code: str, key_id: str | None
) -> None:
    trail = await remembered(edge, headers={"authorization": f"Bearer {secret}"}, peer=peer)
    assert (trail.verdict, trail.reason, trail.key_id) == ("denied", code, key_id)
    assert trail.tenant == ("t" if key_id else None)


async def test_what_a_caller_writes_where_a_parameter_belongs_is_remembered_only_if_it_says_how_to_generate(
    edge: Edge,
) -> None:
    said = {
        "temperature": 0.5,
        "max_tokens": 9,
        "stream": False,
        "reasoning_effort": "low",
        "seed": "13800138000",
        "n": None,
    }
    body = json.dumps({"model": "none", "messages": [{"role": "user", "content": "hi"}], **said}).encode()
    headers = {"authorization": "Bearer inside"}
    asked = {"method": "POST", "path": "/v1/chat/completions", "peer": "10.0.0.1"}
    trail = await remembered(edge, body=body, headers=headers, **asked)
    assert trail.parameters == {"temperature": 0.5, "max_tokens": 9, "stream": False, "reasoning_effort": "low"}
    for odd in ("my name is Ann", "张三", {"a": "b"}, ["x"], "x" * 21, "a@b.co"):
        body = json.dumps({"model": "none", "input": "hi", "reasoning_effort": odd, "temperature": odd}).encode()
        trail = await remembered(edge, body=body, headers=headers, **asked | {"path": "/v1/embeddings"})
        assert trail.parameters == {}
