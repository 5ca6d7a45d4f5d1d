"""With which headers each backend is asked."""

from __future__ import annotations

from typing import Any, cast

import pytest

from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.stores.protocols import StoreUnavailable
from isochrone.upstream.credentials import Credentials
from tests.plans import plan


def backend(**more: Any) -> Backend:
    return Backend(name="pool", base_url="http://127.0.0.1:9/v1", models={"m": "m"}, **more)


def step_to(facts: Backend) -> Step:
    return plan("m", (), Fleet([facts], edge_region="us-east-1"), client=None, near="edge", now=0.0)[0]


def authorization(credentials: Credentials, facts: Backend) -> str | None:
    return credentials.headers_for(step_to(facts)).get("Authorization")


class Vault:
    """Secrets by name, or none at all while `closed`."""

    def __init__(self, **secrets: str) -> None:
        self.secrets = secrets
        self.closed = False

    async def read(self, name: str) -> str:
        if self.closed:
            raise StoreUnavailable("closed")
        return self.secrets[name]


def test_key_from_the_environment_is_sent_without_the_line_end_around_it() -> None:
    facts = backend(api_key_env="POOL_KEY")
    assert authorization(Credentials([facts], {"POOL_KEY": "abc\n"}), facts) == "Bearer abc"


def test_backend_whose_variable_is_not_set_is_asked_without_a_key_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    facts = backend(api_key_env="POOL_KEY")
    assert authorization(Credentials([facts], {}), facts) is None
    assert "POOL_KEY is not set" in caplog.text


async def test_secret_is_used_from_the_moment_it_was_read_and_replaced_when_it_changes() -> None:
    facts, vault = backend(api_key_secret="name"), Vault(name="one")
    credentials = Credentials([facts], {})
    assert authorization(credentials, facts) is None
    await credentials.fetch(vault.read)
    assert authorization(credentials, facts) == "Bearer one"
    vault.secrets["name"] = "two"
    await credentials.fetch(vault.read)
    assert authorization(credentials, facts) == "Bearer two"


async def test_secret_that_cannot_be_read_anew_leaves_the_last_one_in_use() -> None:
    facts, vault = backend(api_key_secret="name"), Vault(name="one")
    credentials = Credentials([facts], {})
    await credentials.fetch(vault.read)
    vault.closed = True
    with pytest.raises(StoreUnavailable, match="pool"):
        await credentials.fetch(vault.read)
    assert authorization(credentials, facts) == "Bearer one"


def test_only_secrets_need_secrets_manager() -> None:
    assert not Credentials([backend(api_key_env="POOL_KEY")], {"POOL_KEY": "k"}).needs_secrets
    assert Credentials([backend(api_key_secret="name")], cast("dict[str, str]", {})).needs_secrets
