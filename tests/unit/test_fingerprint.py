from __future__ import annotations

from typing import Any, cast

import pytest

from isochrone.answers.fingerprint import fingerprint, storable
from isochrone.api.errors import BadRequest
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask, Operation

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How far?"}]}


def ask(fields: dict[str, Any] | None = None, operation: Operation = CHAT, **more: Any) -> Ask:
    return Ask(operation, "m", stream=False, include_usage=False, fields={**(fields or BODY), **more})


def test_way_in_which_an_answer_travels_does_not_matter() -> None:
    plain = fingerprint("t", ask())
    assert fingerprint("t", ask(stream=True)) == plain
    assert fingerprint("t", ask(stream=True, stream_options={"include_usage": True})) == plain
    assert len(plain) == 64


def test_order_of_keys_does_not_matter_at_any_depth() -> None:
    one = {"model": "m", "messages": [{"role": "user", "content": "x"}], "metadata": {"a": 1, "b": {"c": 2, "d": 3}}}
    other = {"metadata": {"b": {"d": 3, "c": 2}, "a": 1}, "messages": [{"content": "x", "role": "user"}], "model": "m"}
    assert fingerprint("t", ask(one)) == fingerprint("t", ask(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"unknown": {"deep": [1, {"x": 2}]}}, {"unknown": {"deep": [1.0, {"x": 2.0}]}}),
        ({"seed": 2**53}, {"seed": float(2**53)}),
    ],
    ids=str,
)
def test_number_is_the_same_in_whatever_form_it_is_written(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint("t", ask(**one)) == fingerprint("t", ask(**other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": 1}, {"x": True}),
        ({"x": 0}, {"x": False}),
        ({"x": 0}, {"x": None}),
        ({"x": 1}, {"x": "1"}),
        ({"x": 1}, {"x": 1.5}),
        ({"x": 2**53}, {"x": 2**53 + 1}),
        ({"x": 2**53 + 1}, {"x": 2.0**53 + 2}),
        ({"x": 1e300}, {"x": 1.1e300}),
        ({"x": []}, {"x": {}}),
        ({"x": ""}, {"x": None}),
    ],
    ids=str,
)
def test_values_that_only_look_alike_are_not_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert fingerprint("t", ask(**one)) != fingerprint("t", ask(**other))


@pytest.mark.parametrize("name", ["temperature", "stop", "tools", "response_format", "seed", "max_tokens", "n", "user"])
def test_option_that_is_null_is_the_same_as_none(name: str) -> None:
    assert fingerprint("t", ask(**cast(Any, {name: None}))) == fingerprint("t", ask())


def test_null_inside_an_option_matters() -> None:
    schema = {"type": "object", "default": None}
    assert fingerprint("t", ask(response_format=schema)) != fingerprint("t", ask(response_format={"type": "object"}))
    turn = {"role": "user", "content": "How far?"}
    assert fingerprint("t", ask(messages=[{**turn, "name": None}])) != fingerprint("t", ask(messages=[turn]))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        (CHAT, lambda text: {"messages": [{"role": "user", "content": text}]}),
        (CHAT, lambda text: {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}),
        (CHAT, lambda text: {"messages": [{"role": "system", "content": text}, {"role": "user", "content": "x"}]}),
        (COMPLETION, lambda text: {"prompt": text}),
        (COMPLETION, lambda text: {"prompt": ["x", text]}),
        (EMBEDDING, lambda text: {"input": text}),
        (EMBEDDING, lambda text: {"input": [text]}),
    ],
)
def test_text_is_the_same_in_either_normal_form(operation: Operation, fields: Any) -> None:
    marks = {fingerprint("t", ask({"model": "m", **fields(text)}, operation)) for text in (COMPOSED, DECOMPOSED)}
    assert len(marks) == 1


@pytest.mark.parametrize(
    "more",
    [
        lambda text: {"stop": text},
        lambda text: {"stop": [text]},
        lambda text: {"prompt": text},
        lambda text: {"response_format": {"type": "json_schema", "json_schema": {"name": text}}},
        lambda text: {"logit_bias": {text: 1}},
        lambda text: {"user": text},
        lambda text: {"messages": [{"role": "user", "name": text, "content": "x"}]},
        lambda text: {"messages": [{"role": "tool", "tool_call_id": text, "content": "x"}]},
        lambda text: {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": text}}]}]},
        lambda text: {"messages": [{"role": "user", "content": [{"type": "unknown", "text": text}]}]},
    ],
)
def test_anything_else_is_the_same_only_byte_for_byte(more: Any) -> None:
    assert fingerprint("t", ask(**more(COMPOSED))) != fingerprint("t", ask(**more(DECOMPOSED)))


def test_letters_that_only_look_alike_are_not_the_same() -> None:
    marks = {fingerprint("t", ask(messages=[{"role": "user", "content": text}])) for text in ("1", "\u00b9", "\uff11")}
    assert len(marks) == 3


def test_what_stands_behind_a_models_name_matters() -> None:
    assert len({fingerprint("t", ask(), revision=revision) for revision in ("", "a", "b", "a\nb")}) == 4


def test_making_a_fingerprint_leaves_the_request_as_it_was() -> None:
    fields = {"model": "m", "messages": [{"role": "user", "content": DECOMPOSED}], "temperature": 1.0, "stop": None}
    before = repr(fields)
    fingerprint("t", ask(fields))
    assert repr(fields) == before


@pytest.mark.parametrize(
    "more",
    [
        {"model": "other"},
        {"messages": [{"role": "user", "content": "How far? "}]},
        {"messages": [{"role": "system", "content": "How far?"}]},
        {"messages": [*BODY["messages"], *BODY["messages"]]},
        {"temperature": 0},
        {"max_tokens": 5},
        {"max_tokens": None, "max_completion_tokens": 5},
        {"seed": 1},
        {"user": "u"},
        {"response_format": {"type": "json_object"}},
        {"a_field_that_nobody_knows": None},
        {"Stream": True},
    ],
    ids=",".join,
)
def test_everything_else_matters(more: dict[str, Any]) -> None:
    assert fingerprint("t", ask(**more)) != fingerprint("t", ask())


def test_order_of_messages_matters() -> None:
    one, two = {"role": "user", "content": "1"}, {"role": "user", "content": "2"}
    assert fingerprint("t", ask(messages=[one, two])) != fingerprint("t", ask(messages=[two, one]))


def test_tenants_and_routes_never_share_a_fingerprint() -> None:
    marks = {
        fingerprint(tenant, ask(operation=operation))
        for tenant in ("a", "b", "a,chat", "")
        for operation in (CHAT, COMPLETION, EMBEDDING)
    }
    assert len(marks) == 12


def test_tenant_cannot_be_smuggled_into_the_body() -> None:
    assert fingerprint("a", ask(tenant="b")) != fingerprint("b", ask())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1},
        {"n": None, "best_of": 1},
        {"tools": None},
        {"tools": []},
        {"logprobs": False},
        {"temperature": 0},
        {"temperature": 0.0},
        {"temperature": None},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_plain_request_for_one_answer_may_be_kept(more: dict[str, Any]) -> None:
    assert storable(ask(**more), sampled=False)


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"best_of": 3},
        {"tools": [{"type": "function"}]},
        {"functions": [{"name": "f"}]},
        {"logprobs": True},
        {"logprobs": 0},
        {"top_logprobs": 3},
        {"prompt_logprobs": 1},
    ],
    ids=",".join,
)
def test_anything_beyond_that_may_not_even_if_sampled_answers_may(more: dict[str, Any]) -> None:
    assert not storable(ask(**more), sampled=True)


@pytest.mark.parametrize(
    ("also", "more"),
    [
        ("tools", {"tools": [{"type": "function"}]}),
        ("tools", {"functions": [{"name": "f"}]}),
        ("logprobs", {"logprobs": True, "top_logprobs": 3}),
        ("choices", {"n": 2}),
        ("choices", {"best_of": 3}),
    ],
    ids=str,
)
def test_operator_may_allow_each_of_them(also: str, more: dict[str, Any]) -> None:
    assert storable(ask(**more), sampled=False, also=(also,))
    assert not storable(ask(**more), sampled=False, also={"tools", "logprobs", "choices", "length"} - {also})
    assert not storable(ask(**more, temperature=1), sampled=False, also=(also,))


@pytest.mark.parametrize("prompt", [["a", "b"], [[1, 2], [3]], [[1], "b"]], ids=str)
def test_answers_to_several_prompts_are_never_kept(prompt: list[Any]) -> None:
    assert not storable(ask({"model": "m", "prompt": prompt}, COMPLETION), sampled=True)


@pytest.mark.parametrize("prompt", ["a", ["a"], [1, 2, 3], [[1, 2, 3]], []], ids=str)
def test_answer_to_one_prompt_may_be_kept_in_whatever_form_it_came(prompt: Any) -> None:
    assert storable(ask({"model": "m", "prompt": prompt}, COMPLETION), sampled=False)


def test_wish_for_variety_is_respected_unless_the_operator_says_otherwise() -> None:
    assert not storable(ask(temperature=0.7), sampled=False)
    assert storable(ask(temperature=0.7), sampled=True)


def test_embeddings_are_always_worth_keeping() -> None:
    assert storable(ask({"model": "m", "input": "a"}, EMBEDDING), sampled=False)


def test_body_too_deep_to_be_written_again_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(BadRequest, match="nested too deeply"):
        fingerprint("t", ask(x=nested))


def test_place_where_it_may_be_answered_matters_but_not_the_order_of_its_names() -> None:
    anywhere = fingerprint("t", ask())
    europe = fingerprint("t", ask(), regions=("eu-west-1", "eu-central-1"))
    assert (
        len({anywhere, europe, fingerprint("t", ask(), regions=()), fingerprint("t", ask(), regions=("eu-west-1",))})
        == 4
    )
    assert europe == fingerprint("t", ask(), regions=frozenset({"eu-central-1", "eu-west-1"}))
