"""The guarded client: what somebody else has named is asked without leading anywhere else (SSRF).

    resolve once ──▶ every address checked ──▶ connect to one of these, under the name that was asked for (Host, SNI)

No redirect is followed, no proxy of the environment is used, nothing is decompressed, size and time are bounded as a
whole, and a connection is used once: the next request is checked anew. What comes back goes to the code that asked
and must not be shown to a caller.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from isochrone.outbound.urls import NotPublic, PublicUrl

_MAX_AGE = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\s*(?:,|$)", re.ASCII | re.IGNORECASE)
_NONE: Mapping[str, str] = {}
_HEADERS = {"User-Agent": "isochrone", "Accept-Encoding": "identity"}


class NotFetched(OSError):
    """No usable reply; the message is for the operator, and holds nothing of what was replied. It names the host alone:
    who knows the rest of a webhook's URL may post there."""


class Fetched(NamedTuple):
    """A whole reply, and for how many seconds it may be kept where it says so."""

    body: bytes
    max_age: int | None


class GuardedClient:
    """Asks `PublicUrl`s. `resolver` is that of the system unless given; `tls` are the certificates that are believed,
    unless given those of the system."""

    def __init__(self, resolver: AbstractResolver | None = None, tls: SSLContext | None = None) -> None:
        self._resolver = resolver
        self._tls = tls

    async def fetch(self, url: PublicUrl, *, max_bytes: int, seconds: float) -> Fetched:
        """The body of a 200, all of it within so many seconds. Raises NotFetched, NotPublic."""
        async with self._reply("GET", url, seconds) as reply:
            if reply.status != 200:
                raise NotFetched(f"{url.host} answered {reply.status}")
            return Fetched(await _read(reply, max_bytes), _max_age(reply.headers))

    async def post(self, url: PublicUrl, body: bytes, *, headers: Mapping[str, str], seconds: float) -> int:
        """The status of the reply, whose body nobody reads. Raises NotFetched, NotPublic."""
        async with self._reply("POST", url, seconds, body, headers) as reply:
            return reply.status

    @asynccontextmanager
    async def _reply(
        self, method: str, url: PublicUrl, seconds: float, body: bytes | None = None, headers: Mapping[str, str] = _NONE
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        as_checked = URL(url.text, encoded=True)  # nothing is quoted anew
        try:
            async with (
                self._session(url, seconds) as session,
                session.request(method, as_checked, data=body, headers=headers, allow_redirects=False) as reply,
            ):
                yield reply
        except NotFetched:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotFetched(f"{url.host}: {_why(error)}") from None

    def _session(self, url: PublicUrl, seconds: float) -> aiohttp.ClientSession:
        resolver = _Checked(self._resolver or ThreadedResolver(), url)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=seconds),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )


def fetcher(
    client: GuardedClient, *, max_bytes: int, seconds: float
) -> Callable[[str, str], Awaitable[tuple[bytes, int | None]]]:
    """`fetch(url, own)`, for rooms that do not know this one: `own` is the operator's URL on whose behalf it is asked.
    Raises OSError or ValueError, as NotFetched and NotPublic are."""

    async def fetch(url: str, own: str) -> Fetched:
        return await client.fetch(PublicUrl(url, own=own), max_bytes=max_bytes, seconds=seconds)

    return fetch


class _Checked(AbstractResolver):
    """Refuses a name when one of its addresses may not be reached: a mixed answer is nobody's mistake."""

    def __init__(self, resolver: AbstractResolver, url: PublicUrl) -> None:
        self._resolver = resolver
        self._url = url

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not found:
            raise OSError(f"{host} has no address")
        if not all(self._url.may_reach(one["host"]) for one in found):
            raise NotPublic(f"{self._url.host} has an address that may not be reached")
        return found

    async def close(self) -> None:
        """The resolver is not ours."""


async def _read(reply: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in reply.content.iter_any():
        body += piece
        if len(body) > max_bytes:
            raise NotFetched(f"{reply.url.host} answered more than {max_bytes} bytes")
    return bytes(body)


def _max_age(headers: Mapping[str, str]) -> int | None:
    found = _MAX_AGE.search(headers.get("Cache-Control", ""))
    return int(found[1]) if found else None


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no whole answer in time"
    return "no connection" if isinstance(error, aiohttp.ClientConnectionError | OSError) else "no sound HTTP answer"
