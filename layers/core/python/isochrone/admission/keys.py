"""Who calls: a bearer key, known by its SHA-256 digest only (keys are 32 random bytes, so a plain digest is enough)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from isochrone import settings
from isochrone.admission.address import networks_of, parse_address, within
from isochrone.admission.principal import ANONYMOUS, Principal
from isochrone.api.errors import Forbidden, Unauthorized


class KeyRing:
    """The keys of the configuration, by digest."""

    def __init__(self, keys: Sequence[settings.Key], *, required: bool) -> None:
        self._required = required
        self._by_digest = {
            key.sha256: Principal(
                key.id,
                key.tenant,
                networks_of(key.networks),
                key.regions,
                key.private,
                key.answers,
                owner=key.owner,
                tags=key.tags,
                models=key.models,
                denied_networks=networks_of(key.denied_networks),
                limits=key.limits,
                priority=key.priority,
                expires=key.expires.timestamp() if key.expires else None,
                pii=key.pii,
            )
            for key in keys
        }

    def identify(self, authorization: str | None, address: str) -> Principal:
        """The principal of an Authorization header. Raises Unauthorized, Forbidden (address not on its list)."""
        principal = self._by_digest.get(_digest(authorization)) if authorization else None
        if principal is None:
            if self._required:
                raise Unauthorized(_why(authorization))
            return ANONYMOUS
        if principal.networks and not within(parse_address(address), principal.networks):
            raise Forbidden(
                f"Key {principal.key_id!r} may not be used from {address or 'an unknown address'}.",
                code="address_not_allowed",
            )
        return principal

    def principal_of(self, key_id: str | None) -> Principal | None:
        """Whom this key speaks for now, for work in its name without it; `None` is who has none. None when the key, or
        asking without one, is not allowed any more."""
        if key_id is None:
            return None if self._required else ANONYMOUS
        return next((known for known in self._by_digest.values() if known.key_id == key_id), None)


def _digest(authorization: str) -> str:
    scheme, _, key = authorization.partition(" ")
    return sha256(key.strip().encode(errors="surrogateescape")).hexdigest() if scheme.lower() == "bearer" else ""


def _why(authorization: str | None) -> str:
    if not authorization:
        return "No API key: send the header 'Authorization: Bearer KEY'."
    return "This API key is not known here."
