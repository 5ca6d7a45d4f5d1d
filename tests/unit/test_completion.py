from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.answers.completion import Answer, from_bytes, is_complete, replay_body, replay_stream, to_bytes
from isochrone.api.requests import CHAT
from isochrone.api.sse import SseDecoder
from isochrone.upstream.transcript import Transcript

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
CREATED = 1_800_000_000.0


def completion(**message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "Not far 🌍.\n\n\u2028Really.", **message}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "there"}
    return {**head, "choices": [choice], "usage": USAGE, "system_fingerprint": "fp"}


def answer(body: dict[str, Any], operation: str = "chat") -> Answer:
    return Answer(operation=operation, backend="pool-eu", created=CREATED, body=body)


def replayed(known: Answer, *, include_usage: bool = True) -> tuple[Transcript, list[dict[str, Any]]]:
    """What a client makes of a replayed stream, and its chunks."""
    decoder, transcript, chunks = SseDecoder(), Transcript(capture=True), []
    for event in decoder.feed(replay_stream(known, request_id="r9", now=CREATED + 5, include_usage=include_usage)):
        transcript.read(event.data)
        if event.data and event.data != b"[DONE]":
            chunks.append(json.loads(event.data))
    assert decoder.close() == ([], False)
    return transcript, chunks


@pytest.mark.parametrize(
    "message",
    [{}, {"reasoning_content": "First the distance."}, {"reasoning": "Hm."}, {"content": "", "refusal": "No."}],
    ids=["text", "reasoning_content", "reasoning", "refusal"],
)
def test_replayed_stream_says_the_same_as_the_body(message: dict[str, Any]) -> None:
    body = completion(**message)
    transcript, _ = replayed(answer(body))
    told = transcript.to_body(CHAT, model="m", created=1)
    assert told["choices"] == body["choices"]
    assert (transcript.usage, transcript.done, told["system_fingerprint"]) == (USAGE, True, "fp")


def test_thoughts_are_replayed_before_the_words() -> None:
    _, chunks = replayed(answer(completion(reasoning_content="First the distance.")))
    spoken = [key for chunk in chunks for choice in chunk["choices"] for key in choice["delta"] if key != "role"]
    assert spoken[-2:] == ["reasoning_content", "content"]


def test_replayed_stream_begins_with_the_role_and_every_chunk_has_the_new_id() -> None:
    _, chunks = replayed(answer(completion()))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {(chunk["id"], chunk["object"], chunk["created"]) for chunk in chunks} == {
        ("chatcmpl-r9", "chat.completion.chunk", int(CREATED) + 5)
    }


def test_usage_is_replayed_only_to_those_who_asked() -> None:
    transcript, chunks = replayed(answer(completion()), include_usage=False)
    assert transcript.usage is None
    assert all("usage" not in chunk for chunk in chunks)
    _, chunks = replayed(answer(completion()), include_usage=True)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)


def test_older_route_is_replayed_in_its_own_shape() -> None:
    choice = {"index": 0, "text": "Not far.", "finish_reason": "stop"}
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    transcript, chunks = replayed(answer(body, "completion"), include_usage=False)
    assert transcript.texts() == {"text": "Not far."}
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_replayed_body_is_the_answer_with_an_id_and_a_time_of_its_own() -> None:
    body = completion()
    told = json.loads(replay_body(answer(body), request_id="r9", now=CREATED + 5))
    assert told == {**body, "id": "chatcmpl-r9", "created": int(CREATED) + 5}
    assert body["id"] == "chatcmpl-1"


def test_replayed_embeddings_get_no_id_that_they_never_had() -> None:
    body = {"object": "list", "data": [{"embedding": [0.5], "index": 0}], "model": "m", "usage": {"prompt_tokens": 1}}
    assert json.loads(replay_body(answer(body, "embedding"), request_id="r9", now=CREATED)) == body


def test_answer_survives_its_packed_form() -> None:
    known = answer(completion(reasoning_content="🌍" * 1000))
    assert from_bytes(to_bytes(known)) == known


@pytest.mark.parametrize("value", [b"", b"\x00", b"\xc1", b"{}", b"\xff" * 100, to_bytes(answer({"a": 1}))[:-2]])
def test_damaged_bytes_are_no_answer(value: bytes) -> None:
    assert from_bytes(value) is None


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        (completion(), True),
        ({"choices": [{"text": "a", "finish_reason": "stop"}]}, True),
        ({"object": "list", "data": []}, True),
        ({"choices": [{"finish_reason": "length"}]}, False),
        ({"choices": [{"finish_reason": "content_filter"}]}, False),
        ({"choices": [{"finish_reason": "tool_calls"}]}, False),
        ({"choices": [{"finish_reason": None}]}, False),
        ({"choices": [{}]}, False),
        ({"choices": []}, False),
        (completion(tool_calls=[{"id": "c"}]), False),
        (completion(function_call={"name": "f"}), False),
        (completion(tool_calls=[], function_call=None), True),
        ({"choices": [{"message": "a", "finish_reason": "stop"}]}, False),
        ({"choices": [{"finish_reason": "stop"}, {"finish_reason": "stop"}]}, False),
        ({"choices": ["stop"]}, False),
        ({"choices": {"finish_reason": "stop"}}, False),
        ({}, False),
    ],
)
def test_only_one_choice_that_ended_by_itself_is_complete(body: dict[str, Any], complete: bool) -> None:
    assert is_complete(body) is complete


def test_replay_has_an_id_of_its_routes_kind() -> None:
    body = {"id": "cmpl-1", "object": "text_completion", "choices": [{"text": "a", "finish_reason": "stop"}]}
    known = Answer(operation="completion", backend="pool", created=CREATED, body=body)
    assert json.loads(replay_body(known, request_id="r9", now=CREATED))["id"] == "cmpl-r9"


def test_replay_of_an_embedding_gets_no_id_that_the_route_does_not_have() -> None:
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
    known = Answer(operation="embedding", backend="pool", created=CREATED, body=body)
    assert json.loads(replay_body(known, request_id="r9", now=CREATED)) == body
