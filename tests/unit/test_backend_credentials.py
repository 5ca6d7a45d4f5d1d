"""With which headers each backend is asked, and what becomes of them when a key is rotated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isochrone.background import Background
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.stores.protocols import StoreUnavailable
from isochrone.upstream.credentials import RENEW_SECONDS, Credentials
from tests.plans import plan


def backend(**more: Any) -> Backend:
    return Backend(name="pool", base_url="http://127.0.0.1:9/v1", models={"m": "m"}, **more)


def step_to(facts: Backend) -> Step:
    return plan("m", (), Fleet([facts], edge_region="us-east-1"), client=None, near="edge", now=0.0)[0]


FACTS = backend(api_key_secret="name")
STEP = step_to(FACTS)


class Keeper:
    """Keeps the key of every backend, and gives none while `closed`. `reads` counts who asked."""

    def __init__(self, key: str = "one") -> None:
        self.key = key
        self.closed = False
        self.reads = 0

    async def read(self, facts: Backend) -> str:
        self.reads += 1
        await asyncio.sleep(0)
        if self.closed:
            raise StoreUnavailable("closed")
        return self.key


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def credentials_of(facts: Backend, keeper: Keeper, clock: Clock | None = None, **environ: str) -> Credentials:
    return Credentials([facts], environ, read=keeper.read, background=Background(), clock=clock or Clock())


def authorization(credentials: Credentials, facts: Backend = FACTS) -> str | None:
    return credentials.headers_for(step_to(facts)).get("Authorization")


async def after_refusal(credentials: Credentials) -> str | None:
    """The key to try next when the one in use was refused."""
    others = await credentials.headers_after_refusal(STEP, credentials.headers_for(STEP))
    return others["Authorization"] if others else None


def test_key_from_the_environment_is_sent_without_the_line_end_around_it() -> None:
    facts = backend(api_key_env="POOL_KEY")
    assert authorization(credentials_of(facts, Keeper(), POOL_KEY="abc\n"), facts) == "Bearer abc"


def test_backend_whose_variable_is_not_set_is_asked_without_a_key_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    facts = backend(api_key_env="POOL_KEY")
    assert authorization(credentials_of(facts, Keeper()), facts) is None
    assert "POOL_KEY is not set" in caplog.text


async def test_secret_is_used_from_the_moment_it_was_read_and_replaced_when_it_changes() -> None:
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    assert authorization(credentials) is None
    await credentials.fetch()
    assert authorization(credentials) == "Bearer one"
    keeper.key = "two"
    await credentials.fetch()
    assert authorization(credentials) == "Bearer two"


async def test_secret_that_cannot_be_read_anew_leaves_the_last_one_in_use() -> None:
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.closed = True
    with pytest.raises(StoreUnavailable, match="pool"):
        await credentials.fetch()
    assert authorization(credentials) == "Bearer one"


@pytest.mark.parametrize(
    ("where", "needed"),
    [({"api_key_env": "K"}, False), ({"api_key_secret": "name"}, True), ({"api_key_parameter": "/name"}, True)],
)
def test_only_keys_that_are_kept_elsewhere_have_to_be_read(where: dict[str, str], needed: bool) -> None:
    assert credentials_of(backend(**where), Keeper(), K="k").needs_secrets is needed


async def test_refused_key_is_read_anew_at_once_and_the_new_one_is_there_to_try() -> None:
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.key = "two"
    assert await after_refusal(credentials) == "Bearer two"
    assert authorization(credentials) == "Bearer two"


async def test_all_who_were_refused_at_once_share_one_read() -> None:
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.key, keeper.reads = "two", 0
    refused = credentials.headers_for(STEP)
    found = await asyncio.gather(*(credentials.headers_after_refusal(STEP, refused) for _ in range(50)))
    assert [headers and headers["Authorization"] for headers in found] == ["Bearer two"] * 50
    assert keeper.reads == 1


async def test_backend_that_refuses_every_key_costs_one_read_in_half_a_minute() -> None:
    keeper, clock = Keeper(), Clock()
    credentials = credentials_of(FACTS, keeper, clock)
    await credentials.fetch()
    keeper.reads = 0
    for clock.now in (0.0, 1.0, RENEW_SECONDS - 0.1, RENEW_SECONDS):
        assert await after_refusal(credentials) is None
    assert keeper.reads == 2


async def test_new_key_that_the_backend_does_not_take_yet_leaves_the_old_one_in_use() -> None:
    """The operator put it in too early: the next fetch brings it again, and must not break what works."""
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.key = "two"
    await credentials.fetch()
    assert await after_refusal(credentials) == "Bearer one"
    await credentials.fetch()
    assert authorization(credentials) == "Bearer one"


async def test_new_key_is_tried_again_once_the_old_one_is_refused() -> None:
    keeper, clock = Keeper(), Clock()
    credentials = credentials_of(FACTS, keeper, clock)
    await credentials.fetch()
    keeper.key = "two"
    await credentials.fetch()
    await after_refusal(credentials)
    clock.now = RENEW_SECONDS
    assert await after_refusal(credentials) == "Bearer two"


async def test_key_that_cannot_be_read_anew_leaves_the_one_before_it_to_try() -> None:
    keeper = Keeper()
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.key = "two"
    await credentials.fetch()
    keeper.closed = True
    assert await after_refusal(credentials) == "Bearer one"


async def test_key_of_the_environment_that_is_refused_has_no_other() -> None:
    facts = backend(api_key_env="K")
    credentials, step = credentials_of(facts, Keeper(), K="k"), step_to(facts)
    assert await credentials.headers_after_refusal(step, credentials.headers_for(step)) is None


async def test_keys_are_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    keeper = Keeper("old-canary")
    credentials = credentials_of(FACTS, keeper)
    await credentials.fetch()
    keeper.key = "new-canary"
    await after_refusal(credentials)
    keeper.closed = True
    with pytest.raises(StoreUnavailable):
        await credentials.fetch()
    assert "refused its key" in caplog.text
    assert "canary" not in caplog.text
