"""The keys of one issuer as an edge knows them: asked for where they are published, and kept while it is silent.

    unknown ──read──▶ fresh ──max-age, at most an hour──▶ read anew in the background ──24 h without a reply──▶ unknown
                                                   └──after two hours (a frozen process): before they are used

A key that is not among them is looked for at once, for an issuer may sign with a new one at any time; but what nobody
has signed could name a new one with each request, so that is done at most once in 30 s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from jwt import PyJWK

from isochrone.admission.issuers.keyset import KeySet
from isochrone.api.errors import KeysUnavailable
from isochrone.background import Background
from isochrone.settings import Issuer

log = logging.getLogger("isochrone")

# Without a reply of their issuer keys are good for so long, counted from when they were asked for.
KEEP_SECONDS: Final = 24 * 3600.0
# How long they are fresh: what the issuer says, within these bounds.
_FRESH_SECONDS: Final = (300, 3600)
# A read is begun no sooner after another; while nothing is known at all, this soon.
ASK_SECONDS: Final = 30.0
_ASK_AGAIN_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 2.0
# Nobody has looked for so long: what was taken back since must not be believed once more.
_LONG_AGO_SECONDS: Final = 7200
_PATIENCE_WITH_OLD_ONES_SECONDS: Final = 0.5

Fetch = Callable[[str, str], Awaitable[tuple[bytes, int | None]]]
"""The body that a URL answers, and for how long (seconds) it may be kept, where it says so. The second argument is
the operator's own URL on whose behalf it is asked. Raises OSError or ValueError."""


class _Metadata(msgspec.Struct):
    """What we need of OpenID Connect Discovery 1.0, section 3."""

    issuer: str
    jwks_uri: str


class SigningKeys:
    """Those of one issuer; times are epoch seconds."""

    def __init__(self, issuer: Issuer, fetch: Fetch, background: Background) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._background = background
        self._keys: KeySet | None = None
        self._read_at = self._fresh_until = 0.0
        self._asked_at: float | None = None
        self._failed = False
        self._reading: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str, *, now: float) -> PyJWK | None:
        """The key; None when the issuer has no such one. Raises KeysUnavailable when nobody can tell."""
        if self._may_read(now):
            if self._known(key_id, algorithm, now) is None:
                await self._read(now)
            elif abs(now - self._read_at) >= _LONG_AGO_SECONDS:
                await self._read(now, patience=_PATIENCE_WITH_OLD_ONES_SECONDS)
            elif not self._is_fresh(now):
                self._begin(now)
        key = self._known(key_id, algorithm, now)
        if key is None and (self._failed or self._current(now) is None):
            raise KeysUnavailable(
                "Whether this token is good cannot be told now: its issuer does not answer.", retry_after=self._pause
            )
        return key

    async def refresh(self, *, now: float) -> None:
        """Read them anew if they are due, so that no request has to wait for it."""
        if not self._is_fresh(now) and self._may_read(now):
            await self._read(now)

    def _is_fresh(self, now: float) -> bool:
        return self._read_at <= now < self._fresh_until  # a clock that was set back has not made them younger

    def _known(self, key_id: str | None, algorithm: str, now: float) -> PyJWK | None:
        keys = self._current(now)
        return keys.find(key_id, algorithm) if keys else None

    def _current(self, now: float) -> KeySet | None:
        return self._keys if now - self._read_at < KEEP_SECONDS else None

    def _may_read(self, now: float) -> bool:
        """Is a read under way that can be joined, or the last one long enough ago?"""
        if self._asked_at is None or (self._reading and not self._reading.done()):
            return True
        return not 0 <= now - self._asked_at < self._pause  # a clock that was set back must not forbid it for long

    @property
    def _pause(self) -> float:
        return ASK_SECONDS if self._keys else _ASK_AGAIN_SECONDS

    def _begin(self, now: float) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._asked_at = now
            self._reading = self._background.start(self._read_anew(now))
        return self._reading

    async def _read(self, now: float, *, patience: float = _PATIENCE_SECONDS) -> None:
        """Wait for a read, but not for long; it goes on when we do not."""
        await asyncio.wait([self._begin(now)], timeout=patience)

    async def _read_anew(self, now: float) -> None:
        self._failed = True  # until it has not
        try:
            document, max_age = await self._fetch(await self._jwks_url(), self._issuer.url)
            self._keys = KeySet.of(document, self._issuer.algorithms)
        except (OSError, ValueError) as error:
            log.warning("issuer %s: its keys cannot be read: %s", self._issuer.name, error)
            return
        shortest, longest = _FRESH_SECONDS
        self._read_at, self._failed = now, False
        self._fresh_until = now + min(max(max_age if max_age is not None else longest, shortest), longest)

    async def _jwks_url(self) -> str:
        if self._issuer.jwks_url:
            return self._issuer.jwks_url
        url = self._issuer.url
        document, _ = await self._fetch(url.rstrip("/") + "/.well-known/openid-configuration", url)
        metadata = msgspec.json.decode(document, type=_Metadata)
        if metadata.issuer != url:
            raise ValueError(f"it calls itself {metadata.issuer[:200]!r}; issuer.url must be exactly that")
        return metadata.jwks_uri
