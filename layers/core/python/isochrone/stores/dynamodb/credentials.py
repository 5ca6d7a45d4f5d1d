"""Where the keys that sign requests come from.

In this order: the environment (Lambda); the container endpoint (Lambda with SnapStart, ECS, EKS pod identity); fixed
ones that every emulator takes, when an emulator is called; botocore's chain (profiles, SSO, instance role), if it is
installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec
from yarl import URL

from isochrone.stores.dynamodb.errors import StoreRefused
from isochrone.stores.protocols import StoreUnavailable

REFRESH_BEFORE_SECONDS = 300
_TRY_AGAIN_SECONDS = 5
_ENDPOINT_SECONDS = 1.0
_ECS_ENDPOINT = "http://169.254.170.2"
_LINK_LOCAL = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})


class Credentials(NamedTuple):
    """One set of keys; `expires` is epoch seconds."""

    access_key: str
    secret_key: str
    token: str | None = None
    expires: float = inf

    def __repr__(self) -> str:
        return f"Credentials({self.access_key})"


class CredentialSource(Protocol):
    """Gives keys that are valid at `now` (epoch seconds), or raises StoreUnavailable."""

    async def get(self, now: float) -> Credentials: ...

    def forget(self) -> bool:
        """Drop what was kept (AWS refused it); True when the next `get` may bring others."""


class FixedCredentials:
    """Keys that stay the same as long as the process lives."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self, now: float) -> Credentials:
        return self._credentials

    def forget(self) -> bool:
        return False


class _Refreshed:
    """Keys that are fetched again some time before they expire: once for all callers, who wait only without good keys.

    The fetch goes on when a caller gives up, and a failure is remembered for a moment: else each call in turn would
    wait for a source that hangs, or never see the keys of a slow one.
    """

    def __init__(self) -> None:
        self._kept: Credentials | None = None
        self._refresh_at = -inf
        self._refreshing: asyncio.Task[None] | None = None
        self._failure: StoreUnavailable | None = None

    async def get(self, now: float) -> Credentials:
        if now >= self._refresh_at and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(now))
        if self._refreshing and not self._good_at(now):
            await asyncio.shield(self._refreshing)
        if self._kept and (self._failure is None or self._good_at(now)):
            return self._kept
        failure = self._failure or StoreUnavailable("AWS credentials: refused again as soon as they were fetched")
        raise failure.with_traceback(None)

    def _good_at(self, now: float) -> bool:
        return self._kept is not None and now < self._kept.expires

    def forget(self) -> bool:
        self._kept = None
        self._refresh_at = -inf
        return True

    async def _refresh(self, now: float) -> None:
        try:
            fresh = await self._fetch(now)
        except StoreUnavailable as failure:
            self._failure = failure
            self._refresh_at = now + _TRY_AGAIN_SECONDS
        else:
            self._kept, self._failure = fresh, None
            self._refresh_at = fresh.expires - min(REFRESH_BEFORE_SECONDS, (fresh.expires - now) / 2)
        finally:
            self._refreshing = None

    async def _fetch(self, now: float) -> Credentials:
        raise NotImplementedError


class _Served(msgspec.Struct):
    AccessKeyId: str
    SecretAccessKey: str
    Token: str
    Expiration: datetime


class ContainerCredentials(_Refreshed):
    """Keys from the platform's local endpoint. `token` is its Authorization header, `token_file` a file with it."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, token: str | None = None, token_file: str | None = None
    ) -> None:
        super().__init__()
        self._session = session
        self._url = URL(url)
        self._token = token
        self._token_file = token_file
        if not _may_have_the_token(self._url):
            raise StoreRefused(
                f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {url} is neither https nor an address of this host"
            )

    async def _fetch(self, now: float) -> Credentials:
        timeout = aiohttp.ClientTimeout(total=_ENDPOINT_SECONDS)
        try:
            async with self._session.get(
                self._url, headers=self._headers(), timeout=timeout, allow_redirects=False
            ) as response:
                body = await response.read()
            if response.status != 200:
                raise StoreUnavailable(f"AWS credentials: {self._url} answered {response.status}")
            served = msgspec.json.decode(body, type=_Served)
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            raise StoreUnavailable(f"AWS credentials: {self._url}: {error or type(error).__name__}") from None
        return Credentials(
            served.AccessKeyId, served.SecretAccessKey, served.Token, expires=served.Expiration.timestamp()
        )

    def _headers(self) -> dict[str, str]:
        # The file is read each time: EKS replaces it while the process runs.
        token = Path(self._token_file).read_text(encoding="utf-8").strip() if self._token_file else self._token
        return {"Authorization": token} if token else {}


class BotocoreCredentials(_Refreshed):
    """Keys from botocore's chain, for a laptop. Asked again every few minutes; botocore itself renews them."""

    async def _fetch(self, now: float) -> Credentials:
        found = await asyncio.to_thread(_ask_botocore)
        return found._replace(expires=now + 2 * REFRESH_BEFORE_SECONDS)


def find_credentials(
    environ: Mapping[str, str], session: aiohttp.ClientSession, *, emulator: bool = False
) -> CredentialSource:
    """The source that this process has. `emulator`: the endpoint is not AWS, so any keys will do."""
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        return FixedCredentials(
            Credentials(
                environ["AWS_ACCESS_KEY_ID"],
                environ["AWS_SECRET_ACCESS_KEY"],
                environ.get("AWS_SESSION_TOKEN") or None,
            )
        )
    if url := _container_url(environ):
        return ContainerCredentials(
            session,
            url,
            token=environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            token_file=environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        )
    if emulator:
        return FixedCredentials(Credentials("test", "test"))
    return BotocoreCredentials()


def _container_url(environ: Mapping[str, str]) -> str | None:
    if relative := environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return _ECS_ENDPOINT + relative
    return environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")


def _may_have_the_token(url: URL) -> bool:
    """The token that opens the endpoint is sent over https, or does not leave this host."""
    host = url.host or ""
    if url.scheme == "https" or host == "localhost" or host in _LINK_LOCAL:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _ask_botocore() -> Credentials:
    hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with the AWS CLI and install boto3"
    try:
        botocore: Any = import_module("botocore.session")
    except ImportError:
        raise StoreRefused(f"no AWS credentials: {hint}") from None
    try:
        found = botocore.get_session().get_credentials()
        keys = found.get_frozen_credentials() if found else None
    except Exception as error:  # botocore's many sources raise many kinds; all mean that there are no keys
        raise StoreRefused(f"no AWS credentials: {error}") from None
    if keys is None:
        raise StoreRefused(f"no AWS credentials: {hint}")
    return Credentials(keys.access_key, keys.secret_key, keys.token)
