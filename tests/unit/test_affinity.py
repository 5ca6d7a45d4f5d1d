from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from isochrone.routing.affinity import digest, score


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def of(*messages: dict[str, Any]) -> int | None:
    return digest({"model": "m", "messages": list(messages)})


def test_all_turns_of_a_conversation_have_one_digest() -> None:
    first = [system("You are kind."), user("Why is the sky blue?")]
    second = [*first, assistant("Because of Rayleigh."), user("And at night?")]
    assert of(*first) == of(*second) == of(*second, assistant("It is dark."), user("Why?"))
    assert of(first[1]) == of(first[1], assistant("Because."), user("And at night?"))


def test_other_beginnings_have_other_digests() -> None:
    asked = user("Why is the sky blue?")
    assert len({of(asked), of(system("a"), asked), of(system("b"), asked), of(system("a"), user("Why?"))}) == 4


def test_only_the_first_block_of_a_long_text_counts() -> None:
    assert of(user("x" * 1024 + "a")) == of(user("x" * 1024 + "b"))
    assert of(user("x" * 1023 + "a")) != of(user("x" * 1023 + "b"))


def test_question_counts_behind_a_system_prompt_of_any_length() -> None:
    assert of(system("x" * 50_000), user("a")) != of(system("x" * 50_000), user("b"))


def test_developer_messages_are_system_prompts_and_several_are_bounded() -> None:
    assert of({"role": "developer", "content": "a"}, user("q")) == of(system("a"), user("q"))
    many = [system(f"{i}") for i in range(100)]
    assert of(*many, user("a")) == of(*many, user("b"))


def test_texts_in_parts_count_and_pictures_do_not() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:..."}}
    parts = [{"type": "text", "text": "What is "}, picture, {"type": "text", "text": "this?"}]
    assert of(user(parts)) == of(user("What is this?"))


@pytest.mark.parametrize("prompt", ["Once upon a time", ["Once upon", "a time"], [1, 2, 3]])
def test_completions_are_known_by_their_prompt(prompt: Any) -> None:
    known = digest({"model": "m", "prompt": prompt})
    assert known is not None
    assert known == digest({"model": "m", "prompt": prompt, "temperature": 1})


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "m", "input": "embed me"},
        {"model": "m", "prompt": ""},
        {"model": "m", "prompt": []},
        {"model": "m", "prompt": [[1, 2], [3]]},
        {"model": "m", "messages": [{"role": "user"}]},
        {"model": "m", "messages": [{"role": "user", "content": None}]},
        {"model": "m", "messages": [user([{"type": "text", "text": 3}])]},
    ],
)
def test_what_has_no_beginning_that_engines_keep_has_no_digest(fields: dict[str, Any]) -> None:
    assert digest(fields) is None


def test_half_of_a_surrogate_pair_is_a_beginning_too() -> None:
    assert of(user("\ud83d")) is not None


def shares(weights: dict[str, float], keys: int = 20_000) -> dict[str, float]:
    chance = random.Random(3)
    won = Counter(
        max(weights, key=lambda name: score(name, weights[name], key))
        for key in (chance.getrandbits(64) for _ in range(keys))
    )
    return {name: count / keys for name, count in won.items()}


def test_each_gets_a_share_of_the_keys_by_its_weight() -> None:
    got = shares({"a": 1, "b": 1, "c": 2})
    assert got == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, abs=0.02)


def test_keys_that_follow_one_another_are_spread_as_well() -> None:
    names = [f"pool-{i}" for i in range(5)]
    won = Counter(max(names, key=lambda name: score(name, 1, key)) for key in range(10_000))
    assert all(abs(count - 2000) < 200 for count in won.values())


def test_score_is_the_same_on_every_edge() -> None:
    assert score("pool-eu", 1.0, 42) == pytest.approx(SCORE_OF_POOL_EU, rel=1e-12)
    assert of(system("You are kind."), user("Why?")) == DIGEST_OF_WHY


@pytest.mark.parametrize("key", [0, 2**64 - 1])
def test_score_is_above_zero_and_finite(key: int) -> None:
    assert 0 < score("a", 1.0, key) < 1e18


# Written down once: edges of different versions of Python and of this program must agree.
SCORE_OF_POOL_EU = 6.371124887438033
DIGEST_OF_WHY = 12795475330249836291
