"""What is wrong with who may come in, and with what is looked at on the way: keys, issuers, networks, contents,
personal data, the audit. What could never have an effect is refused: who wrote it meant something.

Networks are compared only after they were found to be some: who reads this must stop at the first mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING

from isochrone.countries import unknown_country
from isochrone.network_sets import EVERYWHERE, all_within, have_common
from isochrone.patterns import PatternError, compile_pattern
from isochrone.toml_errors import KeyPath

if TYPE_CHECKING:
    from isochrone.settings import Issuer, Key, Settings

Found = Iterator[tuple[KeyPath, str]]
_ANONYMOUS = "anonymous"
_YEAR_10000 = 253_402_300_800  # which no calendar of Python has


def contradictions(settings: Settings) -> Found:
    """All of them; the first one is told."""
    yield from _bad_networks(settings)
    yield from _shut_networks(settings)
    yield from _wrong_models(settings)
    yield from _wrong_keys(settings)
    yield from _wrong_issuers(settings)
    yield from _wrong_urls(settings)
    yield from _wrong_content(settings)
    yield from _without_effect(settings)
    yield from _wrong_countries(settings)


def wrong_pattern(path: KeyPath, pattern: str | None) -> Found:
    """Why it is no regular expression."""
    if pattern is None:
        return
    try:
        compile_pattern(pattern)
    except PatternError as error:
        yield path, f"no regular expression that RE2 knows: {error}"


# -- from where ------------------------------------------------------------------------------------------------------


def _bad_networks(settings: Settings) -> Found:
    listed: list[tuple[KeyPath, tuple[str, ...]]] = [(("geo", "trusted_proxies"), settings.geo.trusted_proxies)]
    listed += [(("network", word), getattr(settings.network, word)) for word in ("allow", "deny")]
    listed += [
        (("key", i, word), getattr(key, word))
        for i, key in enumerate(settings.key)
        for word in ("networks", "denied_networks")
    ]
    for path, networks in listed:
        for network in networks:
            try:
                ip_network(network)
            except ValueError as error:
                yield path, str(error)


def _shut_networks(settings: Settings) -> Found:
    allow, deny = settings.network.allow, settings.network.deny
    if _nothing_left(allow, deny):
        yield ("network", "deny"), f"holds all of {'allow' if allow else 'the Internet'}: nobody could ask"
    for i, key in enumerate(settings.key):
        if _nothing_left(key.networks, (*key.denied_networks, *deny)):
            word = "denied_networks" if key.denied_networks else "networks"
            yield ("key", i, word), "nobody could use this key: every network that it allows is denied"
        if key.networks and allow and not have_common(key.networks, allow):
            yield ("key", i, "networks"), "nobody could use this key: none of these lies in network.allow"


def _nothing_left(allowed: Sequence[str], denied: Sequence[str]) -> bool:
    return all_within(allowed or EVERYWHERE, denied)


def _wrong_countries(settings: Settings) -> Found:
    for code in settings.waf.block_countries:
        if why := unknown_country(code):
            yield ("waf", "block_countries"), why


# -- who -------------------------------------------------------------------------------------------------------------


def _restricted(settings: Settings) -> Iterator[tuple[str, int, Key | Issuer]]:
    """Those who may be allowed some models and regions only, and where they stand."""
    yield from (("key", i, key) for i, key in enumerate(settings.key))
    yield from (("issuer", i, issuer) for i, issuer in enumerate(settings.issuer))


def _wrong_models(settings: Settings) -> Found:
    known = _served(settings)
    for table, place, one in _restricted(settings):
        unknown = [name for name in one.models if name not in known and not name.startswith("edge/")]
        yield from (((table, place, "models"), f"no backend serves {name!r}") for name in unknown)


def _served(settings: Settings) -> set[str]:
    return {model for backend in settings.backend for model in backend.models}


def _wrong_keys(settings: Settings) -> Found:
    owners: dict[str, str] = {}
    for i, key in enumerate(settings.key):
        if key.expires and key.expires.timestamp() >= _YEAR_10000:
            yield ("key", i, "expires"), "is beyond the year 9999 in UTC; leave it out for a key that never ends"
        if key.tenant == _ANONYMOUS:
            yield ("key", i, "tenant"), _NO_TENANT
        if (other := owners.setdefault(key.sha256, key.id)) != key.id:
            yield ("key", i, "sha256"), f"is the same as that of key {other!r}: nobody could tell the two apart"


_NO_TENANT = f"{_ANONYMOUS!r} is the tenant of those who show no key; choose another name"


def _wrong_issuers(settings: Settings) -> Found:
    for i, issuer in enumerate(settings.issuer):
        if (issuer.tenant is None) == (issuer.tenant_claim is None):
            yield ("issuer", i, "tenant"), "give tenant or tenant_claim, one of the two"
        if issuer.tenant == _ANONYMOUS:
            yield ("issuer", i, "tenant"), _NO_TENANT
        if not issuer.algorithms:
            yield ("issuer", i, "algorithms"), "give at least one"
    urls = [issuer.url for issuer in settings.issuer]
    yield from ((("issuer", i, "url"), f"{url!r} stands twice") for i, url in enumerate(urls) if url in urls[:i])


def tenants_of(settings: Settings) -> set[str] | None:
    """All that there can be; None where tokens or keys of the directory bring others."""
    if (settings.auth.keys and settings.state.kind == "dynamodb") or any(one.tenant_claim for one in settings.issuer):
        return None
    named = {key.tenant for key in settings.key} | {issuer.tenant for issuer in settings.issuer if issuer.tenant}
    return named if settings.auth.required else named | {_ANONYMOUS}


# -- who is asked ----------------------------------------------------------------------------------------------------


def _wrong_urls(settings: Settings) -> Found:
    urls: list[tuple[KeyPath, str, str | None]] = []
    for i, issuer in enumerate(settings.issuer):
        urls += [(("issuer", i, word), issuer.url, getattr(issuer, word)) for word in ("url", "jwks_url")]
    if settings.limits.notify_url:
        urls.append((("limits", "notify_url"), settings.limits.notify_url, settings.limits.notify_url))
    for path, own, url in urls:
        if url and (why := _not_asked(url, own)):
            yield path, f"cannot be asked: {why}"


def _not_asked(url: str, own: str) -> str:
    # Imported here: only who names such a URL needs the names of hosts in all scripts.
    from isochrone.outbound.urls import NotPublic, PublicUrl  # noqa: PLC0415

    try:
        PublicUrl(url, own=own)
    except NotPublic as error:
        return str(error)
    return ""


# -- what is looked at -----------------------------------------------------------------------------------------------


def _wrong_content(settings: Settings) -> Found:
    content, names, served = settings.content, [backend.name for backend in settings.backend], _served(settings)
    if content.moderation is not None and content.moderation not in names:
        yield ("content", "moderation"), f"no backend is called {content.moderation!r}; there are {', '.join(names)}"
    for i, rule in enumerate(content.rule):
        at = ("content", "rule", i)
        yield from (((*at, "models"), f"no backend serves {name!r}") for name in rule.models if name not in served)
        yield from wrong_pattern((*at, "pattern"), rule.pattern)
        if _finds_anything(rule.pattern):
            yield (*at, "pattern"), f"{rule.pattern!r} finds something in every text, so that nothing could be asked"


def _finds_anything(pattern: str) -> bool:
    """Does it find something in a text of nothing, and in one that nobody writes?"""
    search = compile_pattern(pattern).search
    return all(search(text) for text in ("", "\ue000"))


def _without_effect(settings: Settings) -> Found:
    content, audit, pii = settings.content, settings.audit, settings.pii
    if settings.auth.policies and settings.state.kind == "memory":
        yield ("auth", "policies"), 'needs state.kind = "dynamodb", which has the table that holds them'
    if content.moderation is None:
        for word, said in (("after", content.after > 0), ("on_error", content.on_error == "deny")):
            if said:
                yield ("content", word), "needs content.moderation, which says who is asked"
    if audit.object_lock and audit.to != "firehose":
        yield ("audit", "object_lock"), 'needs audit.to = "firehose": it is the bucket that locks'
    if not pii.kinds:
        yield ("pii", "kinds"), 'give at least one kind; mode = "off" looks for none'
