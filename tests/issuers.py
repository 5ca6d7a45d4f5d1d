"""An issuer of signed tokens on a free port of 127.0.0.1: discovery, keys that it can rotate, and its failures.

async with LocalIssuer() as issuer:
    issuer.token(sub="alice")           # signed with its present key
    issuer.rotate()                     # the next one is signed with a new key; the old one is not published
    issuer.is_down = True               # answers 503
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from functools import cache
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from isochrone import settings
from isochrone.admission.issuers.issuers import Issuers
from isochrone.background import Background
from isochrone.outbound.client import GuardedClient, fetcher

NOW = 1_800_000_000.0
AUDIENCE = "isochrone"
DISCOVERY = "/.well-known/openid-configuration"


@cache
def rsa_key(number: int, bits: int = 2048) -> RSAPrivateKey:
    """One of the keys of the tests; making one takes a while."""
    return generate_private_key(65537, bits)


def jwk_of(key: RSAPrivateKey, key_id: str, **more: Any) -> dict[str, Any]:
    """The public part as an issuer publishes it."""
    public: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {"kty": public["kty"], "n": public["n"], "e": public["e"], "kid": key_id, "use": "sig", **more}


class LocalIssuer:
    """`asked` counts requests by path. `gate` closed holds up every answer. `discovery` is what it says of itself."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.is_down = False
        self.max_age: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.serial = 1
        self.published: list[dict[str, Any]] = [jwk_of(rsa_key(1), "key-1")]
        self.discovery: dict[str, Any] = {}
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """What its tokens call it."""
        return f"http://127.0.0.1:{self.port}/realms/test"

    def rotate(self, *, keep: bool = False) -> None:
        """Sign with a new key from now on, and publish it; the old one only where it is to be kept."""
        self.serial += 1
        fresh = jwk_of(rsa_key(self.serial), f"key-{self.serial}")
        self.published = [*(self.published if keep else []), fresh]

    def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a sound token; None takes one away."""
        sound = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "tenant": "acme",
            "iat": int(NOW),
            "exp": int(NOW) + 600,
        }
        return {name: value for name, value in (sound | more).items() if value is not None}

    def token(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Signed with the present key."""
        key_id = {"kid": f"key-{self.serial}"}
        return jwt.encode(self.claims(**claims), rsa_key(self.serial), "RS256", headers=key_id | (headers or {}))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ")[1].removeprefix("/realms/test")
            self.asked[path] += 1
            await self.gate.wait()
            writer.write(self._answer(path))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)

    def _answer(self, path: str) -> bytes:
        documents = {DISCOVERY: self.discovery, "/keys": {"keys": self.published}}
        status = 503 if self.is_down else 200 if path in documents else 404
        body = json.dumps(documents.get(path, {})).encode()
        caching = "" if self.max_age is None else f"Cache-Control: public, max-age={self.max_age}\r\n"
        return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{caching}\r\n".encode() + body


def believing(*issuers: settings.Issuer) -> Issuers:
    """Those who believe these issuers and ask them over the guarded client."""
    return Issuers(issuers, fetcher(GuardedClient(), max_bytes=100_000, seconds=5.0), Background())


def facts_of(issuer: LocalIssuer, **more: Any) -> settings.Issuer:
    """Its table in a configuration."""
    facts: dict[str, Any] = {"name": "test", "url": issuer.url, "audience": AUDIENCE, "tenant_claim": "tenant"}
    return settings.Issuer(**(facts | more))
