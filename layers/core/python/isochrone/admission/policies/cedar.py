"""A policy as a rule of Cedar (https://docs.cedarpolicy.com), in its own language.

A rule asks about attributes that a request may lack: no address, no country, no claim. Cedar skips a rule that asks for
what is not there, which would open what a denying rule closes. So every such question is guarded: without the attribute
an allowing rule does not match, and a denying one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from isochrone.admission.networks import normal_networks
from isochrone.policy_contradictions import actions_of
from isochrone.settings import Policy, PolicyTime

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_END = 24 * 60


class Part(NamedTuple):
    """One thing that a rule asks, in Cedar's expressions: it `holds`, where the attribute that it `needs` is there."""

    name: str
    holds: str
    needs: str = ""

    def when_allowing(self) -> str:
        return f"{self.needs} && ({self.holds})" if self.needs else f"({self.holds})"

    def when_denying(self) -> str:
        return f"(!({self.needs}) || ({self.holds}))" if self.needs else f"({self.holds})"


def rule(policy: Policy) -> str:
    """The whole rule, with the policy's id as its annotation."""
    allows = policy.effect == "allow"
    effect = "permit" if allows else "forbid"
    conditions = [part.when_allowing() if allows else part.when_denying() for part in parts(policy)]
    when = " when {\n  " + " &&\n  ".join(conditions) + "\n}" if conditions else ""
    return f"{annotated(policy.id)}\n{effect} (principal, {_actions(policy)}, resource){when};"


def annotated(name: str) -> str:
    return f"@id({quoted(name)})"


def _actions(policy: Policy) -> str:
    named = actions_of(policy)
    return f"action in [{', '.join(f'Action::{quoted(name)}' for name in named)}]" if named else "action"


def parts(policy: Policy) -> Iterator[Part]:
    """What the rule asks beside the action, named by its keys; all of them must hold."""
    yield from _about_principal(policy)
    yield from _about_resource(policy)
    yield from _about_time(policy.condition.time)
    yield from _about_network(policy)
    yield from _about_tokens(policy)


def _about_principal(policy: Policy) -> Iterator[Part]:
    who = policy.principal
    if who.tenant:
        yield Part("principal.tenant", _like("context.tenant", who.tenant))
    for name in ("key", "owner", "subject"):
        if globs := getattr(who, name):
            yield Part(f"principal.{name}", _like(f"context.{name}", globs), f"context has {name}")
    if who.tag:
        yield Part("principal.tag", f"context.tags.containsAny({_set(who.tag)})")
    if who.kind:
        yield Part("principal.kind", f"{_set(who.kind)}.contains(context.kind)")
    for name, globs in who.attributes.items():
        attribute = f"context.attributes[{quoted(name)}]"
        yield Part(f"principal.attributes.{name}", _like(attribute, globs), f"context.attributes has {quoted(name)}")


def _about_resource(policy: Policy) -> Iterator[Part]:
    for name in ("model", "region"):
        if globs := getattr(policy.resource, name):
            yield Part(f"resource.{name}", _like(f"context.{name}", globs), f"context has {name}")


def _about_time(time: PolicyTime | None) -> Iterator[Part]:
    if time is None:
        return
    if has_window(time):
        yield Part("condition.time", _window(time))
    if time.after:
        yield Part("condition.time.after", f"context.now >= {milliseconds(time.after.timestamp())}")
    if time.before:
        yield Part("condition.time.before", f"context.now < {milliseconds(time.before.timestamp())}")


def _about_network(policy: Policy) -> Iterator[Part]:
    given = policy.condition
    for name, networks, sign in (("ip", given.ip, ""), ("not_ip", given.not_ip, "!")):
        if networks:
            yield Part(f"condition.{name}", f"{sign}({_within(networks)})", "context has ip")
    for name, countries, sign in (("country", given.country, ""), ("not_country", given.not_country, "!")):
        if countries:
            inside = f"{sign}({_set(countries)}.contains(context.country))"
            yield Part(f"condition.{name}", inside, "context has country")


def _about_tokens(policy: Policy) -> Iterator[Part]:
    if tokens := policy.condition.tokens:
        bounds = ((">=", tokens.min), ("<=", tokens.max))
        asked = [f"context.tokens {sign} {bound}" for sign, bound in bounds if bound is not None]
        yield Part("condition.tokens", " && ".join(asked) or "true", "context has tokens")


# -- time ------------------------------------------------------------------------------------------------------------


def has_window(time: PolicyTime) -> bool:
    """Does it ask for the clock or the day of a zone?"""
    return bool(time.from_ or time.until or time.days)


def bounds(time: PolicyTime) -> tuple[int, int]:
    """The window of a day in minutes; where it ends below its beginning it goes on over midnight."""
    return _minutes(time.from_ or "00:00"), _minutes(time.until or "24:00")


def _minutes(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)


def _window(time: PolicyTime) -> str:
    """A window over midnight belongs to the day on which it begins."""
    start, end = bounds(time)
    days = [DAYS.index(day) for day in time.days]
    local = f"context.local[{quoted(time.zone)}]"
    if start < end:
        return " && ".join(_pieces(local, start, end, days)) or "true"
    if start == end:
        return "false"
    evening = " && ".join(_pieces(local, start, _DAY_END, days))
    morning = " && ".join(_pieces(local, 0, end, [(day + 1) % 7 for day in days])) if end else "false"
    return f"({evening}) || ({morning})"


def _pieces(local: str, start: int, end: int, days: Sequence[int]) -> Iterator[str]:
    if start > 0:
        yield f"{local}.minute >= {start}"
    if end < _DAY_END:
        yield f"{local}.minute < {end}"
    if days:
        yield f"[{', '.join(map(str, days))}].contains({local}.day)"


def milliseconds(moment: float) -> int:
    """Cedar has whole numbers only."""
    return round(moment * 1000)


# -- words -----------------------------------------------------------------------------------------------------------


def _like(attribute: str, globs: Sequence[str]) -> str:
    return " || ".join(f"{attribute} like {quoted(glob)}" for glob in globs)


def _within(networks: Sequence[str]) -> str:
    return " || ".join(f'context.ip.isInRange(ip("{network}"))' for network in normal_networks(networks))


def _set(words: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, words))}]"


def quoted(text: str) -> str:
    """As a literal. A `*` in it is any text after `like`, and itself elsewhere, as everywhere in Cedar."""
    return '"' + "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else _escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
