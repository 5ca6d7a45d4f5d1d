"""How the limits of an edge are put together, and where notices go."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from isochrone.admission.limits.limiter import Limiter
from isochrone.background import Background
from isochrone.limits_wiring import build_forecast, build_limiter
from isochrone.settings import (
    Backend,
    Limits,
    Model,
    OwnLimits,
    Price,
    Region,
    Settings,
    SettingsError,
    Tenant,
)
from isochrone.stores.memory import MemoryFleetStore
from tests.limits import key

BACKENDS = tuple(
    Backend(name=name, base_url="http://127.0.0.1:1/v1", models={"m": "m"}, price=Price(input=price, output=price))
    for name, price in (("dear", 3.0), ("cheap", 1.0))
)


def settings_with(**more: Any) -> Settings:
    regions = (Region(name="eu-west-1"), Region(name="us-east-1", default=True))
    return Settings(region=regions, backend=BACKENDS, **more)


def built(settings: Settings, background: Background, *, shared: bool = True) -> tuple[Limiter, list[str], Any]:
    own, far, counts = MemoryFleetStore(), MemoryFleetStore(), list[str]()
    limiter = build_limiter(
        settings, "eu-west-1", own if shared else None, (lambda region: far) if shared else None, background,
        holder=lambda: "me", count=counts.append,
    )  # fmt: skip
    return limiter, counts, (own, far)


async def test_minutes_are_counted_at_home_and_months_in_the_main_region() -> None:
    tenants = (Tenant(name="t", requests_per_minute=5, requests_per_day=50),)
    limiter, _, (own, far) = built(settings_with(tenant=tenants), Background())
    await limiter.admit(key(), "", "m")
    assert [name.split("/")[1] for name in own._counters] == ["short"]
    assert [name.split("/")[1] for name in far._counters] == ["long"]


async def test_places_are_leased_in_the_own_region_and_come_back() -> None:
    models = (Model(name="m", limits=OwnLimits(concurrency=1)),)
    limiter, counts, (own, _) = built(settings_with(model=models), Background())
    admitted = await limiter.admit(key(), "", "m")
    assert [name.split("/")[:2] for name in own._documents] == [["slots", "limit"]]
    with pytest.raises(Exception, match="concurrency = 1 of model 'm'"):
        await limiter.admit(key(), "", "m")
    assert counts == ["limited_concurrency"]
    admitted.close()
    await limiter.admit(key(), "", "m")
    await limiter.close()


async def test_without_a_table_a_process_keeps_its_limits_by_itself() -> None:
    models = (Model(name="m", limits=OwnLimits(requests_per_minute=2, concurrency=2)),)
    limiter, _, _ = built(settings_with(model=models), Background(), shared=False)
    for _ in range(2):
        await limiter.admit(key(), "", "m")
    with pytest.raises(Exception, match="requests_per_minute = 2"):
        await limiter.admit(key(), "", "m")
    await limiter.close()


def test_the_cheapest_backend_says_what_a_request_is_likely_to_cost() -> None:
    assert build_forecast(settings_with()).of("m", 500_000, most=500_000).dollars == 1.0


def test_a_notify_url_that_leads_inside_is_an_error_of_the_configuration() -> None:
    with pytest.raises(SettingsError, match=r"limits\.notify_url: "):
        built(settings_with(limits=Limits(notify_url="https://169.254.169.254/latest")), Background())


@pytest.mark.parametrize(("status", "words"), [(204, None), (500, "answered with 500")])
async def test_a_notice_is_posted_once_and_a_failure_is_one_line_in_the_log(
    status: int, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append(await request.json())
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/budget", hear)
    async with TestServer(app, host="127.0.0.1") as server:
        background = Background()
        settings = settings_with(limits=Limits(notify_url=str(server.make_url("/budget"))))
        limiter, counts, _ = built(settings, background)
        with caplog.at_level(logging.WARNING, "isochrone"):
            (await limiter.admit(key("a", requests_per_day=2), "", "m")).close()
            await background.finish()
    assert [(notice["level"], notice["scope"]) for notice in heard] == [(50, "key 'a'")]
    assert counts == ["budget_notices"]
    told = [record.message for record in caplog.records if "notify_url" in record.message]
    assert len(told) == (words is not None) and all(words in line for line in told if words)


async def test_an_address_that_nobody_answers_at_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    background = Background()
    limiter, _, _ = built(settings_with(limits=Limits(notify_url="http://127.0.0.1:9/hooks/T0/canary")), background)
    with caplog.at_level(logging.WARNING, "isochrone"):
        (await limiter.admit(key("a", requests_per_day=2), "", "m")).close()
        await background.finish()
        await asyncio.sleep(0)
    (line,) = [line for line in caplog.messages if "notify_url" in line]
    assert "was not delivered: 127.0.0.1: no connection" in line
    assert "canary" not in caplog.text  # the path of a webhook is all that keeps others out
