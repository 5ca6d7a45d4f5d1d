"""What is wrong with rules of who may do what: what cannot be read, names of nothing, and what can never match.

`unusable` is about one policy by itself, so that every edge of every version agrees; `contradictions` is for who writes
rules, and knows the configuration too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from isochrone.countries import unknown_country
from isochrone.front_contradictions import tenants_of
from isochrone.globs import covers, matches
from isochrone.network_sets import all_within, have_common
from isochrone.toml_errors import KeyPath

if TYPE_CHECKING:
    from isochrone.settings import Network, Policy, PolicyCondition, PolicyTime, Settings

Found = Iterator[tuple[KeyPath, str]]
_ANONYMOUS = "anonymous"


# -- one by itself ---------------------------------------------------------------------------------------------------


def unusable(policy: Policy) -> Found:
    """Why no edge could obey it; paths begin inside the policy."""
    for word in ("ip", "not_ip"):
        yield from _bad_networks(("condition", word), getattr(policy.condition, word))
    if policy.condition.time:
        yield from _bad_zone(policy.condition.time)
    for name, globs in policy.principal.attributes.items():
        if not globs:
            yield ("principal", "attributes", name), "give at least one value"


def _bad_networks(path: KeyPath, networks: Sequence[str]) -> Found:
    for text in networks:
        try:
            ip_network(text)
        except ValueError as error:
            yield path, str(error)


def _bad_zone(time: PolicyTime) -> Found:
    try:
        ZoneInfo(time.zone)
    except (OSError, LookupError, ValueError):  # OSError: the name of a folder, or a name too long for a file
        yield ("condition", "time", "zone"), f"{time.zone!r} is no time zone; zones are named as in Europe/Paris"


def actions_of(policy: Policy) -> tuple[str, ...]:
    """Which actions the rule is about, () for all: models, regions and tokens are those of generating."""
    about_generating = policy.resource.model or policy.resource.region or policy.condition.tokens
    return ("generate",) if about_generating else policy.action


def never_matches(policy: Policy) -> Found:
    """Why it has no effect at any time, whoever asks. Networks must be usable."""
    yield from _wrong_action(policy)
    yield from _wrong_kind(policy)
    if policy.condition.time:
        yield from _empty_time(policy.condition.time)
    yield from _empty_condition(policy.condition)


def _wrong_action(policy: Policy) -> Found:
    if not policy.action or "generate" in policy.action:
        return
    asked = {
        "resource.model": policy.resource.model,
        "resource.region": policy.resource.region,
        "condition.tokens": policy.condition.tokens,
    }
    for name, value in asked.items():
        if value:
            yield ("action",), f"never matches: {name} is asked of 'generate' only"


_HAVING = {
    "tag": ("key", "token"),
    "key": ("key", "token"),
    "owner": ("key",),
    "subject": ("token",),
    "attributes": ("token",),
}
"""Which kinds of callers can have it."""


def _wrong_kind(policy: Policy) -> Found:
    """What callers of the named kinds never have: an allowing rule holds for none of them, a denying one for all."""
    named = policy.principal.kind
    for word, having in _HAVING.items():
        if named and getattr(policy.principal, word) and not set(named) & set(having):
            have, lack = ", ".join(having), ", ".join(named)
            yield ("principal", word), f"callers of kind {lack} have none; those of kind {have} do"


def _empty_time(time: PolicyTime) -> Found:
    if (time.from_ or "00:00") == (time.until or "24:00"):
        yield ("condition", "time", "until"), "never matches: the window ends when it begins"
    if time.after and time.before and time.after >= time.before:
        yield ("condition", "time", "before"), "never matches: it is not later than after"


def _empty_condition(condition: PolicyCondition) -> Found:
    if condition.ip and condition.not_ip and all_within(condition.ip, condition.not_ip):
        yield ("condition", "not_ip"), "never matches: it holds all of ip"
    if condition.country and set(condition.country) <= set(condition.not_country):
        yield ("condition", "not_country"), "never matches: it holds all of country"
    if tokens := condition.tokens:
        if tokens.max is not None and tokens.max < (tokens.min or 1):
            least = "min" if tokens.min else "1, the least that a request takes"
            yield ("condition", "tokens", "max"), f"never matches: it is below {least}"
        if tokens.min is None and tokens.max is None:
            yield ("condition", "tokens"), "give min or max"


def has_ended(policy: Policy, now: datetime) -> bool:
    """Is `before` over, so that it never matches any more?"""
    time = policy.condition.time
    return bool(time and time.before and time.before <= now)


# -- in its configuration --------------------------------------------------------------------------------------------


def contradictions(policies: Sequence[Policy], settings: Settings) -> Found:
    """All of the three; paths begin with the number of the policy."""
    names = _Names.of(settings)
    for i, policy in enumerate(policies):
        mistakes = list(unusable(policy)) or list(_useless(policy, names))
        yield from (((i, *path), why) for path, why in mistakes)
        if not mistakes and (by := shadow_of(policy, policies)):
            yield (i, "effect"), f"never matches: {by.id!r} denies all that it allows"


def _useless(policy: Policy, names: _Names) -> Found:
    yield from never_matches(policy)
    yield from _shut_out(policy, names.network)
    yield from _wrong_countries(policy.condition)
    yield from _unknown(policy, names)


def unknown_names(policy: Policy, settings: Settings) -> Found:
    """What it names and there is not, as far as that is known; paths begin inside the policy."""
    yield from _wrong_countries(policy.condition)
    yield from _unknown(policy, _Names.of(settings))


class _Names(NamedTuple):
    """What there is, by the key that asks for it; what is not in it may come from elsewhere, and is not checked."""

    known: dict[str, Collection[str]]
    attributes: Collection[str]
    network: Network

    @classmethod
    def of(cls, settings: Settings) -> _Names:
        known: dict[str, Collection[str]] = {
            "resource.model": _models(settings),
            "resource.region": _regions(settings),
        }
        if not (settings.auth.keys and settings.state.kind == "dynamodb"):
            known |= _closed(settings)
        kinds = {"key", *(["token"] if settings.issuer else []), *([] if settings.auth.required else [_ANONYMOUS])}
        known["principal.kind"] = kinds
        return cls(known, {name for issuer in settings.issuer for name in issuer.attributes}, settings.network)


def _models(settings: Settings) -> set[str]:
    served = {model for backend in settings.backend for model in backend.models}
    return served | {light.model for light in settings.light if light.model}


def _regions(settings: Settings) -> set[str]:
    return {backend.region for backend in settings.backend if backend.region}


def _closed(settings: Settings) -> dict[str, Collection[str]]:
    """What only the file can bring when keys stand nowhere else, as far as no token brings it."""
    known: dict[str, Collection[str]] = {"principal.owner": {key.owner for key in settings.key if key.owner}}
    if (tenants := tenants_of(settings)) is not None:
        known["principal.tenant"] = tenants
    if not any(issuer.tags_claim for issuer in settings.issuer):
        known["principal.tag"] = {tag for key in settings.key for tag in key.tags}
    if not settings.issuer:
        known |= {"principal.key": {key.id for key in settings.key}, "principal.subject": ()}
    return known


def _unknown(policy: Policy, names: _Names) -> Found:
    for dotted, known in names.known.items():
        table, word = dotted.split(".")
        for glob in getattr(getattr(policy, table), word):
            if not _is_known(dotted, glob, known):
                there_are = ", ".join(sorted(known)) or "none"
                yield (table, word), f"nothing here is called {glob!r}; there are {there_are}"
    for name in policy.principal.attributes:
        if name not in names.attributes:
            yield ("principal", "attributes", name), "no [[issuer]] has it in its attributes"


def _shut_out(policy: Policy, network: Network) -> Found:
    """Addresses from where nobody at all may ask."""
    ip = policy.condition.ip
    if all_within(ip, network.deny):
        yield ("condition", "ip"), "never matches: network.deny holds all of it"
    if ip and network.allow and not have_common(ip, network.allow):
        yield ("condition", "ip"), "never matches: none of it lies in network.allow"


def _wrong_countries(condition: PolicyCondition) -> Found:
    for word in ("country", "not_country"):
        for code in getattr(condition, word):
            if why := unknown_country(code):
                yield ("condition", word), why


def _is_known(dotted: str, glob: str, known: Collection[str]) -> bool:
    built_in = dotted == "resource.model" and (glob.startswith("edge/") or matches(glob, "edge/"))
    return built_in or any(matches(glob, name) for name in known)


# -- one beside others -----------------------------------------------------------------------------------------------


def shadow_of(policy: Policy, others: Sequence[Policy]) -> Policy | None:
    """The denying rule that holds wherever this allowing one does. Sound, not complete: some shadows are not seen."""
    if policy.effect == "deny":
        return None
    return next((other for other in others if other.effect == "deny" and _is_wider(other, policy)), None)


def _is_wider(wide: Policy, narrow: Policy) -> bool:
    """Does `wide` match whatever `narrow` matches? As every part of a rule must hold, it is enough that each part of
    `wide` follows from the same part of `narrow`."""
    return (
        _has_wider_subject(wide, narrow)
        and _has_wider_time(wide.condition.time, narrow.condition.time)
        and _has_wider_network(wide.condition, narrow.condition)
        and _has_wider_tokens(wide.condition, narrow.condition)
    )


def _has_wider_subject(wide: Policy, narrow: Policy) -> bool:
    who, whom = wide.principal, narrow.principal
    words = ("tenant", "key", "owner", "subject", "tag", "kind")
    pairs = [(getattr(who, word), getattr(whom, word)) for word in words]
    pairs += [(globs, whom.attributes.get(name, ())) for name, globs in who.attributes.items()]
    pairs += [(getattr(wide.resource, word), getattr(narrow.resource, word)) for word in ("model", "region")]
    pairs.append((actions_of(wide), actions_of(narrow)))
    return all(_includes(globs, narrower, covers) for globs, narrower in pairs)


def _has_wider_time(wide: PolicyTime | None, narrow: PolicyTime | None) -> bool:
    return wide is None or wide == narrow


def _has_wider_network(wide: PolicyCondition, narrow: PolicyCondition) -> bool:
    return (
        _includes(wide.ip, narrow.ip, _covers_network)
        and _includes(wide.country, narrow.country, str.__eq__)
        and (not wide.not_ip or bool(narrow.not_ip and all_within(wide.not_ip, narrow.not_ip)))
        and (not wide.not_country or bool(narrow.not_country and set(wide.not_country) <= set(narrow.not_country)))
    )


def _has_wider_tokens(wide: PolicyCondition, narrow: PolicyCondition) -> bool:
    if wide.tokens is None or narrow.tokens is None:
        return wide.tokens is None
    least, most = narrow.tokens.min, narrow.tokens.max
    low_enough = wide.tokens.min is None or (least is not None and wide.tokens.min <= least)
    return low_enough and (wide.tokens.max is None or (most is not None and wide.tokens.max >= most))


def _includes(wide: Sequence[str], narrow: Sequence[str], covered: Callable[[str, str], bool]) -> bool:
    """Is each of `narrow` covered by one of `wide`? An empty list asks nothing."""
    return not wide or (bool(narrow) and all(any(covered(one, each) for one in wide) for each in narrow))


def _covers_network(wide: str, narrow: str) -> bool:
    return all_within((narrow,), (wide,))
