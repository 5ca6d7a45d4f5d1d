"""Two processes with one store beside their simplest model: what was kept last, and when."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from isochrone.answers.completion import Answer
from isochrone.answers.library import JITTER, Library
from isochrone.answers.memory_tier import MemoryTier
from isochrone.stores.memory import MemoryAnswerStore
from tests.inquiries import inquiry

TTL, MEMORY_TTL, GRACE = 100.0, 20.0, 30.0


class Kept(NamedTuple):
    """What the store held from `since` on; None for nothing."""

    said: int | None
    since: float


class LibraryMachine(RuleBasedStateMachine):
    """What a process is given was never past its time, and was what the store held a short while ago at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.chance = 0.5
        self.store = MemoryAnswerStore(clock=lambda: self.now)
        self.libraries = [
            Library(self.store, MemoryTier(max_bytes=10**6, ttl=MEMORY_TTL), chance=lambda: self.chance)
            for _ in range(2)
        ]
        self.history = [Kept(None, 0.0)]
        self.made: dict[int, float] = {}
        self.is_reliable = True

    processes = st.sampled_from([0, 1])

    @initialize(is_reliable=st.booleans())
    def choose(self, is_reliable: bool) -> None:
        self.is_reliable = is_reliable

    @rule(seconds=st.sampled_from([0.5, 5.0, 19.0, 21.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(process=processes, chance=st.floats(0, 1))
    @precondition(lambda self: not self.store.failing)
    def keep(self, process: int, chance: float) -> None:
        self.chance = chance
        said = len(self.made)
        self.made[said] = self.now
        choice = {"message": {"content": str(said)}, "finish_reason": "stop"}
        answer = Answer("chat", "pool", self.now, {"choices": [choice]})
        assert asyncio.run(self.libraries[process].keep(self.asked(GRACE), answer))
        self.history.append(Kept(said, self.now))

    @rule(process=processes)
    @precondition(lambda self: not self.store.failing)
    def forget(self, process: int) -> None:
        assert asyncio.run(self.libraries[process].forget("f"))
        self.history.append(Kept(None, self.now))

    @rule()
    @precondition(lambda self: not self.is_reliable)
    def store_fails_or_comes_back(self) -> None:
        self.store.failing = not self.store.failing

    @rule(process=processes, grace=st.sampled_from([0.0, GRACE]), consistent=st.booleans())
    def look_up(self, process: int, grace: float, consistent: bool) -> None:
        look_up = self.libraries[process].look_up(self.asked(grace), now=self.now, consistent=consistent)
        known = asyncio.run(look_up)
        if known is None:
            return
        said = int(known.answer.body["choices"][0]["message"]["content"])
        age = self.now - self.made[said]
        assert age <= TTL * (1 + JITTER) + grace
        assert known.stale_for <= grace
        assert known.stale_for == 0 or age >= TTL * (1 - JITTER)
        if self.is_reliable:
            assert said in self.held_since(self.now if consistent else self.now - MEMORY_TTL)

    @rule(process=processes)
    @precondition(lambda self: not self.store.failing)
    def what_was_just_kept_is_known(self, process: int) -> None:
        newest = self.history[-1]
        known = asyncio.run(self.libraries[process].look_up(self.asked(0.0), now=self.now, consistent=True))
        if newest.said is not None and self.now - newest.since < TTL * (1 - JITTER):
            assert known
            assert known.answer.body["choices"][0]["message"]["content"] == str(newest.said)

    def asked(self, grace: float) -> Any:
        return inquiry(ttl=TTL, on_error=grace)

    def held_since(self, moment: float) -> set[int | None]:
        """All that the store held at `moment` or later."""
        ends = [later.since for later in self.history[1:]] + [self.now]
        return {kept.said for kept, end in zip(self.history, ends, strict=True) if end >= moment}


TestLibrary = LibraryMachine.TestCase
TestLibrary.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
