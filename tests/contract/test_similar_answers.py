"""Search and lessons of the answers store: what a similar question finds, in memory and on DynamoDB."""

from __future__ import annotations

import math
from typing import Any

from isochrone.stores.entries import DIMENSIONS, Entry

SCOPE, OTHER_SCOPE = "5c" * 32, "07" * 32
NEAR, NEARER, FAR = "aa" * 32, "bb" * 32, "cc" * 32


def towards(angle: float) -> list[float]:
    """A vector of length 1 that has this angle (radians) to `towards(0)`."""
    return [math.cos(angle), math.sin(angle), *[0.0] * (DIMENSIONS - 2)]


def entry(question: str, angle: float, **but: Any) -> Entry:
    return Entry(**{"scope": SCOPE, "question": question, "vector": towards(angle)} | but)


async def keep(stores: Any, fingerprint: str, kept: Entry | None, *, lives: float = 60) -> None:
    await stores.answers.put(fingerprint, b"answer", tenant="t", expires=stores.clock.now + lives, entry=kept)


async def found(stores: Any, *, scope: str = SCOPE, limit: int = 8, after: float = 0) -> list[Any]:
    neighbours: list[Any] = await stores.answers.search(scope, towards(0), limit=limit, now=stores.clock.now + after)
    return neighbours


async def test_the_nearest_questions_come_first_with_their_cosine(stores: Any) -> None:
    await keep(stores, FAR, entry("far", 1.2))
    await keep(stores, NEARER, entry("nearer", 0.1))
    await keep(stores, NEAR, entry("near", 0.5))
    neighbours = await found(stores)
    assert [(one.fingerprint, one.question) for one in neighbours] == [(NEARER, "nearer"), (NEAR, "near"), (FAR, "far")]
    for one, angle in zip(neighbours, (0.1, 0.5, 1.2), strict=True):
        assert math.isclose(one.score, math.cos(angle), abs_tol=1e-4)


async def test_no_more_are_found_than_were_asked_for(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.5))
    await keep(stores, NEARER, entry("nearer", 0.1))
    assert [one.fingerprint for one in await found(stores, limit=1)] == [NEARER]


async def test_a_question_of_another_scope_is_never_found(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0, scope=OTHER_SCOPE))
    assert await found(stores) == []
    assert len(await found(stores, scope=OTHER_SCOPE)) == 1


async def test_an_answer_without_an_entry_is_never_found(stores: Any) -> None:
    await keep(stores, NEAR, None)
    assert await found(stores) == []


async def test_an_answer_that_is_put_again_without_an_entry_is_found_no_more(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0))
    await keep(stores, NEAR, None)
    assert await found(stores) == []


async def test_an_expired_answer_is_not_found(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0), lives=60)
    assert len(await found(stores, after=59)) == 1
    assert await found(stores, after=60) == []


async def test_a_deleted_answer_is_not_found(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0))
    await stores.answers.delete(NEAR)
    assert await found(stores) == []


async def test_what_was_kept_with_a_question_comes_back_as_it_was(stores: Any) -> None:
    await keep(stores, NEAR, entry("怎么修改密码？", 0.0, embedding=bytes(range(256)), lessons=b"\x00\xff"))
    neighbour = (await found(stores))[0]
    assert (neighbour.question, neighbour.embedding, neighbour.lessons) == (
        "怎么修改密码？",
        bytes(range(256)),
        b"\x00\xff",
    )


async def test_lessons_are_replaced_and_the_answer_stays(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0, embedding=b"e"))
    assert await stores.answers.learn(NEAR, b"one", before=b"")
    assert await stores.answers.learn(NEAR, b"two", before=b"one")
    neighbour = (await found(stores))[0]
    assert (neighbour.lessons, neighbour.embedding) == (b"two", b"e")
    assert await stores.answers.get(NEAR, now=stores.clock.now) == b"answer"


async def test_lessons_of_somebody_faster_are_not_overwritten(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0))
    assert await stores.answers.learn(NEAR, b"mine", before=b"")
    assert not await stores.answers.learn(NEAR, b"late", before=b"")
    assert (await found(stores))[0].lessons == b"mine"


async def test_an_embedding_can_be_added_with_a_lesson(stores: Any) -> None:
    await keep(stores, NEAR, entry("near", 0.0))
    assert await stores.answers.learn(NEAR, b"one", before=b"", embedding=b"vector")
    assert (await found(stores))[0].embedding == b"vector"


async def test_nothing_is_learned_about_an_answer_without_an_entry_or_without_an_answer(stores: Any) -> None:
    await keep(stores, NEAR, None)
    assert not await stores.answers.learn(NEAR, b"x", before=b"")
    assert not await stores.answers.learn(FAR, b"x", before=b"")
    assert await stores.answers.get(FAR, now=stores.clock.now) is None
