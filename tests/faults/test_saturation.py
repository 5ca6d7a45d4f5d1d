"""Backends that take so many requests at once: what is sent to them, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from isochrone.routing.health import Fault
from tests.faults import played_time
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.faults.test_two_edges import region
from tests.upstream import Exchange, Upstream, ok

PATIENT: dict[str, Any] = {"deadlines": {"connect": 1.0, "first_token": 60.0, "stall": 60.0, "total": 60.0}}
NO_WAIT: dict[str, Any] = {**PATIENT, "routing": {"probe_interval": 0, "max_wait": 0}}


class Counting:
    """A script that takes a moment, and counts how many it has at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, exchange: Exchange) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.05)
            await ok(exchange)
        finally:
            self.now -= 1


def counting(upstream: Upstream) -> Counting:
    script = upstream.scripts["counting"] = Counting()
    return script


def ask(edge: RunningEdge, word: str = "a", *, priority: int = 5, **fields: Any) -> asyncio.Task[Answer]:
    """One request that says this word, on its way."""
    headers = {"x-isochrone-priority": str(priority), "x-isochrone-cache": "no-store"}
    return asyncio.create_task(edge.chat(headers=headers, messages=[{"role": "user", "content": word}], **fields))


def asked_for(upstream: Upstream) -> list[str]:
    """The words in the order in which they arrived."""
    return [request.fields["messages"][0]["content"] for request in upstream.requests]


def waiting(edge: RunningEdge) -> int:
    places: Any = edge.edge.pipeline.rooms.means.places
    return int(places.waiting)


@pytest.mark.parametrize("stream", [True, False])
async def test_backend_gets_no_more_at_once_than_it_takes_and_all_are_answered(near: Upstream, stream: bool) -> None:
    load = counting(near)
    async with running_edge(backend(near, "counting", max_concurrency=3), **PATIENT) as edge:
        answers = await asyncio.gather(*(ask(edge, stream=stream) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert load.most == 3
        assert (await edge.status())["backends"][0]["in_flight"] == 0


async def test_next_backend_takes_what_the_nearest_has_no_room_for(near: Upstream, far: Upstream) -> None:
    pools = backend(near, "gated", max_concurrency=1), backend(far, place=1, max_concurrency=1)
    async with running_edge(*pools, **PATIENT) as edge:
        held = ask(edge)
        await eventually(lambda: len(near.requests) == 1)
        answer = await ask(edge)
        assert (answer.headers["x-isochrone-backend"], answer.headers["x-isochrone-attempts"]) == ("pool-1", "1")
        near.gate.set()
        assert (await held).headers["x-isochrone-backend"] == "pool-0"


async def test_saturated_fleet_refuses_with_the_time_after_which_there_may_be_a_place(near: Upstream) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), **NO_WAIT) as edge:
        held = ask(edge)
        await eventually(lambda: len(near.requests) == 1)
        answer = await ask(edge)
        assert (answer.status, answer.error["code"]) == (429, "fleet_saturated")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert len(near.requests) == 1
        near.gate.set()
        assert (await held).status == 200
        assert (await ask(edge)).status == 200


@pytest.mark.parametrize(("comes_back", "status", "said"), [(True, 429, "is full"), (False, 503, "pool-0")])
async def test_backend_that_was_sick_and_is_full_is_not_said_to_be_nobody(
    near: Upstream, comes_back: bool, status: int, said: str
) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), **PATIENT, routing={"max_wait": 0.2}) as edge:
        offer = edge.edge.pipeline.rooms.fleet.states[0].offers[0]
        for _ in range(3):
            offer.on_failure(time.monotonic(), "answered 503", begun=time.monotonic(), fault=Fault.ANSWER)
        held = ask(edge)
        await eventually(lambda: len(near.requests) == 1)
        late = ask(edge)
        await eventually(lambda: waiting(edge) == 1)
        if comes_back:
            offer.on_success(time.monotonic(), begun=time.monotonic())
        answer = await late
        assert (answer.status, said in answer.error["message"]) == (status, True)
        near.gate.set()
        assert (await held).status == 200


async def test_urgent_requests_go_before_those_that_came_earlier_and_no_class_is_forgotten(near: Upstream) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), **PATIENT) as edge:
        asks = [ask(edge, "held")]
        await eventually(lambda: len(near.requests) == 1)
        for number, (word, priority) in enumerate([("low", 1), *[("usual", 5)] * 4, *[("high", 9)] * 12], start=1):
            asks.append(ask(edge, word, priority=priority))
            await eventually(lambda number=number: waiting(edge) == number)  # type: ignore[misc]
        near.gate.set()
        await asyncio.gather(*asks)
        served = asked_for(near)[1:]
        assert (served.count("low"), served.count("usual"), served.count("high")) == (1, 4, 12)
        assert served[0] == "high"
        assert "low" in served[:12]
        assert served[:12].count("high") == 8


async def test_request_whose_caller_left_while_it_waited_is_never_sent(near: Upstream) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), **PATIENT) as edge:
        held = ask(edge, "held")
        await eventually(lambda: len(near.requests) == 1)
        gone, patient = ask(edge, "gone"), ask(edge, "patient")
        await eventually(lambda: waiting(edge) == 2)
        gone.cancel()
        await eventually(lambda: waiting(edge) == 1)
        near.gate.set()
        assert [(await task).status for task in (held, patient)] == [200, 200]
        assert asked_for(near) == ["held", "patient"]


async def test_request_whose_time_is_over_while_it_waits_is_refused_and_never_sent(near: Upstream) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), **PATIENT) as edge:
        held = ask(edge, "held")
        await eventually(lambda: len(near.requests) == 1)
        answer = await edge.chat(headers={"x-isochrone-timeout": "0.1"})
        assert answer.status in (429, 504)
        near.gate.set()
        assert (await held).status == 200
        assert asked_for(near) == ["held"]


@pytest.mark.cloud
async def test_edges_together_send_a_backend_no_more_than_it_takes(
    ministack: str, near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.routing.slots._PATIENCE_SECONDS", 30.0)  # the emulator may be slow
    load = counting(near)
    facts = backend(near, "counting", max_concurrency=4)
    async with region(ministack, facts, **PATIENT) as start, start() as one, start() as other:
        answers = await asyncio.gather(*(ask(edge) for edge in [one, other] * 15))
        assert {answer.status for answer in answers} == {200}
        assert load.most <= 4


def test_urgent_requests_hold_their_time_at_three_times_the_load_and_the_others_are_not_starved() -> None:
    """Four places of two seconds each serve two requests a second. For a minute six come: one urgent, two usual and
    three that can wait."""
    waits: dict[int, list[float]] = {9: [], 5: [], 1: []}

    async def answer_in_two_seconds(exchange: Exchange) -> None:
        await asyncio.sleep(2.0)
        await ok(exchange)

    async def one(edge: RunningEdge, priority: int) -> None:
        begun = time.monotonic()
        if (await ask(edge, priority=priority)).status == 200:
            waits[priority].append(time.monotonic() - begun - 2.0)

    async def storm() -> None:
        async with Upstream() as pool:
            pool.scripts["slow"] = answer_in_two_seconds
            async with running_edge(backend(pool, "slow", max_concurrency=4), **PATIENT) as edge:
                asking = []
                for _ in range(60):
                    asking += [asyncio.create_task(one(edge, priority)) for priority in (1, 1, 1, 5, 5, 9)]
                    await asyncio.sleep(1.0)
                await asyncio.gather(*asking)

    played_time.run(storm())
    assert len(waits[9]) == 60
    assert max(waits[9]) < 4
    assert len(waits[5]) > len(waits[1]) >= 8
