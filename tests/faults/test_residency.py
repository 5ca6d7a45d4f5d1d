"""Where a request may be answered holds over real sockets, whatever fails, and among equals a conversation stays."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, running_edge
from tests.upstream import Upstream

HERE, THERE = REGIONS[0], REGIONS[1]
KEYS = [
    {"id": "anywhere", "tenant": "t", "sha256": sha256(b"anywhere").hexdigest()},
    {"id": "here", "tenant": "t", "sha256": sha256(b"here").hexdigest(), "regions": [HERE]},
    {"id": "there", "tenant": "t", "sha256": sha256(b"there").hexdigest(), "regions": [THERE]},
]
SECURED: dict[str, Any] = {"auth": {"required": True}, "key": KEYS}


async def ask(edge: RunningEdge, key: str = "anywhere", *, regions: str | None = None, **fields: Any) -> Answer:
    """One question of a key; `regions` is the header."""
    only = {"x-isochrone-regions": regions} if regions else {}
    return await edge.chat(headers={"authorization": f"Bearer {key}", **only}, **fields)


def served_by(answer: Answer) -> str:
    return answer.headers["x-isochrone-backend"]


async def test_key_is_served_where_its_rule_says_though_another_pool_is_nearer(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **SECURED) as edge:
        assert served_by(await ask(edge)) == "pool-0"
        assert served_by(await ask(edge, "there")) == "pool-1"
        assert len(near.requests) == 1


@pytest.mark.parametrize("script", ["dead", "reset", "silent"])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_failure_sends_a_request_outside(near: Upstream, far: Upstream, script: str, *, stream: bool) -> None:
    async with running_edge(backend(near, script), backend(far, place=1), **SECURED) as edge:
        refused = await ask(edge, "here", stream=stream)
        assert refused.status >= 500
        assert far.requests == []


async def test_stream_that_dies_is_not_gone_on_with_outside(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "cut"), backend(far, place=1), **SECURED) as edge:
        broken = await ask(edge, "here", stream=True)
        assert "error" in broken.chunks[-1]
        assert far.requests == []


async def test_fallback_outside_is_not_used(near: Upstream, far: Upstream) -> None:
    spare = backend(far, place=1, models={"other": "ok"})
    model = [{"name": "m", "fallback": ["other"]}]
    async with running_edge(backend(near, "dead"), spare, model=model, **SECURED) as edge:
        assert (await ask(edge, "here")).status == 503
        assert far.requests == []
        assert served_by(await ask(edge)) == "pool-1"


async def test_rules_that_leave_nobody_are_refused_at_once(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **SECURED) as edge:
        for refused in (await ask(edge, "here", regions=THERE), await ask(edge, regions="mars-1")):
            assert (refused.status, refused.fields["error"]["code"]) == (403, "region_not_allowed")
        assert near.requests == far.requests == []


async def test_caller_narrows_and_never_widens(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **SECURED) as edge:
        assert served_by(await ask(edge, regions=THERE)) == "pool-1"
        assert served_by(await ask(edge, "here", regions=f"{HERE}, {THERE}")) == "pool-0"


async def test_answer_from_outside_is_not_known_to_who_must_stay(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **SECURED) as edge:
        await ask(edge)
        await edge.settled()
        again = await ask(edge)
        there = await ask(edge, "there")
        assert (again.headers["x-isochrone-cache"], there.headers["x-isochrone-cache"]) == ("hit", "miss")


def twins(near: Upstream, far: Upstream) -> list[dict[str, Any]]:
    return [backend(near, name="a"), backend(far, name="b")]


async def test_conversation_stays_with_one_of_two_equals_and_conversations_are_shared_out(
    near: Upstream, far: Upstream
) -> None:
    async with running_edge(*twins(near, far), answers={"exact": False}) as edge:
        served: dict[int, set[str]] = {}
        for number in range(12):
            turns: list[dict[str, str]] = [{"role": "user", "content": f"Question {number}"}]
            for _ in range(2):
                answer = await edge.chat(messages=turns)
                served.setdefault(number, set()).add(served_by(answer))
                turns = [*turns, {"role": "assistant", "content": answer.text()}, {"role": "user", "content": "And?"}]
        assert all(len(pools) == 1 for pools in served.values())
        assert set.union(*served.values()) == {"a", "b"}


async def test_conversation_moves_to_the_other_equal_when_its_own_fails(near: Upstream, far: Upstream) -> None:
    sick = [backend(near, "dead", name="a"), backend(far, name="b")]
    async with running_edge(*sick, answers={"exact": False}) as edge:
        for number in range(6):
            answer = await edge.chat(messages=[{"role": "user", "content": f"Question {number}"}])
            assert (answer.status, served_by(answer)) == (200, "b")
