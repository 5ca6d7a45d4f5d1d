"""Who asks: the key or the token that a request shows, and whether it may be used from where it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from isochrone import settings
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.key_record import Record, may_be_key
from isochrone.admission.keys import KeyRing, bearer_of, digest_of
from isochrone.admission.networks import check_address, normal_networks
from isochrone.admission.principal import ANONYMOUS, Principal
from isochrone.api.errors import Unauthorized


class Tokens(Protocol):
    """What believes signed tokens."""

    async def identify(self, token: str, now: float) -> Principal:
        """Whom it speaks for. Raises Unauthorized, KeysUnavailable."""

    async def refresh(self, *, now: float) -> None:
        """Read the keys of issuers that are due."""


class Identity:
    """The keys of the configuration, tokens of its issuers, and the keys of the directory; asked in this order.

    Without `required` whoever shows nothing that is known is anonymous. Times are epoch seconds.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        required: bool,
        network: settings.Network,
        directory: KeyDirectory | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._ring = ring
        self._required = required
        self._allowed, self._denied = normal_networks(network.allow), normal_networks(network.deny)
        self._directory = directory
        self._tokens = tokens

    async def identify(
        self,
        authorization: str | None,
        address: str,
        *,
        now: float,
        met: Callable[[Principal], None] = lambda _: None,
    ) -> Principal:
        """The principal of an Authorization header that comes from this address ("": unknown). `met` hears who it is
        before that is refused as expired, or from there.

        Raises Unauthorized (nothing shown, not known, expired), Forbidden (not from there), KeysUnavailable (nobody can
        tell now) and LimitReached (too many keys that are not known).
        """
        self.check_network(address)
        principal = await self._principal(bearer_of(authorization), now)
        met(principal)
        if _is_over(principal, now):
            raise Unauthorized("This API key has expired.", code="expired_api_key")
        if principal.networks or principal.denied_networks:
            who = f"{principal.kind.capitalize()} {principal.key_id!r}"
            check_address(address, principal.networks, principal.denied_networks, who)
        return principal

    def check_network(self, address: str) -> None:
        """May anybody ask from there? Raises Forbidden."""
        check_address(address, self._allowed, self._denied, "This service")

    async def refresh(self, *, now: float) -> None:
        """Hear from time to time with which keys tokens are signed, so that no request waits for it."""
        if self._tokens:
            await self._tokens.refresh(now=now)

    def status(self) -> dict[str, int] | None:
        """How often the keys of the directory could not be read; None where nobody looks there."""
        return {"unread": self._directory.failures} if self._directory else None

    async def _principal(self, secret: str, now: float) -> Principal:
        found = await self._find(secret, now) if secret else None
        if found is None and self._required:
            raise Unauthorized(
                "This API key is not known here."
                if secret
                else "No API key: send the header 'Authorization: Bearer KEY'."
            )
        return found or ANONYMOUS

    async def _find(self, secret: str, now: float) -> Principal | None:
        digest = digest_of(secret)
        if known := self._ring.find(digest):
            return known
        if self._tokens and _is_token(secret):
            return await self._tokens.identify(secret, now)
        if self._directory and may_be_key(secret):
            return await self._directory.find(digest, now)
        return None

    async def principal_of(self, key_id: str | None, *, now: float) -> Principal | None:
        """Whom this key speaks for now, for work in its name without it; `None` is who has none. None when the key, or
        asking without one, is not allowed any more. Raises StoreUnavailable."""
        if key_id is None:
            return None if self._required else ANONYMOUS
        found = self._ring.principal_of(key_id)
        if found is None:
            active = (record for record in await self._active(now) if record.key.id == key_id)
            found = next((record.principal for record in active), None)
        return None if found is None or _is_over(found, now) else found

    async def tenants(self, *, now: float) -> set[str]:
        """Those who may ask now with keys or without, and of whom something may be kept. Raises StoreUnavailable."""
        keys = [known for known in self._ring.principals if not _is_over(known, now)]
        keys += [record.principal for record in await self._active(now)]
        anonymous = set() if self._required else {ANONYMOUS.tenant}
        return {known.tenant for known in keys if not known.private} | anonymous

    async def _active(self, now: float) -> list[Record]:
        records = await self._directory.records(now) if self._directory else []
        return [record for record in records if record.state(now) == "active"]


def _is_over(principal: Principal, now: float) -> bool:
    """A token's own end was judged by who believes it, who knows how far clocks may differ."""
    return principal.kind == "key" and principal.expires is not None and principal.expires <= now


def _is_token(secret: str) -> bool:
    """A signed token is three parts, of which the first is JSON: it begins with `{"` in base64."""
    return secret.startswith("ey") and secret.count(".") == 2
