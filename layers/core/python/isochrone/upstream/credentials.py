"""The keys with which backends are asked: from the environment or from Secrets Manager, never from callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone")

ReadSecret = Callable[[str], Awaitable[str]]


class Credentials:
    """The headers for each backend. One whose key cannot be had is asked without: its 401 is then the truth."""

    def __init__(self, backends: Sequence[Backend], environ: Mapping[str, str]) -> None:
        self._held = [facts for facts in backends if facts.api_key_secret]
        self._headers = {facts.name: _headers(_key_in(environ, facts)) for facts in backends}

    @property
    def needs_secrets(self) -> bool:
        """True when some key lies in Secrets Manager."""
        return bool(self._held)

    def headers_for(self, step: Step) -> Mapping[str, str]:
        """For one attempt."""
        return self._headers[step.backend.facts.name]

    async def fetch(self, read_secret: ReadSecret) -> None:
        """Read every secret anew. Raises StoreUnavailable when one could not be read; those that could are in use."""
        fetched = await asyncio.gather(*(self._fetch(facts, read_secret) for facts in self._held))
        if missing := [facts.name for facts, ok in zip(self._held, fetched, strict=True) if not ok]:
            raise StoreUnavailable(f"no key for {', '.join(missing)}")

    async def _fetch(self, facts: Backend, read_secret: ReadSecret) -> bool:
        try:
            self._headers[facts.name] = _headers(await read_secret(facts.api_key_secret or ""))
        except StoreUnavailable as error:
            log.error("the secret of backend %s cannot be read: %s", facts.name, error)
            return False
        return True


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
