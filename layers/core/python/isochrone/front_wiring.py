"""Puts the front door of an edge together: what its configuration uses is loaded, and nothing else."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import TYPE_CHECKING

from isochrone import settings as config
from isochrone.admission.address import AddressRule
from isochrone.admission.identity import Identity, Tokens
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.keys import KeyRing
from isochrone.background import Background
from isochrone.front_door import FrontDoor, Policies
from isochrone.routing.geo import Locator
from isochrone.settings import Settings, SettingsError
from isochrone.stores.protocols import DirectoryStore

if TYPE_CHECKING:
    from isochrone.pii.redactor import Redactor

_JWKS_BYTES = 262_144
_JWKS_SECONDS = 5.0


def build_front_door(
    settings: Settings, directory: DirectoryStore | None, background: Background, locator: Locator
) -> FrontDoor:
    """Raises SettingsError."""
    return FrontDoor(
        settings,
        address=AddressRule(settings.geo.trusted_proxies),
        identity=_identity(settings, directory, background),
        locator=locator,
        policies=_policies(settings, directory),
        redactor=cache(partial(_redactor, settings.pii)),
        now=time.time,
    )


def _identity(settings: Settings, directory: DirectoryStore | None, background: Background) -> Identity:
    auth = settings.auth
    looked_up = directory is not None and auth.keys and settings.state.kind == "dynamodb"
    return Identity(
        KeyRing(settings.key),
        required=auth.required,
        network=settings.network,
        directory=KeyDirectory(directory, background, max_age=auth.key_max_age) if directory and looked_up else None,
        tokens=_tokens(settings.issuer, background) if settings.issuer else None,
    )


def _tokens(issuers: tuple[config.Issuer, ...], background: Background) -> Tokens:
    from isochrone.admission.issuers.issuers import Issuers
    from isochrone.outbound.client import GuardedClient
    from isochrone.outbound.urls import PublicUrl

    client = GuardedClient()

    async def fetch(url: str, own: str) -> tuple[bytes, int | None]:
        return await client.fetch(PublicUrl(url, own=own), max_bytes=_JWKS_BYTES, seconds=_JWKS_SECONDS)

    return Issuers(issuers, fetch, background)


def _redactor(pii: config.Pii) -> Redactor:
    from isochrone.pii.detectors import finder
    from isochrone.pii.redactor import Redactor

    return Redactor(finder(pii.kinds))


def _policies(settings: Settings, directory: DirectoryStore | None) -> Policies | None:
    if not (settings.policy or settings.auth.policies):
        return None
    from isochrone.admission.policies.shared import SharedPolicies

    try:
        return SharedPolicies(settings, directory, clock=time.time, monotonic=time.monotonic)
    except ValueError as error:
        raise SettingsError(f"policy: {error}") from None
