"""The entrance for all doors: whatever happens inside, a reply in one shape comes out."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from isochrone.api.exchange import Reply, Request
from isochrone.edge import Edge
from isochrone.settings import Settings, SettingsError
from isochrone.stores.protocols import StoreUnavailable
from isochrone.wiring import build_edge

DOCUMENT: dict[str, Any] = {
    "region": [{"name": "us-east-1"}],
    "backend": [{"name": "b", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m", "org/m:7b": "m"}}],
    "auth": {"required": False},
}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = build_edge(msgspec.convert(DOCUMENT, Settings), region="us-east-1", environ={})
    await edge.start()
    yield edge
    await edge.close()


def asked(path: str, method: str = "GET", **more: Any) -> Request:
    return Request(**{"method": method, "path": path, "headers": {}, "body": b"", "peer": "203.0.113.9", **more})


def error_of(reply: Reply) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(reply.body)["error"]
    return error


async def test_mistake_inside_is_a_500_that_says_nothing_about_our_insides(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(edge.pipeline.rooms.front, "identify", fail)
    reply = await edge.handle(asked("/v1/models"))
    assert (reply.status, error_of(reply)["type"]) == (500, "server_error")
    assert b"secret" not in reply.body
    assert "secret detail" in caplog.text
    assert reply.headers["x-request-id"] in caplog.text


async def test_callers_request_id_comes_back_and_an_ill_formed_one_is_replaced(edge: Edge) -> None:
    assert (await edge.handle(asked("/healthz", headers={"x-request-id": "mine-1"}))).headers[
        "x-request-id"
    ] == "mine-1"
    own = (await edge.handle(asked("/healthz", headers={"x-request-id": "a b"}))).headers["x-request-id"]
    assert own != "a b"
    assert len(own) == 32


async def test_work_that_hangs_keeps_a_flush_from_nothing_else(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda ends a flush when its time is over; places that are not given back until then are lost for seconds."""
    hang, chores = asyncio.Event(), asyncio.Event()

    async def do_chores() -> None:
        chores.set()

    edge._background.start(hang.wait())
    monkeypatch.setattr(edge, "_on_flush", do_chores)
    flush = asyncio.create_task(edge.flush())
    await chores.wait()
    assert not flush.done()
    hang.set()
    await flush


async def test_model_is_found_by_a_name_with_slashes_and_escapes(edge: Edge) -> None:
    for path in ("/v1/models/org/m:7b", "/v1/models/org%2Fm%3A7b"):
        assert json.loads((await edge.handle(asked(path))).body)["id"] == "org/m:7b"
    assert (await edge.handle(asked("/v1/models/"))).status == 404


async def test_readiness_follows_the_edges_life(edge: Edge) -> None:
    assert (await edge.handle(asked("/readyz"))).status == 200
    edge.ready = False
    assert (await edge.handle(asked("/readyz"))).status == 503
    assert (await edge.handle(asked("/healthz"))).status == 200


async def test_status_tells_the_client_as_the_edge_sees_it(edge: Edge) -> None:
    request = asked("/v1/status", headers={"x-forwarded-for": "198.51.100.7"}, trust_forwarded=False)
    status = json.loads((await edge.handle(request)).body)
    assert status["client"]["address"] == "203.0.113.9"
    assert status["edge"] == "us-east-1"
    assert status["backends"][0]["standing"] == "healthy"


async def test_ledger_that_cannot_be_read_is_said_and_everything_else_goes_on(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(tenant: str, *, limit: int) -> list[dict[str, Any]]:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(edge.pipeline.rooms.book, "recent", gone)
    reply = await edge.handle(asked("/v1/ledger"))
    assert error_of(reply)["code"] == "ledger_unavailable"
    assert (await edge.handle(asked("/v1/models"))).status == 200


async def test_body_beyond_the_limit_is_refused_at_any_door(edge: Edge) -> None:
    body = b"x" * (edge.pipeline.settings.limits.body_bytes + 1)
    reply = await edge.handle(asked("/v1/chat/completions", "POST", body=body))
    assert (reply.status, error_of(reply)["code"]) == (413, "body_too_large")


async def test_platforms_remaining_time_bounds_a_request(edge: Edge) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    reply = await edge.handle(asked("/v1/chat/completions", "POST", body=body, time_left=0.0))
    assert (reply.status, error_of(reply)["code"]) == (504, "deadline_passed")


def test_region_that_is_not_configured_is_one_line() -> None:
    with pytest.raises(SettingsError, match="'mars-1' is not in the configuration; it has us-east-1"):
        build_edge(msgspec.convert(DOCUMENT, Settings), region="mars-1", environ={})


async def test_location_database_that_cannot_be_used_is_one_line_and_leaves_nothing_open() -> None:
    settings = msgspec.convert({**DOCUMENT, "geo": {"database": "absent.mmdb"}}, Settings)
    with pytest.raises(SettingsError, match=r"geo\.database: absent\.mmdb: "):
        build_edge(settings, region="us-east-1", environ={})
    gc.collect()  # an open session would say so now, and warnings are errors here


async def test_an_edge_whose_audit_log_cannot_be_written_does_not_start() -> None:
    settings = msgspec.convert({**DOCUMENT, "audit": {"to": "file", "folder": "/dev/null/x"}}, Settings)
    with pytest.raises(SettingsError, match=r"audit\.folder: nothing can be written in /dev/null/x: Not a directory"):
        build_edge(settings, region="us-east-1", environ={})
