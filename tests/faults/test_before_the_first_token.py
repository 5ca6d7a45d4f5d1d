"""A fault before the first token is made good by the next backend; where there is none, the error tells the truth."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.faults.harness import backend, eventually, running_edge
from tests.upstream import BEFORE_THE_FIRST_TOKEN, RETRY_AFTER, TEXT, Upstream

# These keep the connection open. A request that is no stream has no first token: only its deadline ends the waiting.
HANGING = {"silent", "silent-after-headers", "only-comments", "error-first"}
FULL_NOT_SICK = {"busy", "busy-until-a-date", "busy-forever", "not-loaded"}


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_TOKEN)
async def test_stream_is_answered_by_the_next_backend(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.status, answer.text(), answer.events[-1]) == (200, TEXT, b"[DONE]")
        assert answer.headers["x-isochrone-backend"] == "pool-1"
        assert answer.headers["x-isochrone-attempts"] == "2"
        assert [entry["outcome"] for entry in await edge.ledger()][1] == "ok"
        assert (await edge.ledger())[0]["outcome"] != "ok"


@pytest.mark.parametrize("fault", [fault for fault in BEFORE_THE_FIRST_TOKEN if fault not in HANGING])
async def test_body_is_answered_by_the_next_backend(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.text()) == (200, TEXT)
        assert answer.headers["x-isochrone-attempts"] == "2"


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_TOKEN)
async def test_failed_attempt_gives_its_place_back_and_hangs_up_on_who_does_not_answer(
    near: Upstream, far: Upstream, fault: str
) -> None:
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        await edge.chat(stream=True)
        assert [state["in_flight"] for state in (await edge.status())["backends"]] == [0, 0]
        if fault in HANGING:
            async with asyncio.timeout(1):
                await near.requests[0].client_left.wait()


async def test_refused_connection_is_answered_by_the_next_backend(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1)) as edge:
        await near.stop()
        answer = await edge.chat()
        assert (answer.status, answer.text()) == (200, TEXT)
        await near.start()


async def test_third_backend_answers_when_two_fail(near: Upstream, far: Upstream) -> None:
    async with running_edge(
        backend(near, "dead"), backend(near, "reset", place=1), backend(far, place=2), retry={"attempts": 3}
    ) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.text(), answer.headers["x-isochrone-backend"]) == (TEXT, "pool-2")
        assert answer.headers["x-isochrone-attempts"] == "3"


async def test_only_backend_is_asked_again_after_a_passing_failure(near: Upstream) -> None:
    async with running_edge(backend(near, "failing-once")) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.text(), answer.headers["x-isochrone-attempts"]) == (200, TEXT, "2")


async def test_only_backend_that_stays_dead_is_503_after_three_attempts(near: Upstream) -> None:
    async with running_edge(backend(near, "dead")) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["code"]) == (503, "nothing_alive")
        assert int(answer.headers["retry-after"]) >= 1
        assert len(near.requests) == 3


async def test_nobody_listening_at_all_is_503_with_the_backends_named(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1)) as edge:
        await near.stop()
        await far.stop()
        answer = await edge.chat(stream=True)
        assert (answer.status, answer.error["code"]) == (503, "nothing_alive")
        assert "pool-0" in answer.error["message"]
        assert "pool-1" in answer.error["message"]
        await near.start()
        await far.start()


@pytest.mark.parametrize("fault", ["busy", "busy-until-a-date"])
async def test_fleet_that_is_full_is_429_and_says_when_to_come_back(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, fault, place=1), retry={"attempts": 2}) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
        assert answer.error["code"] == "fleet_saturated"
        assert int(answer.headers["retry-after"]) in (RETRY_AFTER - 1, RETRY_AFTER)


async def test_senseless_retry_after_is_still_a_clean_429(near: Upstream) -> None:
    async with running_edge(backend(near, "busy-forever"), retry={"attempts": 1}) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["code"]) == (429, "fleet_saturated")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("fault", FULL_NOT_SICK)
async def test_full_backend_is_not_taken_for_a_sick_one(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        for _ in range(5):
            await edge.chat(headers={"x-isochrone-cache": "no-store"})
        assert [state["standing"] for state in (await edge.status())["backends"]] == ["healthy", "healthy"]


async def test_sick_backend_is_avoided_at_once(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "dead"), backend(far, place=1)) as edge:
        for _ in range(10):
            assert (await edge.chat(headers={"x-isochrone-cache": "no-store"})).status == 200
        assert len(near.requests) <= 3


async def test_outage_costs_at_most_the_retry_budget(near: Upstream, far: Upstream) -> None:
    async with running_edge(
        backend(near, "dead"), backend(far, "dead", place=1), retry={"attempts": 3, "budget_ratio": 0.0}
    ) as edge:
        answers = [await edge.chat() for _ in range(10)]
        assert {answer.status for answer in answers} == {503}
        assert len(near.requests) + len(far.requests) == 10


async def test_context_length_refusal_is_passed_on_as_it_is_and_not_tried_elsewhere(
    near: Upstream, far: Upstream
) -> None:
    async with running_edge(backend(near, "context-length"), backend(far, place=1)) as edge:
        answer = await edge.chat(stream=True)
        assert answer.status == 400
        assert answer.error == {
            "message": "This model's maximum context length is 8192 tokens.",
            "type": "scripted_error",
            "param": None,
            "code": "context_length_exceeded",
        }
        assert far.requests == []
        assert (await edge.status())["backends"][0]["standing"] == "healthy"


async def test_our_own_key_being_refused_there_is_not_the_callers_401(near: Upstream) -> None:
    async with running_edge(backend(near, "unauthorized")) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["code"]) == (502, "upstream_failed")


async def test_redirect_of_a_backend_is_never_followed(near: Upstream) -> None:
    async with running_edge(backend(near, "redirected"), retry={"attempts": 1}) as edge:
        assert (await edge.chat()).status == 503
        assert len(near.requests) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_callers_own_timeout_is_504(near: Upstream, stream: bool) -> None:
    deadlines = {"first_token": 60.0, "total": 60.0}
    async with running_edge(backend(near, "silent"), deadlines=deadlines) as edge:
        begun = time.monotonic()
        answer = await edge.chat(stream=stream, headers={"x-isochrone-timeout": "0.2"})
        assert (answer.status, answer.error["code"]) == (504, "deadline_passed")
        assert time.monotonic() - begun < 30
        assert len(near.requests) == 1


async def test_comments_do_not_count_as_a_first_token(near: Upstream) -> None:
    async with running_edge(backend(near, "only-comments"), retry={"attempts": 1}) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.status, answer.error["code"]) == (504, "deadline_passed")


async def test_error_as_first_event_fails_over_without_waiting_for_the_deadline(near: Upstream, far: Upstream) -> None:
    deadlines = {"first_token": 60.0, "total": 60.0}
    async with running_edge(backend(near, "error-first"), backend(far, place=1), deadlines=deadlines) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.text(), answer.headers["x-isochrone-backend"]) == (TEXT, "pool-1")
        assert (await edge.ledger())[0]["outcome"] == "broken"


async def test_outage_under_load_does_not_multiply_the_load(near: Upstream, far: Upstream) -> None:
    """300 requests with 3 attempts each could be 900; the budget allows 20 % more."""
    floor = 60
    async with running_edge(backend(near, "dead"), backend(far, "dead", place=1)) as edge:
        answers = await asyncio.gather(*(edge.chat() for _ in range(300)))
        assert {answer.status for answer in answers} == {503}
        attempts = len(near.requests) + len(far.requests)
        assert attempts <= 300 + max(300 * 0.2, floor)
        assert [state["in_flight"] for state in (await edge.status())["backends"]] == [0, 0]


async def test_caller_in_haste_speaks_against_no_backend(near: Upstream) -> None:
    slow = {"connect": 1.0, "first_token": 0.2, "stall": 0.4, "total": 10.0}
    async with running_edge(backend(near, "silent"), deadlines=slow) as edge:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await edge.chat(stream=True)
        state = edge.edge.pipeline.rooms.fleet.states[0]
        await eventually(lambda: state.in_flight == 0)
        assert state.offers[0].circuit.doubts(time.monotonic()) == 0


async def test_body_that_callers_give_up_on_after_long_silence_speaks_against_its_backend(near: Upstream) -> None:
    quick = {"connect": 1.0, "first_token": 0.05, "stall": 0.4, "total": 10.0}
    async with running_edge(backend(near, "silent", assemble=False), deadlines=quick) as edge:
        state = edge.edge.pipeline.rooms.fleet.states[0]
        for patience, blamed in ((0.1, 0), (0.5, 1)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience):
                    await edge.chat()
            await eventually(lambda: state.in_flight == 0)
            assert state.offers[0].circuit.doubts(time.monotonic()) == blamed
