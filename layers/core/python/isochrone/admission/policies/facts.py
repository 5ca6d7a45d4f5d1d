"""What is known of a request, as the rules ask about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from isochrone.admission.policies import Action, Asker
from isochrone.admission.policies.cedar import milliseconds
from isochrone.admission.principal import Principal
from isochrone.globs import matches


class Question(NamedTuple):
    """One request. None, and "" of `address` and `country`, where something is not known; `tokens` is at most what it
    will take, in and out."""

    action: Action
    principal: Principal
    address: str = ""
    country: str = ""
    model: str | None = None
    tokens: int | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that the rules can ask about it but its tokens, hashable."""
        who = self.principal
        named = (who.tenant, who.key_id, who.owner, who.subject, who.kind, who.tags)
        return (*named, tuple(who.attributes.items()), self.action, self.model, self.address, self.country)


def question_of(asker: Asker, action: Action, *, model: str | None, tokens: int | None) -> Question:
    place = asker.location
    country = (place.country if place else None) or ""
    return Question(action, asker.principal, asker.address, country, model, tokens)


def context(
    question: Question,
    region: str | None,
    *,
    tags: Iterable[str],
    local: Mapping[str, Mapping[str, int]],
    now: float,
) -> dict[str, Any]:
    """The record that Cedar's rules look into; what is not known is not in it.

    `tags` are the patterns that rules ask about. Those that one of the caller's tags is like stand for its tags: Cedar
    compares the members of a set as they are.
    """
    who = question.principal
    maybe = {
        "key": who.key_id,
        "owner": who.owner,
        "subject": who.subject,
        "model": question.model,
        "region": region,
        "country": question.country,
    }
    facts: dict[str, Any] = {name: value for name, value in maybe.items() if value}
    if question.address:
        facts["ip"] = {"__extn": {"fn": "ip", "arg": question.address}}
    if question.tokens is not None:
        facts["tokens"] = question.tokens
    fitting = [glob for glob in tags if any(matches(glob, tag) for tag in who.tags)]
    attributes = {name: value for name, value in who.attributes.items() if value}
    return facts | {
        "tenant": who.tenant,
        "kind": who.kind,
        "tags": fitting,
        "attributes": attributes,
        "now": milliseconds(now),
        "local": local,
    }


def local_times(zones: Mapping[str, tzinfo], now: float) -> dict[str, dict[str, int]]:
    """The minute of the day and the day of the week (0 is Monday) in each zone at `now` (epoch seconds)."""
    moments = {name: datetime.fromtimestamp(now, zone) for name, zone in zones.items()}
    return {
        name: {"minute": moment.hour * 60 + moment.minute, "day": moment.weekday()} for name, moment in moments.items()
    }
