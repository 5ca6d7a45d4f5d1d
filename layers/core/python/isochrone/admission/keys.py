"""Bearer keys, known by their SHA-256 digests only (keys are 32 random bytes, so a plain digest is enough).

What is compared is a digest, never a key, and in constant time: how long a refusal takes says nothing about a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from isochrone import settings
from isochrone.admission.networks import normal_networks
from isochrone.admission.principal import Principal


class KeyRing:
    """The keys of the configuration."""

    def __init__(self, keys: Sequence[settings.Key]) -> None:
        self._by_digest = {key.sha256: (key.sha256, principal_of(key)) for key in keys}

    def find(self, digest: str) -> Principal | None:
        """Whose key has this digest (hex)."""
        found = self._by_digest.get(digest)
        return found[1] if found and compare_digest(found[0], digest) else None

    def principal_of(self, key_id: str) -> Principal | None:
        """Whom the key of this id speaks for."""
        return next((known for _, known in self._by_digest.values() if known.key_id == key_id), None)

    @property
    def principals(self) -> list[Principal]:
        """Of all keys."""
        return [known for _, known in self._by_digest.values()]


def bearer_of(authorization: str | None) -> str:
    """What stands behind `Bearer`; empty when nothing does."""
    scheme, _, secret = (authorization or "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def digest_of(key: str) -> str:
    """The hex digest by which a key is known; any text has one, also one that is no valid Unicode."""
    return sha256(key.encode(errors="surrogatepass")).hexdigest()


def principal_of(key: settings.Key, *, expires: float | None = None) -> Principal:
    """Whom a key speaks for, and what it may. It ends at `expires` (epoch seconds), or earlier if it says so itself."""
    own = key.expires.timestamp() if key.expires else None
    ends = [moment for moment in (own, expires) if moment is not None]
    return Principal(
        key.id,
        key.tenant,
        normal_networks(key.networks),
        key.regions,
        key.private,
        key.answers,
        owner=key.owner,
        tags=key.tags,
        models=key.models,
        denied_networks=normal_networks(key.denied_networks),
        limits=key.limits,
        priority=key.priority,
        expires=min(ends, default=None),
        pii=key.pii,
    )
