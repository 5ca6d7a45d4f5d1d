from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.api.sse import SseDecoder
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.splice import Splice
from isochrone.upstream.transcript import Transcript
from tests.upstream import chunk, event


def joined(told: dict[str, str], *pieces: bytes) -> list[Any]:
    """What the client gets of a second telling, as chunks."""
    transcript, decoder, splice = Transcript(capture=True), SseDecoder(), Splice(told)
    events = [(event, transcript.read(event.data)) for event in decoder.feed(b"".join(pieces))]
    return [json.loads(line[6:]) for line in splice.join(events).splitlines() if line]


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [{"type": "text", "text": "b"}]},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"reasoning": {"steps": ["a"]}},
    ],
)
def test_second_telling_that_is_no_text_is_another_answer(fields: dict[str, Any]) -> None:
    with pytest.raises(AttemptFailed) as caught:
        joined({"content": "a b"}, chunk({"content": "a "}), chunk(fields), chunk({"content": "b c"}))
    assert caught.value.cause is Cause.DIVERGED


def test_facts_beside_the_text_do_not_hinder_the_joining() -> None:
    rest = joined({"reasoning": "a b"}, chunk({"reasoning": "a ", "channel": "analysis"}), chunk({"reasoning": "b c"}))
    assert [said["choices"][0]["delta"] for said in rest] == [{"reasoning": " c"}]


def test_end_that_says_more_than_its_reason_is_joined() -> None:
    end = {"index": 0, "text": "b c", "finish_reason": "stop", "stop_reason": 128009, "usage": {"prompt_tokens": 1}}
    (rest,) = joined({"text": "a b"}, event({"choices": [{"index": 0, "text": "a "}]}), event({"choices": [end]}))
    assert rest["choices"] == [{**end, "text": " c"}]


def test_fields_beside_the_text_do_not_hinder_the_joining() -> None:
    rest = joined(
        {"content": "a b"}, chunk({"content": "a ", "token_id": 12}), chunk({"content": "b c", "token_id": 7})
    )
    assert [said["choices"][0]["delta"]["content"] for said in rest] == [" c"]
