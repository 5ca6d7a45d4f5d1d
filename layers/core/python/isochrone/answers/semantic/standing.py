"""What is known of one tenant and model as a whole: what comparisons taught the decision, and how its hits did.

It is one document of the fleet table for each, so all edges of a region learn together. Without that table every
process learns for itself.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any

import msgspec
from msgspec import Struct, field

from isochrone.answers.semantic.decision import Experience
from isochrone.answers.semantic.shadow import Watch
from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

# Another edge's switch-off is heard within this time.
_FRESH_SECONDS = 10.0
# Nobody asked for so long: what was learned may not be true any more.
_LIVES_SECONDS = 30 * 86_400.0
# Lessons are told together: a document of some kilobytes is written each time.
_SHARE_SECONDS = 5.0
_MOST_UNTOLD = 50
_PAIRS_AT_ONCE = 1_000
_TRIES = 3


class Standing(Struct):
    """Plain data, so that it can be a document; some kilobytes."""

    experience: Experience = field(default_factory=Experience)
    watch: Watch = field(default_factory=Watch)


Lesson = Callable[[Standing], None]


class _Held:
    """One standing as the table had it at `read_at`, with the lessons that the table does not have yet."""

    def __init__(self, standing: Standing, version: int, read_at: float) -> None:
        self.standing = standing
        self.version = version
        self.read_at = read_at
        self.shared_at = -inf
        self.untold: list[Lesson] = []

    def learn(self, lesson: Lesson) -> None:
        lesson(self.standing)
        self.untold.append(lesson)

    def replace(self, standing: Standing, version: int, read_at: float) -> None:
        """What the table has now, and on top what it does not have yet."""
        self.standing, self.version, self.read_at = standing, version, read_at
        for lesson in self.untold:
            lesson(standing)


class Standings:
    """The standing of every tenant and model that was asked for lately. Times are epoch seconds."""

    def __init__(self, store: FleetStore | None) -> None:
        self._store = store
        self._all: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    async def of(self, tenant: str, model: str, *, now: float) -> Standing:
        """At most ten seconds old; the last one known while the table cannot be reached."""
        held = self._hold(tenant, model)
        if self._store and now - held.read_at >= _FRESH_SECONDS:
            await self._refresh(self._store, _name(tenant, model), held, now)
        return held.standing

    async def teach(self, tenant: str, model: str, lesson: Lesson, *, now: float, at_once: bool = False) -> Standing:
        """Learn here now, and give the standing after it.

        It is shared with the next lesson that comes five seconds after the last that was, or `at_once`. When another
        edge was faster, it is learned again on top of what that one wrote.
        """
        held = self._hold(tenant, model)
        held.learn(lesson)
        if self._store is None:
            held.untold.clear()
        elif at_once or len(held.untold) >= _MOST_UNTOLD or now - held.shared_at >= _SHARE_SECONDS:
            held.shared_at = now
            await self._share(self._store, _name(tenant, model), held, now)
        return held.standing

    def report(self, tenant: str | None) -> list[dict[str, Any]]:
        """What this process knows of one tenant, or of all (None), for people: `off_until` is epoch seconds."""
        return [
            {
                "tenant": whose,
                "model": model,
                "learned": held.standing.experience.learned,
                "checked": round(held.standing.watch.same + held.standing.watch.different),
                "different": round(held.standing.watch.different),
                "off_until": held.standing.watch.off_until or None,
            }
            for (whose, model), held in self._all.items()
            if tenant in (None, whose)
        ]

    def _hold(self, tenant: str, model: str) -> _Held:
        held = self._all.setdefault((tenant, model), _Held(Standing(), 0, -inf))
        self._all.move_to_end((tenant, model))
        while len(self._all) > _PAIRS_AT_ONCE:
            self._all.popitem(last=False)
        return held

    async def _refresh(self, store: FleetStore, name: str, held: _Held, now: float) -> None:
        held.read_at = now  # also when it fails: nobody else is to wait for it
        try:
            document, version = await store.read(name, now=now)
        except StoreUnavailable as error:
            log.warning("fleet store unavailable, semantic answers go on with what they knew: %s", error)
            return
        held.replace(_standing_of(document), version, now)

    async def _share(self, store: FleetStore, name: str, held: _Held, now: float) -> None:
        for _ in range(_TRIES):
            await self._refresh(store, name, held, now)
            told = list(held.untold)
            document: dict[str, Any] = msgspec.to_builtins(held.standing)
            try:
                written = await store.write(name, document, version=held.version, expires=now + _LIVES_SECONDS)
            except StoreUnavailable as error:
                log.warning("fleet store unavailable, what semantic answers learned is shared later: %s", error)
                break
            if written:
                held.version = written
                held.untold = [lesson for lesson in held.untold if lesson not in told]
                return
        del held.untold[:-_MOST_UNTOLD]


def _name(tenant: str, model: str) -> str:
    return f"semantic/{tenant}:{model}"  # either may have a slash, a tenant has no colon


def _standing_of(document: dict[str, Any] | None) -> Standing:
    """What another version of this program wrote, and this one cannot read, is forgotten."""
    try:
        return msgspec.convert(document, Standing) if document else Standing()
    except msgspec.ValidationError:
        return Standing()
