from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.api.requests import CHAT, Ask
from isochrone.upstream.tally import tokens_heard, usage_heard, usage_of_whole
from isochrone.upstream.transcript import Transcript

ASK = Ask(CHAT, "m", stream=True, include_usage=True, fields={"messages": [{"role": "user", "content": "How far?"}]})


def told(*words: str, usage: Any = None) -> Transcript:
    transcript = Transcript(capture=True)
    for word in words:
        transcript.read(json.dumps({"choices": [{"delta": {"content": word}}], "usage": usage}).encode())
    return transcript


@pytest.mark.parametrize(("told_before", "prompt", "completion"), [(0, 20, 3), (7, 13, 10), (20, 0, 23), (21, 0, 23)])
def test_tokens_told_before_move_from_the_prompt_to_the_answer(told_before: int, prompt: int, completion: int) -> None:
    rest = {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
    assert usage_of_whole(rest, told_before=told_before) == {
        **rest,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": 23,
        "estimated": True,
    }


def test_engines_own_count_is_believed_before_that_of_its_events() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 9}
    assert tokens_heard(told("An ", "isochrone")) == 2
    assert tokens_heard(told("An ", "isochrone", usage=usage)) == 9
    assert tokens_heard(told("An ", "isochrone", usage={"completion_tokens": 0})) == 2
    assert usage_heard(told("An", usage=usage), ASK) == usage


def test_estimate_counts_an_event_as_a_token_at_the_least() -> None:
    usage = usage_heard(told(*"abcdefghij"), ASK)
    assert (usage["completion_tokens"], usage["estimated"]) == (10, True)
    assert usage["prompt_tokens"] > 0
