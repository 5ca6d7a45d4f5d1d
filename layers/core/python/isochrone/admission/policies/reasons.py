"""Why rules say what they say: Cedar is asked about each part of each rule by itself. For people, not for requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from isochrone.admission.policies import cedar
from isochrone.admission.policies.engine import Engine
from isochrone.admission.policies.facts import Question, context, local_times
from isochrone.policy_contradictions import actions_of
from isochrone.settings import Policy


class Reason(NamedTuple):
    """Of one rule: does it match, and the keys because of which it does not. `missing` are those that ask for what is
    not known of the request: they keep an allowing rule from matching, and let a denying one match."""

    rule: str
    effect: str
    matches: bool
    unlike: tuple[str, ...]
    missing: tuple[str, ...]


def reasons(policies: Sequence[Policy], question: Question, region: str | None, *, now: float) -> list[Reason]:
    """In the order of the rules; `region` is where the request would be answered, None when that is left open."""
    return [_reason(policy, question, region, now) for policy in policies]


def _reason(policy: Policy, question: Question, region: str | None, now: float) -> Reason:
    parts = list(cedar.parts(policy))
    holding = _holding(policy, parts, question, region, now)
    missing = tuple(part.name for part in parts if part.needs and f"{part.name}?" not in holding)
    unlike = tuple(part.name for part in parts if part.name not in holding and part.name not in missing)
    if (named := actions_of(policy)) and question.action not in named:
        unlike = ("action", *unlike)
    matches = not unlike and (policy.effect == "deny" or not missing)
    return Reason(policy.id, policy.effect, matches, unlike, missing)


def _holding(
    policy: Policy, parts: Sequence[cedar.Part], question: Question, region: str | None, now: float
) -> set[str]:
    """The names of the parts that hold, and with a `?` of those whose attribute is there."""
    rules = [_alone(part.name, part.when_allowing()) for part in parts]
    rules += [_alone(f"{part.name}?", part.needs) for part in parts if part.needs]
    time = policy.condition.time
    zones = {time.zone: ZoneInfo(time.zone)} if time else {}
    facts = context(question, region, tags=policy.principal.tag, local=local_times(zones, now), now=now)
    return set(Engine(rules).ask(question.action, facts).rules)


def _alone(name: str, expression: str) -> str:
    return f"{cedar.annotated(name)}\npermit (principal, action, resource) when {{ {expression} }};"
