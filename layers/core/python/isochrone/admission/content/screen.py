"""What a request must pass before anything is done for it, as far as its contents go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from isochrone.admission.content.moderation import Moderation
from isochrone.admission.content.rules import DenyRules
from isochrone.api.errors import ContentRefused
from isochrone.api.requests import Ask
from isochrone.api.texts import texts_in, texts_of
from isochrone.api.trail import Trail
from isochrone.settings import ContentRule

Count = Callable[[str], object]


class Screen:
    """The operator's `rules`, then the `moderation`, if there is one. `count` is told of what was refused and flagged:
    `content_refused`, `content_flagged`, `content_flagged_after`."""

    def __init__(self, rules: Sequence[ContentRule], moderation: Moderation | None, *, count: Count) -> None:
        self._rules = DenyRules(rules)
        self._moderation = moderation
        self._count = count

    def obey(self, ask: Ask, trail: Trail) -> None:
        """Raises ContentRefused; the trail gets the rule, `content/NAME`."""
        if name := self._rules.broken_by(ask):
            trail.rule = f"content/{name}"
            self._count("content_refused")
            raise ContentRefused(f"The request breaks the rule {name!r} for contents.")

    def excludes(self, ask: Ask, models: Collection[str]) -> set[str]:
        """Those of `models` that must not see the request in the place of its own."""
        return self._rules.broken_for(ask, models)

    async def moderate(self, ask: Ask, trail: Trail) -> None:
        """Raises ContentRefused, and NothingAlive where the moderation has no word on it and must have one. The trail
        gets `moderation/CATEGORY`."""
        if self._moderation and (categories := await self._moderation.flags(texts_of(ask))):
            trail.rule = _rule(categories)
            self._count("content_flagged")
            raise ContentRefused(f"The request was flagged by moderation: {', '.join(categories)}.")

    def looks_at_answers(self) -> bool:
        """Is the answer that came just now to be looked at?"""
        return self._moderation is not None and self._moderation.is_sampled()

    async def look_at(self, body: dict[str, Any]) -> str | None:
        """The rule that an answer breaks (`moderation/CATEGORY,...`), for the audit. It cannot be taken back. Never
        raises."""
        texts = texts_in(body.get("choices"))
        categories = await self._moderation.flags_afterwards(texts) if self._moderation else ()
        if not categories:
            return None
        self._count("content_flagged_after")
        return _rule(categories)


def _rule(categories: Sequence[str]) -> str:
    return f"moderation/{','.join(categories)}"
