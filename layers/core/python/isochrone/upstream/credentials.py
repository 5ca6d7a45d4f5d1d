"""The keys with which backends are asked: from the environment, Secrets Manager or SSM, never from callers.

A key that is kept elsewhere is read anew from time to time, and at once when a backend refuses the one in use:

    refused -> read anew (once in RENEW_SECONDS) -> another one than that in use? -> ask again with it
                                                 -> the same? -> ask again with the one that was in use before

So a key may be rotated without an outage in any order: the new one put in before or after the backend takes it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from isochrone.background import Background
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone")

# A backend that refuses every key must not cost a read for every request.
RENEW_SECONDS = 30.0
# A refused request waits no longer for a key that is read anew.
_PATIENCE_SECONDS = 2.0

Headers = Mapping[str, str]
ReadKey = Callable[[Backend], Awaitable[str]]


class Credentials:
    """The headers for each backend. One whose key cannot be had is asked without: its 401 is then the truth.

    `read` gives the key of a backend whose key is kept elsewhere, or raises StoreUnavailable.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        environ: Mapping[str, str],
        *,
        read: ReadKey,
        background: Background,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = {facts.name: _headers(_key_in(environ, facts)) for facts in backends}
        self._held = {
            facts.name: _HeldKey(facts, read, background, clock)
            for facts in backends
            if facts.api_key_secret or facts.api_key_parameter
        }

    @property
    def needs_secrets(self) -> bool:
        """True when some key lies in Secrets Manager or SSM."""
        return bool(self._held)

    def headers_for(self, step: Step) -> Headers:
        """For one attempt."""
        return self.headers_of(step.backend.facts.name)

    def headers_of(self, name: str) -> Headers:
        """Those of the backend of this name."""
        held = self._held.get(name)
        return held.headers if held else self._fixed[name]

    async def headers_after_refusal(self, step: Step, refused: Headers) -> Headers | None:
        """Others to try at once, where the backend answered 401 or 403 to `refused`; None when there are none."""
        held = self._held.get(step.backend.facts.name)
        if held is None:
            return None
        if held.headers is refused:
            await held.renew()
        return None if held.headers is refused else held.headers

    async def fetch(self) -> None:
        """Read every key anew. Raises StoreUnavailable when one could not be read; those that could are in use."""
        fetched = await asyncio.gather(*(held.fetch() for held in self._held.values()))
        if missing := [name for name, ok in zip(self._held, fetched, strict=True) if not ok]:
            raise StoreUnavailable(f"no key for {', '.join(missing)}")


class _HeldKey:
    """The key of one backend as it was last read, and the one before it."""

    def __init__(self, facts: Backend, read: ReadKey, background: Background, clock: Callable[[], float]) -> None:
        self._facts = facts
        self._read = read
        self._background = background
        self._clock = clock
        self._key: str | None = None
        self._other: str | None = None
        self._renewed_at = -math.inf
        self._renewing: asyncio.Task[None] | None = None
        self.headers = _headers(None)

    async def fetch(self) -> bool:
        """Read it, and use it unless it was refused before and the one in use was not. False: it cannot be read."""
        key = await self._read_key()
        if key is not None and key not in (self._key, self._other):
            self._use(key)
        return key is not None

    async def renew(self) -> None:
        """The key in use was refused: use another one, if there is one. All who were refused share one try."""
        if self._renewing is None or self._renewing.done():
            if self._clock() - self._renewed_at < RENEW_SECONDS:
                return
            self._renewed_at = self._clock()
            self._renewing = self._background.start(self._change())
        await asyncio.wait({self._renewing}, timeout=_PATIENCE_SECONDS)

    async def _change(self) -> None:
        key = await self._read_key()
        if other := self._other if key in (None, self._key) else key:
            log.warning("backend %s refused its key; trying another one", self._facts.name)
            self._use(other)

    def _use(self, key: str) -> None:
        self._other, self._key = self._key, key
        self.headers = _headers(key)

    async def _read_key(self) -> str | None:
        try:
            return await self._read(self._facts)
        except StoreUnavailable as error:
            log.error("the key of backend %s cannot be read: %s", self._facts.name, error)
            return None


def _key_in(environ: Mapping[str, str], facts: Backend) -> str | None:
    if not facts.api_key_env:
        return None
    key = environ.get(facts.api_key_env, "").strip()
    if not key:
        log.warning("backend %s is asked without a key: %s is not set", facts.name, facts.api_key_env)
    return key or None


def _headers(key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    return {**headers, "Authorization": f"Bearer {key}"} if key else headers
