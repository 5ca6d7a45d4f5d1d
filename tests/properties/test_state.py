"""Small state machines beside their simplest models: health, the memory tier."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isochrone.answers.memory_tier import MemoryTier
from isochrone.routing.health import (
    CONSECUTIVE_FAILURES,
    DOUBT_SECONDS,
    EJECTION_BASE_SECONDS,
    EJECTION_CAP_SECONDS,
    PROBE_VERDICT_SECONDS,
    Health,
    Standing,
)

seconds = st.integers(0, 100)


class HealthMachine(RuleBasedStateMachine):
    """The model: failures in a row and since when, ejections in a row and until when; probes are said apart."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now = 100.0  # no attempt lasts longer
        self.failures = 0
        self.ejections = 0
        self.until = 0.0
        self.last_failure_unreachable = False
        self.down_until = 0.0
        self.judged_at = 0.0
        self.row_since = 0.0
        self.youngest_heard = 0.0

    @rule(seconds=seconds)
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(lasted=seconds)
    def an_attempt_succeeds(self, lasted: int) -> None:
        self.health.on_success(begun=self.now - lasted)
        self.youngest_heard = max(self.youngest_heard, self.now - lasted)
        if self.now - lasted >= self.judged_at:
            self.down_until = self.now
            if self.youngest_heard >= self.row_since:
                self.failures = self.ejections = 0

    @rule(lasted=seconds)
    def an_attempt_is_heard(self, lasted: int) -> None:
        self.health.on_first_token(begun=self.now - lasted)
        self.youngest_heard = max(self.youngest_heard, self.now - lasted)

    @rule(unreachable=st.booleans(), lasted=seconds)
    def an_attempt_fails(self, unreachable: bool, lasted: int) -> None:
        begun = self.now - lasted
        self.health.on_failure(self.now, "failed", unreachable=unreachable, begun=begun)
        if begun < self.judged_at:
            return
        if not self.failures:
            self.row_since = self.now
        self.failures += 1
        self.last_failure_unreachable = unreachable
        trial = self.ejections and begun >= self.until
        if trial or (not self.ejections and self.failures >= CONSECUTIVE_FAILURES):
            self.ejections += 1
            self.judged_at = self.now
            self.until = self.now + min(EJECTION_CAP_SECONDS, EJECTION_BASE_SECONDS * self.ejections)

    @rule(reached=st.booleans())
    def a_probe_comes_back(self, reached: bool) -> None:
        self.health.on_probe(self.now, reached=reached, reason="no answer")
        if not reached and self.now >= self.down_until:
            self.judged_at = self.now
        self.down_until = self.now if reached else self.now + PROBE_VERDICT_SECONDS
        if reached and (self.last_failure_unreachable or not self.failures):
            self.failures = self.ejections = 0
            self.last_failure_unreachable = False

    @invariant()
    def stands_where_the_model_says(self) -> None:
        expected = Standing.HEALTHY
        if self.now < self.down_until:
            expected = Standing.UNREACHABLE
        elif self.ejections:
            expected = Standing.EJECTED if self.now < self.until else Standing.TRIAL
        assert self.health.standing(self.now) is expected

    @invariant()
    def is_never_ejected_below_the_threshold(self) -> None:
        if self.failures < CONSECUTIVE_FAILURES:
            assert self.health.retry_in(self.now) == 0

    @invariant()
    def no_ejection_is_longer_than_the_cap_or_for_good(self) -> None:
        assert self.health.retry_in(self.now) <= EJECTION_CAP_SECONDS
        assert self.health.standing(self.now + EJECTION_CAP_SECONDS) is not Standing.EJECTED

    @invariant()
    def doubts_are_fresh_failures_only(self) -> None:
        assert 0 <= self.health.doubts(self.now) < CONSECUTIVE_FAILURES
        assert self.health.doubts(self.now + DOUBT_SECONDS) == 0


TestHealth = HealthMachine.TestCase
TestHealth.settings = settings(max_examples=100, stateful_step_count=40)


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
        self.tier.put(key, value, expires=self.now + lives, now=self.now)
        self.model[key] = (value, self.now + min(lives, self.TTL))
        if size < 2000 and lives > 0:
            assert self.tier.get(key, now=self.now) == value

    @rule(key=keys)
    def get(self, key: str) -> None:
        found = self.tier.get(key, now=self.now)
        value, expires = self.model.get(key, (None, 0.0))
        assert found is None or (found == value and self.now < expires)

    @rule(key=keys)
    def discard(self, key: str) -> None:
        self.tier.values.discard(key)
        self.model.pop(key, None)
        assert self.tier.get(key, now=self.now) is None

    @invariant()
    def is_within_its_bounds(self) -> None:
        assert 0 <= self.tier.values.bytes_held <= self.MAX_BYTES
        assert (self.tier.values.bytes_held == 0) == (len(self.tier.values) == 0)


TestMemoryTier = MemoryTierMachine.TestCase
TestMemoryTier.settings = settings(max_examples=100, stateful_step_count=40)
