from __future__ import annotations

from typing import Any

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
    "more",
    [
        {"model": "other"},
        {"messages": [{"role": "user", "content": "How far? "}]},
        {"messages": [{"role": "system", "content": "How far?"}]},
        {"messages": [*BODY["messages"], *BODY["messages"]]},
        {"temperature": 0},
        {"max_tokens": 5},
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
        {"top_logprobs": 3},
    ],
    ids=",".join,
)
def test_anything_beyond_that_may_not_even_if_sampled_answers_may(more: dict[str, Any]) -> None:
    assert not storable(ask(**more), sampled=True)


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
