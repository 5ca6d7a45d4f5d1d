"""Whom a signed token speaks for.

    token ──▶ known of late? ──▶ Principal
                  └── its form ──▶ whose it says it is ──▶ that one's key ──▶ signature ──▶ claims ──▶ Principal

Until the signature is verified every refusal says the same, and nothing in the token chooses more than which of the
configured issuers, algorithms and published keys is tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from jwt import PyJWK
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from isochrone.admission.issuers.claims import principal_of, refused
from isochrone.admission.issuers.compact import Malformed, Unverified, read
from isochrone.admission.issuers.signing_keys import Fetch, SigningKeys
from isochrone.admission.principal import Principal
from isochrone.background import Background
from isochrone.settings import Issuer
from isochrone.stores.bounded import BoundedValues

# A verified token is not verified again for so long: a key that its issuer takes back is good here as much longer.
KNOWN_SECONDS: Final = 60.0
_KNOWN_BYTES: Final = 4_194_304
_PRINCIPAL_BYTES: Final = 1024  # about; what its claims add is counted
_NOT_GOOD: Final = "This token is not good here."


class Issuers:
    """Those of the configuration. `fetch` asks for what they publish; `background` is where that is done."""

    def __init__(self, issuers: Sequence[Issuer], fetch: Fetch, background: Background) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._keys = {issuer.url: SigningKeys(issuer, fetch, background) for issuer in issuers}
        self._known: BoundedValues[Principal] = BoundedValues(_KNOWN_BYTES, weigh=_weight)
        self._jws = PyJWS(options={"enforce_minimum_key_length": True})

    async def identify(self, token: str, now: float) -> Principal:
        """The principal of a token without its scheme; `now` in epoch seconds. Raises Unauthorized, KeysUnavailable."""
        digest = sha256(token.encode(errors="surrogatepass")).hexdigest()
        if known := self._known.get(digest, now=now):
            return known
        issuer, said = self._issuer_of(token)
        key = await self._keys[issuer.url].find(said.key_id, said.algorithm, now=now)
        self._verify(token, key, said.algorithm)
        principal = principal_of(said.claims, issuer, now=now)
        assert principal.expires is not None
        self._known.put(digest, principal, until=min(principal.expires + issuer.leeway, now + KNOWN_SECONDS))
        return principal

    async def refresh(self, *, now: float) -> None:
        """Read the keys that are due; from time to time, so that no request waits for it."""
        await asyncio.gather(*(keys.refresh(now=now) for keys in self._keys.values()))

    def _issuer_of(self, token: str) -> tuple[Issuer, Unverified]:
        """Who is said to have signed it, if it may be so."""
        try:
            said = read(token)
        except Malformed:
            raise refused(_NOT_GOOD) from None
        issuer = self._issuers.get(said.issuer)
        if issuer is None or said.algorithm not in issuer.algorithms:
            raise refused(_NOT_GOOD)
        return issuer, said

    def _verify(self, token: str, key: PyJWK | None, algorithm: str) -> None:
        if key is None:
            raise refused(_NOT_GOOD)
        try:
            self._jws.decode_complete(token, key, algorithms=[algorithm])
        except (PyJWTError, ValueError):
            raise refused(_NOT_GOOD) from None


def _weight(principal: Principal) -> int:
    return _PRINCIPAL_BYTES + sum(map(len, principal.tags)) + sum(map(len, principal.attributes.values()))
