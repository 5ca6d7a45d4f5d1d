"""Who a caller is, by address: one value for location, allow-list and status, that a caller cannot choose."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.faults.harness import backend, running_edge
from tests.upstream import Upstream

KEY = {"id": "k", "tenant": "t", "sha256": sha256(b"the-key").hexdigest(), "networks": ["203.0.113.0/24"]}
BEARER = {"authorization": "Bearer the-key"}


async def test_forwarded_address_is_believed_from_a_trusted_peer_only(upstream: Upstream) -> None:
    forwarded = {"x-forwarded-for": "203.0.113.9"}
    async with running_edge(backend(upstream)) as edge:
        believed = await edge.request("GET", "/v1/status", headers=forwarded)
        assert believed.fields["client"]["address"] == "203.0.113.9"
    async with running_edge(backend(upstream), geo={"trusted_proxies": ["10.0.0.0/8"]}) as edge:
        doubted = await edge.request("GET", "/v1/status", headers=forwarded)
        assert doubted.fields["client"]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "header", ["x-real-ip", "forwarded", "cf-connecting-ip", "true-client-ip", "x_forwarded_for", "x-client-ip"]
)
async def test_no_other_header_names_the_client(upstream: Upstream, header: str) -> None:
    async with running_edge(backend(upstream)) as edge:
        answer = await edge.request("GET", "/v1/status", headers={header: "203.0.113.9"})
        assert answer.fields["client"]["address"] == "127.0.0.1"


async def test_header_sent_twice_counts_from_the_right(upstream: Upstream) -> None:
    async with running_edge(backend(upstream)) as edge:
        headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")]
        answer = await edge.request("GET", "/v1/status", headers=headers)
        assert answer.fields["client"]["address"] == "198.51.100.7"


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("203.0.113.9", 200),
        ("[::ffff:203.0.113.9]:443", 200),
        ("198.51.100.7", 403),
        ("203.0.113.9, 198.51.100.7", 403),
        ("203.0.113.9, unknown", 403),
        ("nonsense", 403),
    ],
)
async def test_key_with_networks_is_refused_from_anywhere_else(upstream: Upstream, forwarded: str, status: int) -> None:
    async with running_edge(backend(upstream), key=[KEY], auth={"required": True}) as edge:
        answer = await edge.chat(headers={**BEARER, "x-forwarded-for": forwarded})
        assert answer.status == status
        assert len(upstream.requests) == (status == 200)


async def test_secrets_appear_in_no_reply(upstream: Upstream) -> None:
    facts = backend(upstream, "unauthorized", api_key_env="POOL_KEY")
    async with running_edge(facts, key=[KEY], auth={"required": True}) as edge:
        headers = {**BEARER, "x-forwarded-for": "203.0.113.9"}
        replies = [await edge.chat(headers=headers), await edge.chat(headers={"authorization": "Bearer guessed-key"})]
        replies += [await edge.request("GET", path, headers=headers) for path in ("/v1/status", "/v1/ledger")]
        replies.append(await edge.request("GET", "/metrics"))
        seen = b"".join(reply.body + repr(reply.headers).encode() for reply in replies)
        for secret in (b"the-key", b"pool-secret", b"guessed-key", KEY["sha256"].encode()):  # type: ignore[attr-defined]
            assert secret not in seen


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/v1/status", "/v1/ledger"])
async def test_every_route_that_tells_something_wants_a_key(upstream: Upstream, path: str) -> None:
    async with running_edge(backend(upstream), key=[KEY], auth={"required": True}) as edge:
        answer = await edge.request("GET", path)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
