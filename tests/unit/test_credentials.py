from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from isochrone.stores.dynamodb.credentials import (
    BotocoreCredentials,
    ContainerCredentials,
    Credentials,
    FixedCredentials,
    find_credentials,
)
from isochrone.stores.dynamodb.errors import StoreRefused
from isochrone.stores.protocols import StoreUnavailable

NOW = 1_800_000_000.0
HOUR = 3600.0


class Platform:
    """The credentials endpoint of a container or of Lambda with SnapStart."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []
        self.status = 200
        self.expires = NOW + HOUR
        self.url = ""
        self.answers = asyncio.Event()
        self.answers.set()

    async def serve(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("authorization"))
        await self.answers.wait()
        expiration = datetime.fromtimestamp(self.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": f"AK{len(self.tokens)}", "SecretAccessKey": "s", "Token": "t", "Expiration": expiration}
        return web.json_response(keys, status=self.status)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    platform = Platform()
    app = web.Application()
    app.router.add_get("/creds", platform.serve)
    async with TestServer(app, host="127.0.0.1", shutdown_timeout=0) as server:
        platform.url = str(server.make_url("/creds"))
        yield platform


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def source(platform: Platform, session: aiohttp.ClientSession) -> ContainerCredentials:
    return ContainerCredentials(session, platform.url, token="open sesame")


async def test_keys_of_the_environment_come_first(session: aiohttp.ClientSession) -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/creds",
    }
    assert await find_credentials(environ, session).get(NOW) == Credentials("AK", "secret", "token")


async def test_container_endpoint_is_asked_with_its_token(platform: Platform, session: aiohttp.ClientSession) -> None:
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": platform.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "open sesame"}
    found = await find_credentials(environ, session, emulator=True).get(NOW)
    assert found == Credentials("AK1", "s", "t", expires=NOW + HOUR)
    assert platform.tokens == ["open sesame"]


async def test_token_file_is_read_again_for_each_fetch(
    platform: Platform, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": platform.url, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file)}
    source = find_credentials(environ, session)
    for token in ("first", "second"):
        file.write_text(f"{token}\n")
        await source.get(NOW)
        source.forget()
    assert platform.tokens == ["first", "second"]


async def test_missing_token_file_is_one_clear_error(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    source = ContainerCredentials(session, "http://127.0.0.1:1/", token_file=str(tmp_path / "gone"))
    with pytest.raises(StoreUnavailable, match="gone"):
        await source.get(NOW)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the background."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.001)


async def test_keys_are_renewed_five_minutes_before_their_expiry(
    source: ContainerCredentials, platform: Platform
) -> None:
    assert [(await source.get(NOW + age)).access_key for age in (0, 1800, HOUR - 301)] == ["AK1"] * 3
    assert len(platform.tokens) == 1
    platform.expires = NOW + 2 * HOUR
    async with asyncio.timeout(10):
        while (await source.get(NOW + HOUR - 300)).access_key != "AK2":  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.001)
    assert len(platform.tokens) == 2


async def test_no_call_waits_for_a_renewal_while_its_keys_are_still_good(
    source: ContainerCredentials, platform: Platform
) -> None:
    await source.get(NOW)
    platform.answers.clear()
    assert (await source.get(NOW + HOUR - 1)).access_key == "AK1"
    assert len(platform.tokens) == 1, "the renewal has not even begun"
    await until(lambda: len(platform.tokens) == 2)
    assert (await source.get(NOW + HOUR - 1)).access_key == "AK1"


async def test_caller_that_gives_up_does_not_take_the_fetch_from_the_next(
    source: ContainerCredentials, platform: Platform
) -> None:
    platform.answers.clear()
    hasty = asyncio.create_task(source.get(NOW))
    await until(lambda: len(platform.tokens) == 1)
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    platform.answers.set()
    assert (await source.get(NOW)).access_key == "AK1"
    assert len(platform.tokens) == 1


async def test_short_lived_keys_are_not_fetched_for_every_call(
    source: ContainerCredentials, platform: Platform
) -> None:
    platform.expires = NOW + 60
    assert [(await source.get(NOW + age)).access_key for age in (0, 29)] == ["AK1", "AK1"]


async def test_callers_that_come_together_share_one_fetch(source: ContainerCredentials, platform: Platform) -> None:
    await asyncio.gather(*(source.get(NOW) for _ in range(10)))
    assert len(platform.tokens) == 1


async def test_keys_that_cannot_be_renewed_are_used_to_their_end_and_no_longer(
    source: ContainerCredentials, platform: Platform
) -> None:
    await source.get(NOW)
    platform.status = 500
    assert (await source.get(NOW + HOUR - 1)).access_key == "AK1"
    with pytest.raises(StoreUnavailable, match="answered 500"):
        await source.get(NOW + HOUR)


async def test_endpoint_that_fails_is_left_alone_for_five_seconds_and_not_asked_on_every_call(
    source: ContainerCredentials, platform: Platform
) -> None:
    platform.status = 500
    for wait in (0, 1, 4.9):
        with pytest.raises(StoreUnavailable, match="answered 500"):
            await source.get(NOW + wait)
    assert len(platform.tokens) == 1
    platform.status = 200
    assert (await source.get(NOW + 5)).access_key == "AK2"


@pytest.mark.parametrize("token", [b"\xff\xfe", b"two\nlines"])
async def test_token_file_that_cannot_be_a_token_is_one_clear_error(
    session: aiohttp.ClientSession, tmp_path: Path, token: bytes
) -> None:
    (tmp_path / "token").write_bytes(token)
    source = ContainerCredentials(session, "http://127.0.0.1:1/", token_file=str(tmp_path / "token"))
    with pytest.raises(StoreUnavailable, match="AWS credentials"):
        await source.get(NOW)


async def test_forgotten_keys_are_fetched_again(source: ContainerCredentials) -> None:
    await source.get(NOW)
    assert source.forget()
    assert (await source.get(NOW)).access_key == "AK2"


async def test_endpoint_that_is_gone_makes_the_store_unavailable(session: aiohttp.ClientSession) -> None:
    with pytest.raises(StoreUnavailable, match="AWS credentials"):
        await ContainerCredentials(session, "http://127.0.0.1:1/").get(NOW)


@pytest.mark.parametrize("url", ["http://example.com/creds", "http://169.254.169.254/", "http://10.0.0.1/"])
async def test_token_is_never_sent_in_the_clear_to_another_host(session: aiohttp.ClientSession, url: str) -> None:
    with pytest.raises(StoreRefused, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        find_credentials({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}, session)


@pytest.mark.parametrize(
    "environ",
    [
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[::1]:9001/"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://localhost:9001/"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://credentials.example.com/"},
    ],
)
async def test_platform_endpoints_are_believed(session: aiohttp.ClientSession, environ: dict[str, str]) -> None:
    assert isinstance(find_credentials(environ, session), ContainerCredentials)


async def test_emulator_gets_fixed_keys_and_never_the_laptops(session: aiohttp.ClientSession) -> None:
    source = find_credentials({}, session, emulator=True)
    assert isinstance(source, FixedCredentials)
    assert not source.forget()
    assert await source.get(NOW) == Credentials("test", "test")


async def test_laptop_profile_is_found_through_botocore(
    session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text("[work]\naws_access_key_id = AKPROFILE\naws_secret_access_key = s\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "work")
    source = find_credentials({}, session)
    assert isinstance(source, BotocoreCredentials)
    assert (await source.get(NOW)).access_key == "AKPROFILE"


async def test_profile_that_does_not_exist_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefused, match="nobody"):
        await BotocoreCredentials().get(NOW)


async def test_without_keys_and_without_botocore_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(StoreRefused, match="set AWS_ACCESS_KEY_ID"):
        await BotocoreCredentials().get(NOW)


def test_printed_credentials_do_not_show_the_secret() -> None:
    shown = repr(Credentials("AK", "the secret", "the token"))
    assert "AK" in shown
    assert "the " not in shown
