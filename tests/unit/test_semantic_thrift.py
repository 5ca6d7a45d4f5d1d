from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from isochrone.answers.semantic.thrift import BUDGET_MS, Thrift, cost_ms, likely_cosine


def mean_spent(probabilities: list[float], cost: float, budget: float = BUDGET_MS) -> float:
    """Of one look-up, after the first five hundred."""
    thrift, spent = Thrift(budget), []
    for probability in probabilities:
        spent.append(cost if thrift.allows(probability) else 0.0)
        thrift.spent(spent[-1])
    return sum(spent[500:]) / len(spent[500:])


@pytest.mark.parametrize("cost", [12.0, 20.0, 40.0])
@pytest.mark.parametrize("kind", ["spread", "all sure", "all alike", "sure or hopeless"])
def test_whatever_is_asked_the_mean_keeps_the_budget(kind: str, cost: float) -> None:
    chance = random.Random(3)
    draw: Callable[[], float] = {
        "spread": chance.random,
        "all sure": lambda: 1.0 - chance.random() / 1000,
        "all alike": lambda: 0.97,
        "sure or hopeless": lambda: chance.choice((0.99, 0.01)),
    }[kind]
    assert mean_spent([draw() for _ in range(3000)], cost) <= BUDGET_MS * 1.05


def test_what_is_below_the_budget_is_all_spent() -> None:
    chance = random.Random(4)
    asked = [0.9 if chance.random() < 0.2 else 0.0 for _ in range(3000)]
    assert mean_spent(asked, 20.0) == pytest.approx(0.2 * 20.0, rel=0.1)


def test_the_most_promising_go_first() -> None:
    chance = random.Random(5)
    thrift, allowed = Thrift(), []
    for _ in range(3000):
        probability = chance.random()
        if thrift.allows(probability):
            allowed.append(probability)
        thrift.spent(40.0 if thrift.allows(probability) else 0.0)
    assert min(allowed[200:]) > 0.5


def test_there_is_always_something_to_learn_from() -> None:
    thrift = Thrift()
    for _ in range(1000):
        thrift.spent(100.0)
    for _ in range(1000):
        thrift.spent(0.0)
    assert thrift.allows(0.3)
    assert not thrift.allows(0.1)


def test_a_longer_text_costs_more_and_a_chinese_character_more_than_a_letter() -> None:
    assert cost_ms("") < cost_ms("How?") < cost_ms("How do I reset my password?")
    assert cost_ms("怎么修改我的密码") > cost_ms("password")
    # Measured: 16 ms for eight words, 59 ms for forty-eight.
    assert cost_ms("word " * 8) == pytest.approx(17, abs=3)
    assert cost_ms("word " * 48) == pytest.approx(63, abs=8)


def test_the_more_alike_the_cheap_vectors_the_nearer_the_embeddings_may_be() -> None:
    cosines = [likely_cosine(score / 10) for score in range(11)]
    assert cosines == sorted(cosines)
    assert 0.7 < cosines[0] < cosines[4] < 0.95 < cosines[8] < cosines[10] < 1.0
