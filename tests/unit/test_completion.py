from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.answers.completion import Answer, is_complete, replay_body, replay_stream
from isochrone.api.requests import CHAT
from isochrone.api.sse import SseDecoder
from isochrone.upstream.transcript import Transcript

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
CACHED = {**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}
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
    assert (transcript.usage, transcript.done, told["system_fingerprint"]) == (CACHED, True, "fp")


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
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], CACHED)


def test_older_route_is_replayed_in_its_own_shape() -> None:
    choice = {"index": 0, "text": "Not far.", "finish_reason": "stop"}
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    transcript, chunks = replayed(answer(body, "completion"), include_usage=False)
    assert transcript.texts() == {"text": "Not far."}
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


def test_replayed_body_is_the_answer_with_an_id_and_a_time_of_its_own() -> None:
    body = completion()
    told = json.loads(replay_body(answer(body), request_id="r9", now=CREATED + 5))
    assert told == {**body, "id": "chatcmpl-r9", "created": int(CREATED) + 5, "usage": CACHED}
    assert body["id"] == "chatcmpl-1"


def test_replayed_embeddings_get_no_id_that_they_never_had() -> None:
    body = {"object": "list", "data": [{"embedding": [0.5], "index": 0}], "model": "m", "usage": {"prompt_tokens": 1}}
    assert json.loads(replay_body(answer(body, "embedding"), request_id="r9", now=CREATED)) == body


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        (completion(), True),
        ({"choices": [{"text": "a", "finish_reason": "stop"}]}, True),
        ({"object": "list", "data": [{"embedding": [0.5]}]}, True),
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


@pytest.mark.parametrize(
    ("also", "body"),
    [
        ("tools", completion(tool_calls=[{"id": "c", "function": {"name": "f"}}])),
        ("tools", {"choices": [{"message": {"tool_calls": [{"id": "c"}]}, "finish_reason": "tool_calls"}]}),
        ("tools", {"choices": [{"message": {"function_call": {"name": "f"}}, "finish_reason": "function_call"}]}),
        ("length", {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}),
        ("length", {"choices": [{"text": "a", "finish_reason": "length"}]}),
    ],
)
def test_what_the_operator_wants_kept_too_is_complete_in_its_own_way(also: str, body: dict[str, Any]) -> None:
    assert is_complete(body, (also,))
    assert not is_complete(body, {"tools", "logprobs", "choices", "length"} - {also})


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"tool_calls": [{"id": "c"}]}, "finish_reason": "length"},
        {"message": {"tool_calls": [{"id": "c"}]}, "finish_reason": None},
        {"message": {"tool_calls": "c"}, "finish_reason": "tool_calls"},
        {"message": {"tool_calls": ["c"]}, "finish_reason": "tool_calls"},
        {"message": {"function_call": "f"}, "finish_reason": "function_call"},
        {"message": {"content": "a"}, "finish_reason": "content_filter"},
        {"message": {"content": "a"}, "finish_reason": "abort"},
    ],
    ids=str,
)
def test_broken_answer_is_not_complete_whatever_the_operator_wants(choice: dict[str, Any]) -> None:
    assert not is_complete({"choices": [choice]}, {"tools", "logprobs", "choices", "length"})


@pytest.mark.parametrize(("given", "complete"), [(0, False), (1, False), (2, True), (3, False)])
def test_embeddings_of_all_inputs_are_complete(given: int, complete: bool) -> None:
    body = {"object": "list", "data": [{"index": n, "embedding": [0.5]} for n in range(given)]}
    assert is_complete(body, choices=2) is complete


def test_as_many_choices_as_were_asked_for_are_complete() -> None:
    body = {"choices": [{"finish_reason": "stop"}, {"finish_reason": "stop"}]}
    assert is_complete(body, choices=2)
    assert not is_complete(body, choices=3)
    assert not is_complete({"choices": [{"finish_reason": "stop"}, {"finish_reason": None}]}, choices=2)


def test_details_that_an_engine_gave_of_its_usage_stay() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"audio_tokens": 1, "cached_tokens": 0}, "cost": 0.1}
    told = json.loads(replay_body(answer(completion() | {"usage": usage}), request_id="r9", now=CREATED))
    assert told["usage"] == {**usage, "prompt_tokens_details": {"audio_tokens": 1, "cached_tokens": 3}}


def test_usage_that_nobody_counted_stays_unknown() -> None:
    told = json.loads(replay_body(answer(completion() | {"usage": None}), request_id="r9", now=CREATED))
    assert told["usage"] is None


def test_calls_are_replayed_under_their_indexes_and_behind_the_words() -> None:
    calls = [
        {"id": "c0", "type": "function", "function": {"name": "far", "arguments": '{"km": 1}'}},
        {"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}},
    ]
    choice = completion(tool_calls=calls)["choices"][0] | {"finish_reason": "tool_calls"}
    _, chunks = replayed(answer(completion() | {"choices": [choice]}))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [
        [{"index": 0, "id": "c0", "type": "function", "function": {"name": "far", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"km": 1}'}}],
        [{"index": 1, **calls[1]}],
    ]
    assert [next(iter(reversed(delta)), None) for delta in deltas] == ["content"] * 2 + ["tool_calls"] * 3 + [None]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_answer_of_calls_alone_is_replayed_without_words() -> None:
    call = {"id": "c0", "type": "function", "function": {"name": "far", "arguments": ""}}
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}
    _, chunks = replayed(answer({"choices": [{**choice, "finish_reason": "tool_calls"}]}), include_usage=False)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 0, **call}]},
        {},
    ]


def test_log_probabilities_come_with_the_last_of_the_words() -> None:
    logprobs = {"content": [{"token": "Not", "logprob": -0.1}], "refusal": None}
    choice = completion()["choices"][0] | {"logprobs": logprobs}
    _, chunks = replayed(answer(completion() | {"choices": [choice]}), include_usage=False)
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks] == [None, logprobs, None]


def test_what_else_an_engine_said_of_a_choice_comes_with_its_end() -> None:
    choice = completion()["choices"][0] | {"stop_reason": 128, "matched_stop": "x"}
    _, chunks = replayed(answer(completion() | {"choices": [choice]}), include_usage=False)
    end = chunks[-1]["choices"][0]
    assert (end["stop_reason"], end["matched_stop"], end["finish_reason"]) == (128, "x", "stop")


def test_every_choice_is_replayed_under_its_index() -> None:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        for i, text in enumerate(("Near.", "Far."))
    ]
    _, chunks = replayed(answer(completion() | {"choices": choices}), include_usage=False)
    told = [(chunk["choices"][0]["index"], chunk["choices"][0]["delta"].get("content")) for chunk in chunks]
    assert told == [(0, ""), (0, "Near."), (0, None), (1, ""), (1, "Far."), (1, None)]


@pytest.mark.parametrize("character", ["a", "\x00", "字", "🌍", '"', "\u2028"])
def test_no_line_of_a_replayed_stream_is_longer_than_clients_read(character: str) -> None:
    said = character * 100_000
    stream = replay_stream(answer(completion(content=said)), request_id="r9", now=CREATED, include_usage=True)
    assert max(map(len, stream.split(b"\n"))) < 64 * 1024
    transcript, _ = replayed(answer(completion(content=said)))
    assert transcript.texts()["content"] == said


@pytest.mark.parametrize("said", ["", "\x00", "\u2028\u0085\r\n\n", "data: [DONE]\n\n"])
def test_awkward_text_is_replayed_as_it_is(said: str) -> None:
    body = completion(content=said)
    transcript, _ = replayed(answer(body))
    assert transcript.to_body(CHAT, model="m", created=1)["choices"] == body["choices"]


def test_replay_has_an_id_of_its_routes_kind() -> None:
    body = {"id": "cmpl-1", "object": "text_completion", "choices": [{"text": "a", "finish_reason": "stop"}]}
    known = Answer(operation="completion", backend="pool", created=CREATED, body=body)
    assert json.loads(replay_body(known, request_id="r9", now=CREATED))["id"] == "cmpl-r9"


def test_replay_of_an_embedding_gets_no_id_that_the_route_does_not_have() -> None:
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}
    known = Answer(operation="embedding", backend="pool", created=CREATED, body=body)
    assert json.loads(replay_body(known, request_id="r9", now=CREATED)) == body
