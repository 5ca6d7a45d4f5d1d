"""Who may do what, by rules on attributes (`[[policy]]`): denied unless a rule allows it, and a denying rule wins.

    shared ─▶ book ─▶ engine (Cedar) ◀─ cedar (the rules as Cedar's text)
                └──▶ facts (what is known of a request)

`shared` has the rules of the configuration and of the directory; `reading` takes them from JSON; `examples` and
`reasons` are for people who write them. Only `engine` imports Cedar, and only where there are rules it is imported.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from isochrone.admission.principal import Principal

Action = Literal["generate", "read", "revoke"]


class Decision(NamedTuple):
    """May it be done? `rule` is the id of the rule that decided, None where none did; `reason` is one line.

    `regions` are those where an allowed request may be answered, None where the rules say nothing of regions.
    """

    allowed: bool
    rule: str | None
    reason: str
    regions: frozenset[str] | None = None


class Place(Protocol):
    """Where an address is."""

    @property
    def country(self) -> str | None:
        """ISO 3166 code, upper case."""


class Asker(Protocol):
    """Who asks, and from where; `errand.Caller` is one."""

    @property
    def principal(self) -> Principal: ...

    @property
    def address(self) -> str:
        """In its one normal form, "" when unknown."""

    @property
    def location(self) -> Place | None: ...
