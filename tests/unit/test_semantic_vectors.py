from __future__ import annotations

import math
import random

from isochrone.answers.semantic.vectors import DIMENSIONS, cosine, pack


def unit(seed: int) -> list[float]:
    numbers = [random.Random(seed * DIMENSIONS + i).gauss(0, 1) for i in range(DIMENSIONS)]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


def test_packing_moves_a_cosine_by_less_than_a_thousandth_of_what_matters() -> None:
    for seed in range(20):
        one, other = unit(seed), unit(seed + 100)
        exact = sum(a * b for a, b in zip(one, other, strict=True))
        found = cosine(pack(one), pack(other))
        assert found is not None
        assert abs(found - exact) < 1e-4


def test_a_vector_is_as_near_to_itself_as_can_be_and_no_nearer() -> None:
    packed = pack(unit(1))
    found = cosine(packed, packed)
    assert found is not None
    assert 0.999 < found <= 1.0


def test_an_embedding_that_is_missing_damaged_or_of_another_model_is_compared_with_nothing() -> None:
    packed = pack(unit(1))
    for other in (b"", packed[:-1], packed + b"\x00", b"\x02" + packed[1:]):
        assert cosine(packed, other) is None
        assert cosine(other, packed) is None
