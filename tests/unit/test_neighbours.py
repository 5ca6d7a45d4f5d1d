"""The index of entries in memory finds what a look at every entry would, whatever came and went."""

from __future__ import annotations

import math
import random
from operator import mul

from isochrone.stores.entries import DIMENSIONS, Entry
from isochrone.stores.neighbours import Neighbours

FOREVER = math.inf


def sparse(chance: random.Random) -> list[float]:
    vector = [0.0] * DIMENSIONS
    for dimension in chance.sample(range(DIMENSIONS), 40):
        vector[dimension] = chance.uniform(-1, 1)
    length = math.sqrt(sum(map(mul, vector, vector)))
    return [number / length for number in vector]


def test_it_finds_what_a_look_at_every_entry_would_whatever_came_and_went() -> None:
    chance = random.Random(1)
    alive: dict[str, tuple[str, list[float]]] = {}
    index = Neighbours(alive.__contains__)
    for step in range(600):
        name = f"{chance.randrange(150)}"
        if chance.random() < 0.3 and name in alive:
            del alive[name]
            if chance.random() < 0.5:
                index.discard(name)
        else:
            alive[name] = (chance.choice("ab"), sparse(chance))
            scope, vector = alive[name]
            index.put(name, Entry(scope, f"question {step}", vector), fresh_until=FOREVER, expires=FOREVER)
        asked = sparse(chance)
        near = {name: sum(map(mul, asked, vector)) for name, (scope, vector) in alive.items() if scope == "a"}
        index.search("a", asked, limit=150, now=0.0)  # the dead that it meets go
        found = index.search("a", asked, limit=5, now=0.0)
        best = sorted(near.values(), reverse=True)[:5]
        assert [round(one.score, 9) for one in found] == [round(score, 9) for score in best if score]
        assert all(math.isclose(near[one.fingerprint], one.score, abs_tol=1e-9) for one in found)


def test_entries_of_answers_that_went_do_not_pile_up() -> None:
    alive: set[str] = set()
    index = Neighbours(alive.__contains__)
    chance = random.Random(2)
    for n in range(2000):
        alive.clear()
        alive.add(f"{n}")
        index.put(f"{n}", Entry("s", "q", sparse(chance)), fresh_until=FOREVER, expires=FOREVER)
    assert len(index) <= 65
