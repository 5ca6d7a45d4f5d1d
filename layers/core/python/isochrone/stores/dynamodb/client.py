"""One call to DynamoDB over an aiohttp session: sign, send, tell the errors apart, try once more when that may help.

The errors are drawn in `isochrone.stores.dynamodb.errors`; why this is not boto3 stands in docs/decisions/0004.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from isochrone.stores.dynamodb.credentials import Credentials, CredentialSource, find_credentials
from isochrone.stores.dynamodb.errors import STALE_CREDENTIALS, StoreRefused, error_of
from isochrone.stores.dynamodb.server_clock import ServerClock
from isochrone.stores.dynamodb.sigv4 import authorization
from isochrone.stores.protocols import StoreBusy, StoreUnavailable

T = TypeVar("T")

# A throttled partition frees up within tens of milliseconds; longer waits are for the caller to decide.
_PAUSE_SECONDS = (0.01, 0.05)


class Service(NamedTuple):
    """An AWS service that speaks JSON over POST: its name in messages, and in addresses and signatures."""

    title: str
    name: str
    target: str
    content_type: str


DYNAMODB = Service("DynamoDB", "dynamodb", "DynamoDB_20120810", "application/x-amz-json-1.0")


class Timeouts(NamedTuple):
    """Seconds: for a new connection, and for a whole call with its second try."""

    connect: float = 0.5
    total: float = 1.0


DEFAULT_TIMEOUTS = Timeouts()


class DynamoClient:
    """Calls DynamoDB (or another `service`) of one region. It takes the session over: `aclose` closes it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: CredentialSource,
        *,
        region: str,
        service: Service = DYNAMODB,
        endpoint_url: str | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        server_clock: ServerClock | None = None,
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._region = region
        self._service = service
        self._url = URL(endpoint_url or aws_endpoint(region, service))
        self._host = self._url.host_port_subcomponent or ""
        self._total = timeouts.total
        self._timeout = aiohttp.ClientTimeout(sock_connect=timeouts.connect)
        self._clock = clock
        self._chance = chance
        self._server_clock = server_clock or ServerClock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()

    @property
    def offset(self) -> float:
        """Seconds by which the service's clock is ahead of ours, as far as its replies told."""
        return self._server_clock.offset

    async def call(self, operation: str, request: Mapping[str, Any], reply: type[T], *, once: bool = False) -> T:
        """Send one operation and read its reply as `reply`. What may be done `once` is sent again only when it was
        turned away before anything was done.

        Raises StoreUnavailable, StoreBusy, StoreRefused, ConditionFailed or InvalidCall.
        """
        body = msgspec.json.encode(request)
        again = StoreBusy if once else StoreUnavailable
        try:
            answer = await self._in_time(operation, body, again)
        except StoreRefused as refusal:
            if refusal.code not in STALE_CREDENTIALS or not self._credentials.forget():
                raise
            answer = await self._in_time(operation, body, again)
        return _decode(f"{self._service.title} {operation}", answer, reply)

    async def _in_time(self, operation: str, body: bytes, again: type[StoreUnavailable]) -> bytes:
        try:
            async with asyncio.timeout(self._total):
                credentials = await self._credentials.get(self._clock())
                return await self._try_twice(operation, body, credentials, again)
        except TimeoutError:
            raise StoreUnavailable(f"{self._service.title} {operation}: no answer within {self._total:g} s") from None

    async def _try_twice(
        self, operation: str, body: bytes, credentials: Credentials, again: type[StoreUnavailable]
    ) -> bytes:
        try:
            return await self._try(operation, body, credentials)
        except StoreRefused:
            raise
        except again:
            shortest, longest = _PAUSE_SECONDS
            await asyncio.sleep(shortest + (longest - shortest) * self._chance())
            return await self._try(operation, body, credentials)

    async def _try(self, operation: str, body: bytes, credentials: Credentials) -> bytes:
        headers = self._headers(operation, body, credentials)
        sent = self._clock()
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(f"{self._service.title} {operation}: {_why(error)}") from None
        self._server_clock.heard(response.headers.get("Date"), sent=sent, received=self._clock())
        if response.status != 200:
            raise error_of(f"{self._service.title} {operation}", response.status, answer)
        return answer

    def _headers(self, operation: str, body: bytes, credentials: Credentials) -> dict[str, str]:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        signed = [("content-type", self._service.content_type), ("host", self._host), ("x-amz-date", at)]
        if credentials.token:
            signed.append(("x-amz-security-token", credentials.token))
        signed.append(("x-amz-target", f"{self._service.target}.{operation}"))
        headers = dict(signed)
        headers["authorization"] = authorization(
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            region=self._region,
            service=self._service.name,
            at=at,
            headers=signed,
            body=body,
        )
        # Unpacking costs more CPU than the bytes it would save.
        headers["accept-encoding"] = "identity"
        return headers


def _why(error: Exception) -> str:
    """aiohttp's own words name its setting for TLS, of an address without TLS too."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.strerror or error.os_error}"
    return str(error) or type(error).__name__


def connect(
    region: str,
    *,
    service: Service = DYNAMODB,
    endpoint_url: str | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    environ: Mapping[str, str] = os.environ,
    server_clock: ServerClock | None = None,
) -> DynamoClient:
    """A client with a session of its own and the credentials this process has. Call it inside the event loop."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=30), cookie_jar=aiohttp.DummyCookieJar()
    )
    credentials = find_credentials(environ, session, emulator=endpoint_url is not None)
    return DynamoClient(
        session,
        credentials,
        region=region,
        service=service,
        endpoint_url=endpoint_url,
        timeouts=timeouts,
        server_clock=server_clock,
    )


def aws_endpoint(region: str, service: Service = DYNAMODB) -> str:
    """The address of the service in `region`."""
    return f"https://{service.name}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _decode(operation: str, answer: bytes, reply: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=reply)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"{operation}: not an answer of DynamoDB: {error}") from None
