"""What edges tell each other: when it is worth a write, and what a document may say."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.routing.snapshot import SPEED_SECONDS, Part, is_worth_writing, snapshot_of, stamped

PROBE = ("pool-eu", "probe")
SPEED = ("pool-eu", "speed m")


def test_news_is_stamped_by_the_clock_and_after_all_that_was_heard() -> None:
    assert stamped({}, 100.0, None).stamp == 100.0
    assert stamped({}, 100.0, Part(50.0, {})).stamp == 100.0
    assert stamped({}, 100.0, Part(190.0, {})).stamp > 190.0


def test_news_of_health_is_worth_a_write_at_once() -> None:
    assert is_worth_writing({PROBE: Part(1.001, {})}, {PROBE: Part(1.0, {})})
    assert is_worth_writing({PROBE: Part(1.0, {})}, {})
    assert not is_worth_writing({PROBE: Part(1.0, {})}, {PROBE: Part(1.0, {})})


def test_speed_alone_is_worth_a_write_now_and_then() -> None:
    there = {SPEED: Part(100.0, {"first_token_ms": 1.0})}
    assert not is_worth_writing({SPEED: Part(100.0 + SPEED_SECONDS - 1, {"first_token_ms": 2.0})}, there)
    assert is_worth_writing({SPEED: Part(100.0 + SPEED_SECONDS, {"first_token_ms": 2.0})}, there)
    assert is_worth_writing({SPEED: Part(0.0, {})}, {})


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"backends": []},
        {"backends": {"pool-eu": {"probe": 1}}},
        {"backends": {"pool-eu": {"probe": {"stamp": "1", "note": {}}}}},
        {"backends": {"pool-eu": {"probe": {"stamp": 1e300, "note": {}}}}},
        {"backends": {"pool-eu": {"probe": {"stamp": 1.0, "note": []}}}},
    ],
)
def test_document_that_makes_no_sense_says_nothing(document: dict[str, Any] | None) -> None:
    assert snapshot_of(document, [PROBE]) == {}


def test_more_than_is_understood_is_left_out() -> None:
    parts = {"probe": {"stamp": 1.0, "note": {"at": 1.0}}, "of a later version": {"stamp": 2.0, "note": {}}}
    document = {"backends": {"pool-eu": parts, "gone": parts}, "more": 1}
    assert snapshot_of(document, [PROBE]) == {PROBE: Part(1.0, {"at": 1.0})}
