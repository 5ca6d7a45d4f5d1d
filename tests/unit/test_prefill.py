"""A backend that takes a prefill is asked for the rest of an answer, and only where the rest is all that is missing."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.api.requests import CHAT, COMPLETION, Ask, Operation
from isochrone.upstream.prefill import continued

USER = {"role": "user", "content": "How far?"}
TOLD = {"content": "An isochrone "}


def chat(**fields: Any) -> Ask:
    return asked(CHAT, messages=[{"role": "system", "content": "s"}, USER], **fields)


def asked(operation: Operation, **fields: Any) -> Ask:
    return Ask(operation, "m", stream=True, include_usage=True, fields={"model": "m", **fields})


def rest_of(ask: Ask, told: dict[str, str] | None = None, engine: str = "vllm", tokens: int = 3) -> dict[str, Any]:
    rest = continued(ask, TOLD if told is None else told, engine, tokens=tokens)
    assert rest is not None
    assert rest.continues
    assert (rest.operation, rest.model, rest.include_usage) == (ask.operation, ask.model, ask.include_usage)
    return rest.fields


@pytest.mark.parametrize(
    ("engine", "message", "more"),
    [
        ("vllm", {}, {"continue_final_message": True, "add_generation_prompt": False}),
        ("llama.cpp", {}, {}),
        ("openai", {"prefix": True}, {}),
    ],
)
def test_each_engine_is_given_the_beginning_in_its_own_way(
    engine: str, message: dict[str, Any], more: dict[str, Any]
) -> None:
    ask = chat(temperature=0)
    beginning = {"role": "assistant", "content": "An isochrone ", **message}
    assert rest_of(ask, engine=engine) == {
        "model": "m",
        "temperature": 0,
        "stream": True,
        "messages": [*ask.fields["messages"], beginning],
        **more,
    }


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp", "openai"])
def test_older_route_goes_on_at_the_end_of_its_prompt(engine: str) -> None:
    fields = rest_of(asked(COMPLETION, prompt="Q: how far? A:"), {"text": " far"}, engine)
    assert fields == {"model": "m", "prompt": "Q: how far? A: far", "stream": True}


def test_request_itself_is_left_as_it_is() -> None:
    ask = chat(max_tokens=10)
    rest_of(ask)
    assert ask == chat(max_tokens=10)


def test_whole_body_is_asked_for_its_rest_as_a_stream() -> None:
    rest = continued(chat()._replace(stream=False), TOLD, "vllm", tokens=1)
    assert rest is not None
    assert rest.stream


@pytest.mark.parametrize(("limit", "tokens", "left"), [(10, 3, 7), (10, 9, 1), (10, 10, 1), (10, 11, 1)])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_what_was_told_counts_against_the_limit(name: str, limit: int, tokens: int, left: int) -> None:
    assert rest_of(chat(**{name: limit}), tokens=tokens)[name] == left


def test_no_limit_is_none() -> None:
    assert rest_of(chat(max_tokens=None))["max_tokens"] is None


@pytest.mark.parametrize(
    "harmless",
    [
        {"response_format": {"type": "text"}},
        {"response_format": None},
        {"tool_choice": "auto", "tools": [{"type": "function"}]},
        {"tool_choice": "none"},
        {"logprobs": None},
        {"logprobs": False},
        {"n": 1},
        {"stop": ["###"]},
    ],
)
def test_wishes_that_hold_for_a_rest_as_well_do_not_hinder(harmless: dict[str, Any]) -> None:
    assert rest_of(chat(**harmless)).items() >= harmless.items()


@pytest.mark.parametrize(
    "wish",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"function_call": {"name": "f"}},
        {"n": 2},
        {"logprobs": True},
        {"guided_json": {"type": "object"}},
        {"grammar": "root ::= x"},
        {"continue_final_message": False},
        {"add_generation_prompt": True},
    ],
)
def test_wishes_that_only_a_whole_answer_can_meet_ask_for_the_whole(wish: dict[str, Any]) -> None:
    assert continued(chat(**wish), TOLD, "vllm", tokens=1) is None


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"content": ""},
        {"reasoning_content": "so"},
        {"content": "a", "reasoning_content": "so"},
        {"content": "a", "tool_calls.0.name": "f"},
        {"text": "a"},
    ],
)
def test_thoughts_calls_and_nothing_cannot_be_gone_on_with(told: dict[str, str]) -> None:
    assert continued(chat(), told, "vllm", tokens=1) is None


def test_callers_own_beginning_of_an_answer_is_left_alone() -> None:
    ask = asked(CHAT, messages=[USER, {"role": "assistant", "content": "An"}])
    assert continued(ask, TOLD, "vllm", tokens=1) is None


@pytest.mark.parametrize("prompt", [["a"], [1, 2], ["a", "b"]])
def test_prompt_that_is_no_single_text_is_asked_anew(prompt: list[Any]) -> None:
    assert continued(asked(COMPLETION, prompt=prompt), {"text": "a"}, "vllm", tokens=1) is None


@pytest.mark.parametrize("wish", [{"echo": True}, {"suffix": "b"}, {"best_of": 2}, {"logprobs": 1}])
def test_older_route_has_such_wishes_too(wish: dict[str, Any]) -> None:
    assert continued(asked(COMPLETION, prompt="a", **wish), {"text": "a"}, "vllm", tokens=1) is None


def test_limit_that_is_no_number_is_left_for_the_backend_to_judge() -> None:
    ask = asked(COMPLETION, prompt="a", max_completion_tokens="few")
    assert rest_of(ask, {"text": "a"})["max_completion_tokens"] == "few"
