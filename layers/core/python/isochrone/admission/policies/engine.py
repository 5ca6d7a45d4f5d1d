"""Cedar (https://www.cedarpolicy.com) by way of cedarpy: rules that are parsed once, and asked often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cedarpy import Entities, PolicySet, is_authorized

_NOBODY = Entities.from_json_str("[]")
# What is asked about stands in the context; these are there because Cedar wants them.
_CALLER = {"type": "Caller", "id": "caller"}
_RESOURCE = {"type": "Resource", "id": "isochrone"}


class Verdict(NamedTuple):
    """What the rules say. `rules` are the ids of those that decided; `failed` says why they could not be asked."""

    allowed: bool
    rules: tuple[str, ...] = ()
    failed: str = ""


class Engine:
    """`rules` are whole rules in Cedar's language, each with an id. Raises ValueError for what is none."""

    def __init__(self, rules: Sequence[str]) -> None:
        self._policies = PolicySet.from_str("\n".join(rules))

    def ask(self, action: str, context: Mapping[str, Any]) -> Verdict:
        """A rule that fails, fails the request: Cedar goes on without it, and it might have denied."""
        request = {
            "principal": _CALLER,
            "action": {"type": "Action", "id": action},
            "resource": _RESOURCE,
            "context": context,
        }
        found = is_authorized(request, self._policies, _NOBODY)
        if errors := found.diagnostics.errors:
            return Verdict(False, failed=errors[0])
        return Verdict(found.allowed, tuple(found.diagnostics.id_annotations_by_reason.values()))
