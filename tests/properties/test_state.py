"""The memory tier beside its simplest model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isochrone.answers.memory_tier import MemoryTier

seconds = st.integers(0, 100)


class MemoryTierMachine(RuleBasedStateMachine):
    """The model: a dict of the last put per key. What the tier gives is that value, or nothing."""

    MAX_BYTES = 3000
    TTL = 50.0

    def __init__(self) -> None:
        super().__init__()
        self.tier = MemoryTier(max_bytes=self.MAX_BYTES, ttl=self.TTL)
        self.model: dict[str, tuple[bytes, float]] = {}
        self.now = 0.0

    keys = st.sampled_from("abcdefghij")

    @rule(seconds=seconds)
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(key=keys, size=st.integers(0, 3500), fill=st.binary(min_size=1, max_size=1), lives=st.integers(0, 200))
    def put(self, key: str, size: int, fill: bytes, lives: int) -> None:
        value = fill * size
        self.tier.put(key, value, fresh_until=self.now + lives / 2, expires=self.now + lives, now=self.now)
        self.model[key] = (value, self.now + lives)
        if size < 2000 and lives > 0:
            assert self.value(key) == value

    @rule(key=keys)
    def get(self, key: str) -> None:
        held = self.tier.get(key, now=self.now)
        value, expires = self.model.get(key, (None, 0.0))
        assert held is None or (held.value == value and self.now < expires)
        assert held is None or held.ask_again_at <= self.now + self.TTL

    @rule(key=keys)
    def discard(self, key: str) -> None:
        self.tier.discard(key)
        self.model.pop(key, None)
        assert self.value(key) is None

    def value(self, key: str) -> bytes | None:
        held = self.tier.get(key, now=self.now)
        return held.value if held else None

    @invariant()
    def is_within_its_bounds(self) -> None:
        assert 0 <= self.tier.values.bytes_held <= self.MAX_BYTES
        assert (self.tier.values.bytes_held == 0) == (len(self.tier.values) == 0)


TestMemoryTier = MemoryTierMachine.TestCase
TestMemoryTier.settings = settings(max_examples=100, stateful_step_count=40)
