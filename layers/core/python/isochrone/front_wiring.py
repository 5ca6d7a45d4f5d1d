"""Puts the front door of an edge together: what its configuration uses is loaded, and nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from isochrone import settings as config
from isochrone.admission.address import AddressRule
from isochrone.admission.identity import Identity, Tokens
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.keys import KeyRing
from isochrone.background import Background
from isochrone.front_door import FrontDoor, Policies
from isochrone.ledger.counters import Counters
from isochrone.life import Life
from isochrone.limits_wiring import build_forecast, build_limiter
from isochrone.routing.geo import Locator
from isochrone.settings import Settings, SettingsError
from isochrone.stores.protocols import DirectoryStore

if TYPE_CHECKING:
    from isochrone.admission.content.moderation import Moderation
    from isochrone.admission.content.screen import Screen
    from isochrone.pii.redactor import Redactor

_JWKS_BYTES = 262_144
_JWKS_SECONDS = 5.0


def build_front_door(settings: Settings, region: str, life: Life, locator: Locator, counters: Counters) -> FrontDoor:
    """Raises SettingsError."""
    directory = life.stores.directory
    return FrontDoor(
        settings,
        address=AddressRule(settings.geo.trusted_proxies),
        identity=_identity(settings, directory, life.background),
        locator=locator,
        policies=_policies(settings, life, counters),
        screen=_screen(settings, life, counters),
        limiter=build_limiter(
            settings,
            region,
            life.stores.fleet,
            life.stores.fleet_in,
            life.background,
            holder=lambda: life.leases.holder,
            count=counters.add,
        ),
        forecast=build_forecast(settings),
        redactor=_redactor_when_needed(settings),
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


def check_issuers(issuers: Sequence[config.Issuer]) -> None:
    """What would fail with their first token is said at the start. Raises SettingsError."""
    if issuers and (lacking := [name for name in ("jwt", "cryptography") if find_spec(name) is None]):
        raise SettingsError(f"issuer: {' and '.join(lacking)} not installed; pip install -r requirements-tokens.txt")


def _tokens(issuers: Sequence[config.Issuer], background: Background) -> Tokens:
    from isochrone.admission.issuers.issuers import Issuers
    from isochrone.outbound.client import GuardedClient, fetcher

    return Issuers(issuers, fetcher(GuardedClient(), max_bytes=_JWKS_BYTES, seconds=_JWKS_SECONDS), background)


def _screen(settings: Settings, life: Life, counters: Counters) -> Screen | None:
    content = settings.content
    if not (content.rule or content.moderation):
        return None
    from isochrone.admission.content.screen import Screen

    moderation = _moderation(settings, life) if content.moderation else None
    return Screen(content.rule, moderation, count=counters.add)


def _moderation(settings: Settings, life: Life) -> Moderation:
    from isochrone.admission.content.moderation import Moderation
    from isochrone.upstream.moderator import Moderator

    content = settings.content
    backend = next(one for one in settings.backend if one.name == content.moderation)
    headers = partial(life.credentials.headers_of, backend.name)
    moderator = Moderator(life.session, backend, content.moderation_model, headers=headers)
    return Moderation(
        moderator.judge,
        on_error=content.on_error,
        after=content.after,
        chance=random.SystemRandom().random,
        clock=time.monotonic,
    )


def _redactor_when_needed(settings: Settings) -> Callable[[], Redactor]:
    """Loaded now where the configuration asks for it, else for the first key of the directory that does."""
    when_needed = cache(partial(_redactor, settings.pii))
    modes = {settings.pii.mode, *(key.pii or "off" for key in settings.key)}
    if settings.audit.prompts or modes != {"off"}:
        when_needed()
    return when_needed


def _redactor(pii: config.Pii) -> Redactor:
    from isochrone.pii.detectors import finder
    from isochrone.pii.redactor import Redactor

    return Redactor(finder(pii.kinds))


def _policies(settings: Settings, life: Life, counters: Counters) -> Policies | None:
    if not (settings.policy or settings.auth.policies):
        return None
    if find_spec("cedarpy") is None:
        raise SettingsError("policy: cedarpy not installed; pip install -r requirements-policies.txt")
    from isochrone.admission.policies.shared import SharedPolicies

    try:
        return SharedPolicies(
            settings,
            life.stores.directory,
            clock=time.time,
            monotonic=time.monotonic,
            background=life.background,
            count=counters.add,
        )
    except ValueError as error:
        raise SettingsError(f"policy: {error}") from None
