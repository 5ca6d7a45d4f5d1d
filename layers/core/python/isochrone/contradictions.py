"""What the schema of a configuration cannot say: names that refer to nothing, rules that can never match.

Every check yields the place of what is wrong and why; `settings.parse` makes the one line of the operator from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from isochrone.toml_errors import KeyPath

if TYPE_CHECKING:
    from isochrone.settings import Settings

Found = Iterator[tuple[KeyPath, str]]


def contradictions(settings: Settings) -> Found:
    """All of them; the first one is told."""
    yield from _misplaced_secrets(settings)
    yield from _doubles(settings)
    yield from _wrong_service(settings)
    yield from _wrong_backends(settings)
    yield from _wrong_models(settings)
    yield from _wrong_residency(settings)
    yield from _wrong_front(settings)
    yield from _wrong_answers(settings)
    yield from _wrong_light(settings)
    yield from _wrong_policies(settings)


_OWN_KEY = re.compile(r"isk_[A-Za-z0-9_-]{43}")
_NO_USER = "a user and a password do not belong into a URL: it stands in logs"


def _misplaced_secrets(settings: Settings) -> Found:
    """Secrets where names stand, which everybody may see. What is said of them does not repeat them."""
    for i, backend in enumerate(settings.backend):
        if "@" in backend.base_url.split("/")[2]:
            yield ("backend", i, "base_url"), _NO_USER
        if backend.api_key_env and not backend.api_key_env.isidentifier():
            yield ("backend", i, "api_key_env"), "is no name of an environment variable; the key does not stand here"
    for i, key in enumerate(settings.key):
        if _OWN_KEY.fullmatch(key.id):
            yield ("key", i, "id"), "this is a key: choose another id, which everybody may see"
    if settings.limits.notify_url and "@" in settings.limits.notify_url.split("/")[2]:
        yield ("limits", "notify_url"), _NO_USER


def _doubles(settings: Settings) -> Found:
    for table, word, names in (
        ("region", "name", [region.name for region in settings.region]),
        ("backend", "name", [backend.name for backend in settings.backend]),
        ("key", "id", [key.id for key in settings.key]),
        ("model", "name", [model.name for model in settings.model]),
        ("tenant", "name", [tenant.name for tenant in settings.tenant]),
        ("issuer", "name", [issuer.name for issuer in settings.issuer]),
        ("policy", "id", [policy.id for policy in settings.policy]),
        ("content.rule", "name", [rule.name for rule in settings.content.rule]),
    ):
        path: KeyPath = tuple(table.split("."))
        yield from (((*path, i, word), f"{name!r} stands twice") for i, name in enumerate(names) if name in names[:i])


def _wrong_service(settings: Settings) -> Found:
    defaults = [i for i, region in enumerate(settings.region) if region.default]
    yield from ((("region", i, "default"), "exactly one region may be the default") for i in defaults[1:])
    if settings.service.dns == "geolocation":
        if not defaults:
            yield ("service", "dns"), "geolocation needs exactly one [[region]] with default = true"
        yield from _unknown_places(settings)
    if settings.service.domain and not settings.service.hosted_zone:
        yield ("service", "domain"), "needs hosted_zone, the zone in Route 53 that holds its records"


_WHERE_KEYS_STAND = ("api_key_env", "api_key_secret", "api_key_parameter")


def _wrong_backends(settings: Settings) -> Found:
    regions = [region.name for region in settings.region]
    for i, backend in enumerate(settings.backend):
        if not _has_usable_port(backend.base_url):
            yield ("backend", i, "base_url"), "its port is no number from 1 to 65535"
        given = [name for name in _WHERE_KEYS_STAND if getattr(backend, name)]
        if len(given) > 1:
            yield ("backend", i, given[1]), f"give {given[0]} or {given[1]}, not both"
        if settings.pool.create and backend.kind == "pool" and backend.region not in regions:
            yield ("backend", i, "region"), f"pool.create needs one of the regions {', '.join(regions)}"


def _has_usable_port(base_url: str) -> bool:
    try:
        return urlsplit(base_url).port != 0
    except ValueError:
        return False


def _wrong_models(settings: Settings) -> Found:
    served = {model for backend in settings.backend for model in backend.models}
    for i, model in enumerate(settings.model):
        for word, names in (("name", (model.name,)), ("fallback", model.fallback)):
            yield from ((("model", i, word), f"no backend serves {name!r}") for name in names if name not in served)
        if model.name in model.fallback:
            yield ("model", i, "fallback"), f"{model.name!r} is no fallback of itself"
        kinds = {backend.kind for backend in settings.backend if model.name in backend.models}
        if kinds and model.primary == "api" and "api" not in kinds:
            yield ("model", i, "primary"), f"no backend of kind 'api' serves {model.name!r}"
        if model.standby_above_ms and len(kinds) == 1:
            yield ("model", i, "standby_above_ms"), f"only backends of one kind serve {model.name!r}: none can stand by"


def _wrong_residency(settings: Settings) -> Found:
    """A region where nothing stands is most likely misspelt, and would shut everybody out."""
    everywhere = {backend.region for backend in settings.backend if backend.region}
    named: list[tuple[KeyPath, tuple[str, ...]]]
    named = [(("key", i), key.regions) for i, key in enumerate(settings.key)]
    named += [(("issuer", i), issuer.regions) for i, issuer in enumerate(settings.issuer)]
    for place, regions in named:
        yield from _unknown_regions((*place, "regions"), regions, everywhere, "")
    for i, model in enumerate(settings.model):
        near = {backend.region for backend in settings.backend if backend.region and model.name in backend.models}
        yield from _unknown_regions(("model", i, "regions"), model.regions, near, f" that serves {model.name!r}")


def _unknown_regions(path: KeyPath, names: tuple[str, ...], known: set[str], which: str) -> Found:
    for name in names:
        if name not in known:
            yield path, f"no backend{which} stands in {name!r}; there are {', '.join(sorted(known)) or 'none'}"


def _wrong_front(settings: Settings) -> Found:
    # Imported here, as those below are: only a configuration that was just read needs it.
    from isochrone.front_contradictions import contradictions as of_front  # noqa: PLC0415

    return of_front(settings)


def _wrong_answers(settings: Settings) -> Found:
    answers, served = settings.answers, {model for backend in settings.backend for model in backend.models}
    for i, rule in enumerate(answers.rule):
        at = ("answers", "rule", i)
        if not rule.models and rule.pattern is None:
            yield (*at, "name"), "give models or pattern, or else it is the same as answers.ttl"
        yield from (((*at, "models"), f"no backend serves {name!r}") for name in rule.models if name not in served)
        yield from _wrong_pattern((*at, "pattern"), rule.pattern)
    if not answers.exact:
        yield from (
            (("answers", name), "needs answers.exact") for name in ("semantic", "warm") if getattr(answers, name)
        )
    own = [("model", i, one.answers) for i, one in enumerate(settings.model)]
    own += [("key", i, one.answers) for i, one in enumerate(settings.key)]
    for table, i, said in own:
        if said.semantic and (answers.exact if said.exact is None else said.exact) is False:
            yield (table, i, "answers", "semantic"), "needs exact answers, which are off here"
    for i, key in enumerate(settings.key):
        if key.private and any(value for value in msgspec.structs.asdict(key.answers).values()):
            yield ("key", i, "private"), "nothing of a private key is kept, so its `answers` would have no effect"


def _wrong_light(settings: Settings) -> Found:
    served = {model for backend in settings.backend for model in backend.models}
    for i, light in enumerate(settings.light):
        if light.model is None and light.pattern is None:
            yield ("light", i, "task"), "give model or pattern, or both; it is always there as edge/" + light.task
        if light.model in served and light.pattern is None:
            yield ("light", i, "model"), f"backends serve {light.model!r}: without a pattern none would be asked"
        if light.model and light.model.startswith("edge/"):
            yield ("light", i, "model"), f"{light.model!r} is a task's own name, which no rule changes"
        yield from _wrong_pattern(("light", i, "pattern"), light.pattern)


def _wrong_policies(settings: Settings) -> Found:
    if settings.policy:
        # Imported here: only a configuration with such rules needs time zones and networks.
        from isochrone.policy_contradictions import contradictions as of_policies  # noqa: PLC0415

        yield from ((("policy", *path), why) for path, why in of_policies(settings.policy, settings))


def _wrong_pattern(path: KeyPath, pattern: str | None) -> Found:
    from isochrone.front_contradictions import wrong_pattern  # noqa: PLC0415

    return wrong_pattern(path, pattern)


_CONTINENTS = frozenset(("AF", "AN", "AS", "EU", "NA", "OC", "SA"))


def _unknown_places(settings: Settings) -> Found:
    """What `serves` names and no client can come from. Reads a file, so only for who asks for geolocation."""
    from isochrone.countries import NAMED_AS, countries  # noqa: PLC0415

    for i, region in enumerate(settings.region):
        for code in region.serves:
            if code not in _CONTINENTS and code not in countries():
                yield ("region", i, "serves"), f"{code!r} is no continent and no country; {NAMED_AS}"
