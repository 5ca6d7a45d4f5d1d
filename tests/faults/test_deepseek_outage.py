"""Half an hour of the DeepSeek outage of January 2025; `python -m tests.faults.deepseek_outage` plays more of it."""

from __future__ import annotations

from tests.faults import played_time
from tests.faults.deepseek_outage import MINUTE, SLOTS, Minute, replay, tape


def test_outage_of_the_official_api_is_survived_with_one_small_pool_and_hardly_any_waste() -> None:
    minutes = tape(begin=12.25, hours=0.5)
    api_first, pool_first, no_retry, three_retries = played_time.run(replay(minutes, per_minute=12))
    assert no_retry.requests > 300
    assert no_retry.share_answered < three_retries.share_answered < 0.7
    for edge in (api_first, pool_first):
        assert edge.failures == {}
        assert edge.requests == no_retry.requests
        assert edge.wasted <= 0.05 * three_retries.wasted
        assert 0 < edge.pool.peak <= SLOTS
        assert edge.pool.wasted == 0
    assert api_first.api.attempts > pool_first.api.attempts


def test_official_api_that_comes_back_is_used_again_within_half_a_minute() -> None:
    minutes = [*5 * [Minute("empty", 0.0)], *2 * [Minute("ok", 1.0)]]
    api_first, *_ = played_time.run(replay(minutes, per_minute=30))
    back_at = 5 * MINUTE
    assert back_at <= min(api_first.api.answered_since) < back_at + 30
