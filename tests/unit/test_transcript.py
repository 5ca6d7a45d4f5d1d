from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.answers.completion import is_complete
from isochrone.api.requests import CHAT, COMPLETION
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.transcript import Reading, Transcript, broken_off


def said(transcript: Transcript, *choices: dict[str, Any], **more: Any) -> Reading:
    return transcript.read(json.dumps({"choices": list(choices), **more}).encode())


def delta(index: int = 0, /, *, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": fields, "finish_reason": finish}


@pytest.fixture
def transcript() -> Transcript:
    return Transcript(capture=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "a"},
        {"reasoning_content": "a"},
        {"reasoning": "a"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
        {"audio": {"data": "AAAA"}},
        {"content": [{"type": "text", "text": "a"}]},
        {"content": 1},
        {"reasoning": {"steps": ["a"]}},
    ],
)
def test_whatever_moves_the_answer_on_is_a_token(transcript: Transcript, fields: dict[str, Any]) -> None:
    assert said(transcript, delta(**fields)) is Reading.TOKEN
    assert transcript.tokens == 1


def test_text_of_the_older_route_is_a_token(transcript: Transcript) -> None:
    assert said(transcript, {"index": 0, "text": "a"}) is Reading.TOKEN


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"  ",
        b"null",  # what llama.cpp says between the answers to several prompts
        b"{}",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}',
        b'{"choices": [{"index": 0, "delta": {"content": null}}]}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": [], "usage": null}',
        b'{"choices": [], "usage": 5}',
        b'{"choices": [{"index": null, "delta": null, "finish_reason": null}]}',
        b'{"choices": [{"index": 0, "delta": {"role": "assistant", "unheard_of": "x"}}]}',
    ],
)
def test_whatever_says_nothing_is_no_progress(transcript: Transcript, data: bytes | None) -> None:
    assert transcript.read(data) is Reading.QUIET
    assert (transcript.tokens, transcript.complete) == (0, False)


def test_usage_alone_is_told_from_usage_beside_a_choice(transcript: Transcript) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert said(transcript, usage=usage) is Reading.USAGE
    assert said(transcript, delta(finish="stop"), usage=usage) is Reading.TOKEN
    assert transcript.usage == usage


def test_answer_is_complete_at_its_finish_reason(transcript: Transcript) -> None:
    said(transcript, delta(content="a"))
    assert not transcript.complete
    said(transcript, delta(finish="length"))
    assert transcript.complete
    assert transcript.finish_reason == "length"


def test_answer_is_not_complete_while_one_of_its_choices_is_open(transcript: Transcript) -> None:
    said(transcript, delta(0, content="a"), delta(1, content="b"))
    said(transcript, delta(0, finish="stop"))
    transcript.read(b"[DONE]")
    assert not transcript.complete
    said(transcript, delta(1, finish="stop"))
    assert transcript.complete


def test_done_ends_an_answer_without_a_finish_reason_but_not_an_empty_one(transcript: Transcript) -> None:
    assert transcript.read(b"[DONE]") is Reading.DONE
    assert not transcript.complete
    said(transcript, delta(content="a"))
    assert transcript.complete


def test_answer_without_a_finish_reason_is_not_one_to_keep(transcript: Transcript) -> None:
    said(transcript, delta(content="a"))
    transcript.read(b"[DONE]")
    assert not is_complete(transcript.to_body(CHAT, model="m", created=1))


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b'{"choices": [',
        b"[]",
        b'"text"',
        b'{"choices": {}}',
        b'{"choices": [1]}',
        b'{"choices": [{"delta": "a"}]}',
        b'{"choices": [{"index": "0"}]}',
        b"\xff\xfe",
        b'{"x": ' + b"[" * 100_000,
    ],
)
def test_senseless_event_is_a_failure(transcript: Transcript, data: bytes) -> None:
    with pytest.raises(AttemptFailed) as caught:
        transcript.read(data)
    assert caught.value.cause is Cause.BROKEN
    assert len(caught.value.body) <= 2000


@pytest.mark.parametrize("error", [{"message": "out of memory"}, "out of memory", {}])
def test_error_in_the_stream_is_a_failure(transcript: Transcript, error: Any) -> None:
    with pytest.raises(AttemptFailed, match="an error in its stream"):
        transcript.read(json.dumps({"error": error}).encode())


def test_fields_that_only_an_engine_knows_do_no_harm(transcript: Transcript) -> None:
    more = {"token_ids": [1, 2]}
    assert said(transcript, {**delta(content="a"), **more}, prompt_logprobs=None, timings={"n": 1}) is Reading.TOKEN


def test_body_is_what_the_other_route_would_have_said(transcript: Transcript) -> None:
    head = {"id": "c-1", "model": "there", "system_fingerprint": "fp"}
    said(transcript, delta(role="assistant", content=""), **head)
    pieces: list[dict[str, Any]] = [
        {"reasoning_content": "so "},
        {"reasoning_content": "far"},
        {"content": "not "},
        {"content": "far"},
    ]
    for fields in pieces:
        said(transcript, delta(**fields), **head)
    said(transcript, delta(finish="stop"), **head)
    said(transcript, usage={"completion_tokens": 4})
    assert transcript.to_body(CHAT, model="m", created=5) == {
        "id": "c-1",
        "object": "chat.completion",
        "created": 5,
        "model": "there",
        "system_fingerprint": "fp",
        "usage": {"completion_tokens": 4},
        "choices": [
            {
                "index": 0,
                "logprobs": None,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "not far", "reasoning_content": "so far"},
            }
        ],
    }


def test_body_of_the_older_route_has_its_text(transcript: Transcript) -> None:
    said(transcript, {"index": 0, "text": "not "})
    said(transcript, {"index": 0, "text": "far", "finish_reason": "stop"})
    body = transcript.to_body(COMPLETION, model="m", created=5)
    assert (body["object"], body["model"], body["choices"][0]["text"]) == ("text_completion", "m", "not far")
    assert "message" not in body["choices"][0]


def test_text_is_not_kept_for_nobody() -> None:
    transcript = Transcript(capture=False)
    said(transcript, delta(content="a"))
    assert transcript.texts() == {}
    assert not transcript.spliceable
    assert not transcript.storable


def test_empty_answer_of_the_older_route_is_a_body_of_that_route(transcript: Transcript) -> None:
    said(transcript, {"index": 0, "text": "", "finish_reason": "stop"})
    body = transcript.to_body(COMPLETION, model="m", created=5)
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "logprobs": None, "finish_reason": "stop", "text": ""}]


@pytest.mark.parametrize(
    "choice",
    [
        delta(content="a"),
        {"index": 0, "text": "a"},
        delta(content="a", reasoning="b", refusal=None, tool_calls=[], annotations=[]),
        {**delta(content="a"), "logprobs": None, "stop_reason": None, "content_filter_results": {}},
        {**delta(finish="stop"), "native_finish_reason": "stop", "matched_stop": 151643},
        {**delta(finish="stop"), "stop_reason": 128009},
        {**delta(finish="stop"), "stop_reason": "###"},
        {**delta(finish="stop"), "usage": {"prompt_tokens": 1}},
        delta(reasoning="a", channel="analysis"),
    ],
)
def test_single_text_may_be_stored_and_joined_to(transcript: Transcript, choice: dict[str, Any]) -> None:
    said(transcript, choice)
    assert transcript.storable
    assert transcript.spliceable


@pytest.mark.parametrize(
    "choice",
    [
        delta(tool_calls=[{"index": 0}]),
        delta(tool_calls=[{"function": {"name": "f"}}]),
        delta(tool_calls=[{"index": 0, "function": {"name": 1}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": {"to": "eu"}}}]),
        delta(tool_calls=[{"index": 0, "type": "custom", "custom": {"name": "f", "input": "a"}}]),
        delta(tool_calls=["f"]),
        delta(tool_calls={"index": 0, "function": {"name": "f"}}),
        delta(function_call="f"),
        delta(audio={"data": "AAAA"}),
        delta(1, content="a"),
        {"index": 1, "text": "a"},
        delta(content=[{"type": "text", "text": "a"}]),
        delta(reasoning={"steps": ["a"]}),
    ],
    ids=lambda choice: json.dumps(choice)[:70],
)
def test_answer_that_is_more_than_one_text_may_not(transcript: Transcript, choice: dict[str, Any]) -> None:
    said(transcript, delta(content="before"))
    assert transcript.storable
    assert said(transcript, choice) in (Reading.TOKEN, Reading.QUIET)
    assert not transcript.storable
    assert not transcript.spliceable


def calls(*parts: tuple[int, dict[str, str]]) -> dict[str, Any]:
    return delta(tool_calls=[{"index": index, "function": function} for index, function in parts])


def test_calls_of_functions_are_joined_to_by_their_places(transcript: Transcript) -> None:
    said(transcript, delta(content="Let me see."))
    said(transcript, calls((0, {"name": "rtt", "arguments": ""})))
    said(transcript, calls((0, {"arguments": '{"to":'})))
    said(transcript, calls((0, {"arguments": ' "eu"}'}), (1, {"name": "now"})))
    assert transcript.spliceable
    assert not transcript.storable
    assert transcript.texts() == {
        "content": "Let me see.",
        "tool_calls.0.name": "rtt",
        "tool_calls.0.arguments": '{"to": "eu"}',
        "tool_calls.1.name": "now",
    }


def test_older_call_of_a_function_is_joined_to_as_well(transcript: Transcript) -> None:
    said(transcript, delta(function_call={"name": "rtt", "arguments": ""}))
    said(transcript, delta(function_call={"arguments": "{}"}))
    assert transcript.texts() == {"function_call.name": "rtt", "function_call.arguments": "{}"}
    assert transcript.spliceable


def test_second_name_at_one_place_is_another_call_so_nothing_may_join(transcript: Transcript) -> None:
    said(transcript, calls((0, {"name": "f"})))
    said(transcript, calls((0, {"name": "g"})))
    assert not transcript.spliceable


@pytest.mark.parametrize(
    "choice",
    [
        delta(content="a", annotations=[{"url": "u"}]),
        delta(content="a", token_id=12),
        delta(content="a", reasoning_details=[{"type": "reasoning.text", "text": "b"}]),
        delta(content="a", a_field_that_nobody_knows="a"),
        {**delta(content="a"), "logprobs": {"content": []}},
        {**delta(content="a"), "content_filter_results": {"hate": {"filtered": False}}},
    ],
    ids=lambda choice: json.dumps(choice)[-70:],
)
def test_text_with_more_beside_it_may_be_joined_to_but_not_stored(
    transcript: Transcript, choice: dict[str, Any]
) -> None:
    said(transcript, delta(content="before "))
    said(transcript, choice)
    assert transcript.spliceable
    assert not transcript.storable
    assert transcript.texts() == {"content": "before a"}


@pytest.mark.parametrize("stop_reason", [128009, "###", 0])
def test_body_says_what_the_engine_stopped_at(transcript: Transcript, stop_reason: object) -> None:
    said(transcript, delta(content="a"))
    said(transcript, {**delta(finish="stop"), "stop_reason": stop_reason})
    assert transcript.to_body(CHAT, model="m", created=5)["choices"][0]["stop_reason"] == stop_reason


@pytest.mark.parametrize("choices", [[], [delta(content="a")]], ids=["behind the choices", "beside a choice"])
def test_answer_with_sources_may_not_be_stored(transcript: Transcript, choices: list[dict[str, Any]]) -> None:
    said(transcript, *choices, citations=["https://a.example"])
    assert not transcript.storable
    assert transcript.spliceable


def test_answer_that_goes_on_behind_its_end_may_not(transcript: Transcript) -> None:
    said(transcript, delta(content="a", finish="stop"))
    assert transcript.spliceable
    said(transcript, delta(content="b"))
    assert not transcript.spliceable
    assert not transcript.storable


@pytest.mark.parametrize(
    "extras",
    [
        {"object": "chat.completion.chunk", "created": 1, "service_tier": "default", "obfuscation": "WuQNX"},
        {"provider": "OpenAI", "citations": None},
        {"timings": {"predicted_n": 1}},
        {"x_groq": {"id": "req_1"}},
        {"p": "abcd"},
        {"time_info": {"queue_time": 0.1}},
    ],
    ids=["OpenAI", "OpenRouter", "llama.cpp", "Groq", "Mistral", "Cerebras"],
)
def test_what_engines_say_about_themselves_is_no_hindrance(transcript: Transcript, extras: dict[str, Any]) -> None:
    said(transcript, delta(content="a"), **extras)
    assert transcript.storable


@pytest.mark.parametrize("head", [{"id": 7}, {"id": None, "model": None}, {"system_fingerprint": 5}])
def test_facts_about_a_chunk_may_be_of_any_type(transcript: Transcript, head: dict[str, Any]) -> None:
    assert said(transcript, delta(content="a"), **head) is Reading.TOKEN


@pytest.mark.parametrize("reason", ["abort", "error", "insufficient_system_resource"])
def test_engine_that_breaks_off_by_itself_has_cut_the_answer(transcript: Transcript, reason: str) -> None:
    said(transcript, delta(content="a"))
    with pytest.raises(AttemptFailed) as caught:
        said(transcript, delta(content="b", finish=reason))
    assert caught.value.cause is Cause.CUT
    assert reason in caught.value.detail
    assert not transcript.complete
    assert transcript.texts() == {"content": "a"}


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ([{"finish_reason": "abort"}], "abort"),
        ([{"finish_reason": "stop"}, {"finish_reason": "error"}], "error"),
        ([{"finish_reason": "stop"}], None),
        ([{}, None, "x", {"finish_reason": ["abort"]}], None),
        ("abort", None),
        (None, None),
    ],
)
def test_body_can_be_broken_off_as_well(choices: Any, reason: str | None) -> None:
    assert broken_off({"choices": choices}) == reason


def test_reason_of_any_shape_ends_an_answer(transcript: Transcript) -> None:
    said(transcript, {**delta(content="a"), "finish_reason": {"type": "stop"}})
    assert transcript.complete


def test_error_without_an_error_field_is_a_failure_too(transcript: Transcript) -> None:
    with pytest.raises(AttemptFailed, match="an error in its stream"):
        transcript.read(b'{"object": "error", "message": "out of memory", "code": 500}')


def test_done_alone_is_no_end_where_the_engine_is_known_to_give_reasons() -> None:
    transcript = Transcript(capture=True, gives_reasons=True)
    said(transcript, delta(content="a"))
    transcript.read(b"[DONE]")
    assert not transcript.complete
    said(transcript, delta(finish="stop"))
    assert transcript.complete


def test_what_was_told_before_comes_before_what_is_told_now(transcript: Transcript) -> None:
    said(transcript, delta(content="far"))
    transcript.begin_with({"content": "not ", "reasoning_content": "so"}, storable=True)
    assert transcript.texts() == {"content": "not far", "reasoning_content": "so"}
    assert transcript.storable
    transcript.begin_with({}, storable=False)
    assert not transcript.storable


def test_answer_of_two_choices_is_not_whole_after_the_first() -> None:
    transcript = Transcript(capture=False, choices=2)
    said(transcript, delta(0, content="a"))
    said(transcript, delta(0, finish="stop"))
    assert not transcript.complete
    said(transcript, delta(1, content="b"))
    assert not transcript.complete
    said(transcript, delta(1, finish="stop"))
    assert transcript.complete


def test_engine_that_gives_fewer_choices_than_asked_says_done() -> None:
    transcript = Transcript(capture=False, choices=2)
    said(transcript, delta(0, content="a"))
    said(transcript, delta(0, finish="stop"))
    transcript.read(b"[DONE]")
    assert transcript.complete


def test_nothing_is_joined_or_stored_of_one_choice_while_others_were_asked_for() -> None:
    transcript = Transcript(capture=True, choices=2)
    transcript.read(b'{"choices": [{"index": 0, "delta": {"content": "so far"}}]}')
    assert not transcript.spliceable
    assert not transcript.storable


def test_transcript_that_gathers_has_the_whole_answer_whatever_it_consists_of() -> None:
    transcript = Transcript(capture=True, choices=2, gather=True)
    said(transcript, delta(0, role="assistant", content="a", unknown="b"))
    said(transcript, delta(1, tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]))
    said(transcript, delta(1, tool_calls=[{"index": 0, "function": {"arguments": "}"}}]))
    said(transcript, delta(0, finish="stop") | {"logprobs": {"content": [{"token": "a"}]}})
    said(transcript, delta(1, finish="tool_calls"))
    assert transcript.complete
    assert transcript.storable
    one, other = transcript.to_body(CHAT, model="m", created=1)["choices"]
    assert (one["message"]["content"], one["message"]["unknown"], one["finish_reason"]) == ("a", "b", "stop")
    assert one["logprobs"] == {"content": [{"token": "a"}]}
    assert other["message"]["tool_calls"] == [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]


def test_transcript_that_gathers_is_not_whole_when_another_attempt_told_the_beginning() -> None:
    transcript = Transcript(capture=True, gather=True)
    said(transcript, delta(content="far"))
    transcript.begin_with({"content": "not "}, storable=True)
    assert transcript.texts() == {"content": "not far"}
    assert not transcript.storable
