"""Edges of one region tell each other what they see of the backends, through one document of the fleet table.

    refresh   read ──▶ merge ──▶ what is news goes into this edge's fleet        before a plan, when memory is old
    publish   what is news in this edge's fleet ──▶ merge ──▶ compare-and-set    after a reply, or each second

Neither raises: without the table an edge goes on with what it knows. What others saw is carried over to this process's
clock and never lies in the future there, nor before what it supersedes: a clock that is wrong locks no backend out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from isochrone.routing.circuit import CircuitNote
from isochrone.routing.ejection import EjectionNote
from isochrone.routing.fleet import BackendState, Fleet
from isochrone.routing.probe import Probe
from isochrone.routing.snapshot import (
    SPEED,
    TICK_SECONDS,
    Key,
    Part,
    document_of,
    is_worth_writing,
    merge,
    newer,
    snapshot_of,
    stamped,
)
from isochrone.routing.speed import SpeedNote
from isochrone.stores.protocols import FleetStore, StoreUnavailable

log = logging.getLogger("isochrone")

DOCUMENT = "health"
FRESH_SECONDS = 2.0
READ_SECONDS = 0.25
WRITE_SECONDS = 1.0
# A table that did not answer is spared for a while: then one request waits for it now and then, not all of them.
SPARED_SECONDS = 10.0
_TRIES = 3
_PAUSE_SECONDS = 0.05
_KEPT_SECONDS = 3600.0
_REASON_LENGTH = 200

Clock = Callable[[], float]


class Topic(NamedTuple):
    """One thing to speak of: the type of its notes, what this edge says of it, and who hears what others say."""

    type: type[Struct]
    export: Callable[[], Any]
    absorb: Callable[[Any, float], None]


def topics_of(state: BackendState) -> Iterator[tuple[Key, Topic]]:
    """What edges tell each other of one backend. Its probe comes last: it may end what the others brought about."""
    name = state.facts.name
    yield (name, "ejection"), Topic(EjectionNote, state.ejection.export, state.absorb_ejection)
    for offer in state.offers:
        yield (name, f"circuit {offer.model}"), Topic(CircuitNote, offer.circuit.export, offer.absorb_circuit)
        yield (name, SPEED + offer.model), Topic(SpeedNote, offer.speed.export, offer.speed.absorb)
    yield (name, "probe"), Topic(Probe, state.last_probe, state.absorb_probe)


class Exchange:
    """One edge's part in it. `clock` tells epoch seconds, `monotonic` is the clock of its fleet, `chance` gives numbers
    in [0, 1). `failures` counts the reads and writes that came to nothing."""

    def __init__(
        self, fleet: Fleet, store: FleetStore, *, clock: Clock, monotonic: Clock, chance: Callable[[], float]
    ) -> None:
        self.failures = 0
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._chance = chance
        self._topics = {key: topic for state in fleet.states for key, topic in topics_of(state)}
        self._said: dict[Key, Any] = {}
        self._known: dict[Key, Part] = {}
        self._there: dict[Key, Part] = {}
        self._version = 0
        self._read_at = -inf
        self._spared_until = -inf
        self._is_alone = False

    async def refresh(self, *, max_age: float = FRESH_SECONDS) -> None:
        """Read what others saw, unless what is known is younger than `max_age` seconds."""
        now = self._monotonic()
        if now - self._read_at < max_age or now < self._spared_until:
            return
        self._read_at = now  # before the answer, so that only one of many requests reads
        await self._within(READ_SECONDS, self._read())

    async def publish(self) -> None:
        """Tell the others what this edge saw, if any of it is news to them."""
        if self._monotonic() >= self._spared_until:
            await self._within(WRITE_SECONDS, self._write())

    async def _within(self, seconds: float, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await work
            self._is_alone = False
        except (StoreUnavailable, TimeoutError) as error:
            self._give_up(str(error) or f"no answer within {seconds:g} s")

    def _give_up(self, why: str) -> None:
        if not self._is_alone:
            log.warning("what other edges see is not known while the fleet table is gone: %s", why)
        self._is_alone = True
        self.failures += 1
        self._spared_until = self._monotonic() + SPARED_SECONDS

    async def _read(self) -> None:
        document, self._version = await self._store.read(DOCUMENT, now=self._clock())
        self._there = snapshot_of(document, self._topics)
        self._gather()
        news = newer(self._there, self._known)
        self._known = merge(self._known, news)
        for key in self._topics:
            if key in news:
                self._absorb(key, news[key])
        if news:  # what changed here by hearing it needs no telling
            self._said = {key: topic.export() for key, topic in self._topics.items()}

    async def _write(self) -> None:
        for _ in range(_TRIES):
            self._gather()
            if not is_worth_writing(self._known, self._there):
                return
            told = dict(self._known)
            expires = self._clock() + _KEPT_SECONDS
            version = await self._store.write(DOCUMENT, document_of(told), version=self._version, expires=expires)
            if version:
                self._there, self._version = told, version
                return
            await asyncio.sleep(_PAUSE_SECONDS * self._chance())
            await self._read()
        self.failures += 1

    def _gather(self) -> None:
        """Take down what was seen here since it was last taken down, or heard."""
        now = self._clock()
        for key, topic in self._topics.items():
            note = topic.export()
            if note is not None and note != self._said.get(key):
                self._said[key] = note
                self._known[key] = stamped(self._written(note, now), now, self._known.get(key))

    def _written(self, note: Any, now: float) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(note)
        fields["at"] += now - self._monotonic()
        if "reason" in fields:
            fields["reason"] = fields["reason"][:_REASON_LENGTH]
        return fields

    def _absorb(self, key: Key, part: Part) -> None:
        topic, now = self._topics[key], self._monotonic()
        try:
            note: Any = msgspec.convert(part.note, topic.type)
        except msgspec.ValidationError:
            return
        at = note.at - (self._clock() - now)
        if heard := self._said.get(key):
            at = max(at, heard.at + TICK_SECONDS)
        topic.absorb(msgspec.structs.replace(note, at=min(at, now)), now)
