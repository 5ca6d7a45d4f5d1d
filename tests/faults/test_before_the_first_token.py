"""A fault before the first token is made good by the next backend; where there is none, the error tells the truth."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest

from isochrone.routing.circuit import CONSECUTIVE_FAILURES, State
from isochrone.routing.fleet import Offer
from isochrone.routing.health import Fault
from tests.faults.harness import Answer, backend, eventually, running_edge
from tests.upstream import BEFORE_THE_FIRST_TOKEN, RETRY_AFTER, TEXT, Exchange, Upstream, ok, refusal

# These keep the connection open. A request that is no stream has no first token: only its deadline ends the waiting.
# Shares no generation with another request.
ALONE = {"x-isochrone-cache": "no-store"}
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


async def test_backend_that_says_it_is_full_is_passed_over_for_a_while_so_that_retries_are_left_for_worse(
    near: Upstream, far: Upstream
) -> None:
    async with running_edge(
        backend(near, "busy"), backend(far, place=1), retry={"budget_ratio": 0.0}, answers={"exact": False}
    ) as edge:
        answers = [await edge.chat() for _ in range(6)]
        assert [answer.status for answer in answers] == [429, 200, 200, 200, 200, 200]
        assert len(near.requests) == 1


async def test_fallback_answers_at_once_while_the_model_says_that_it_is_full(near: Upstream, far: Upstream) -> None:
    async with running_edge(
        backend(near, "busy"),
        backend(far, place=1, models={"other": "ok"}),
        model=[{"name": "m", "fallback": ["other"]}],
        retry={"budget_ratio": 0.0},
        answers={"exact": False},
    ) as edge:
        answers = [await edge.chat() for _ in range(6)]
        assert [answer.status for answer in answers] == [429, 200, 200, 200, 200, 200]
        assert len(near.requests) == 1


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


TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "type": "scripted_error",
    "param": None,
    "code": "context_length_exceeded",
}


async def test_context_length_refusal_is_passed_on_as_it_is_and_not_tried_with_the_same_model(
    near: Upstream, far: Upstream
) -> None:
    async with running_edge(backend(near, "context-length"), backend(far, place=1)) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.status, answer.error) == (400, TOO_LONG)
        assert far.requests == []
        assert (await edge.status())["backends"][0]["standing"] == "healthy"


@pytest.mark.parametrize(
    ("contexts", "status"), [((None, None), 200), ((8192, None), 200), ((8192, 16384), 200), ((8192, 8192), 400)]
)
async def test_prompt_too_long_goes_to_a_fallback_with_a_longer_context(
    near: Upstream, far: Upstream, contexts: tuple[int | None, int | None], status: int
) -> None:
    models = [{"name": "m", "fallback": ["long"], "context": contexts[0]}, {"name": "long", "context": contexts[1]}]
    far_one = backend(far, place=1, models={"long": "ok"})
    async with running_edge(backend(near, "context-length"), far_one, model=models) as edge:
        answer = await edge.chat()
        assert (answer.status, len(near.requests), len(far.requests)) == (status, 1, status == 200)
        if status == 400:
            assert answer.error == TOO_LONG


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
async def test_content_filters_refusal_is_passed_on_and_never_retried(near: Upstream, far: Upstream, code: str) -> None:
    near.scripts["filter"] = refusal(400, code, "not this")
    models = [{"name": "m", "fallback": ["other"]}]
    both = {"m": "ok", "other": "ok"}
    async with running_edge(backend(near, "filter"), backend(far, place=1, models=both), model=models) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["code"], answer.error["message"]) == (400, code, "not this")
        assert (len(near.requests), far.requests) == (1, [])
        assert [entry["outcome"] for entry in await edge.ledger()] == ["filtered"]


async def test_model_that_fails_is_asked_once_more_and_its_fallback_at_the_same_backend_then(near: Upstream) -> None:
    models = [{"name": "m", "fallback": ["other"]}]
    async with running_edge(backend(near, models={"m": "dead", "other": "ok"}), model=models) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.headers["x-isochrone-attempts"]) == (200, "3")
        assert [request.fields["model"] for request in near.requests] == ["dead", "dead", "ok"]


@pytest.mark.parametrize("wait", [{"retry_after_ms": "120"}, {"retry_after": "0.12"}])
async def test_backend_that_asks_for_a_short_wait_is_asked_again_after_it_and_not_sooner(
    near: Upstream, wait: dict[str, str]
) -> None:
    asked_at: list[float] = []

    async def busy_once(exchange: Exchange) -> None:
        asked_at.append(time.monotonic())
        await (ok if len(asked_at) > 1 else refusal(429, "rate_limit_exceeded", **wait))(exchange)

    near.scripts["busy-once"] = busy_once
    models = [{"name": "m", "fallback": ["other"]}]
    async with running_edge(backend(near, models={"m": "busy-once", "other": "ok"}), model=models) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.headers["x-isochrone-attempts"]) == (200, "2")
        assert asked_at[1] - asked_at[0] >= 0.12


async def test_used_up_quota_is_not_asked_again(near: Upstream) -> None:
    near.scripts["used-up"] = refusal(429, "insufficient_quota", "You exceeded your current quota.")
    async with running_edge(backend(near, "used-up")) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
        assert len(near.requests) == 1


async def test_backend_is_told_how_much_time_its_caller_has_left(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        await edge.chat(headers={"x-isochrone-timeout": "3"})
        (told,) = near.requests[0].header("x-isochrone-timeout")
        assert 2 < float(told) <= 3


async def test_deadlines_of_a_model_and_of_a_backend_go_before_the_general_ones(near: Upstream, far: Upstream) -> None:
    quick = backend(near, "silent", deadlines={"first_token": 0.1})
    patient = {"connect": 1.0, "first_token": 60.0, "stall": 60.0, "total": 60.0}
    models = [{"name": "m", "deadlines": {"first_token": 0.1}}]
    async with running_edge(quick, backend(far, place=1), deadlines=patient) as edge:
        assert (await edge.chat(stream=True)).text() == TEXT
    async with running_edge(backend(near, "silent"), backend(far, place=1), deadlines=patient, model=models) as edge:
        assert (await edge.chat(stream=True)).text() == TEXT


async def test_connection_that_drops_after_the_request_is_ambiguous_and_the_ledger_says_so(
    near: Upstream, far: Upstream
) -> None:
    async with running_edge(backend(near, "hung-up"), backend(far, place=1)) as edge:
        assert (await edge.chat()).status == 200
        assert [(entry["outcome"], entry["ambiguous"]) for entry in await edge.ledger()] == [
            ("dropped", True),
            ("ok", False),
        ]
        assert len(near.requests) == 1


PATIENT = {"connect": 1.0, "first_token": 30.0, "stall": 30.0, "total": 30.0}


async def test_full_fleet_lets_a_request_wait_for_a_place_and_costs_it_no_attempt(near: Upstream) -> None:
    async with running_edge(backend(near, "gated", max_concurrency=1), deadlines=PATIENT) as edge:
        first = asyncio.create_task(edge.chat())
        await eventually(lambda: len(near.requests) == 1)
        second = asyncio.create_task(edge.chat(messages=[{"role": "user", "content": "And how far back?"}]))
        await asyncio.wait([second], timeout=0.1)
        assert (second.done(), len(near.requests)) == (False, 1)
        near.gate.set()
        answers = await asyncio.gather(first, second)
        assert [(answer.status, answer.headers["x-isochrone-attempts"]) for answer in answers] == [(200, "1")] * 2


async def test_full_fleet_is_429_when_no_place_gets_free_in_time(near: Upstream) -> None:
    routing = {"probe_interval": 0, "max_wait": 0.05}
    async with running_edge(
        backend(near, "gated", max_concurrency=1), deadlines=PATIENT, routing=routing, answers={"coalesce": False}
    ) as edge:
        first = asyncio.create_task(edge.chat())
        await eventually(lambda: len(near.requests) == 1)
        answer = await edge.chat(messages=[{"role": "user", "content": "And how far back?"}])
        assert (answer.status, answer.error["code"]) == (429, "fleet_saturated")
        assert int(answer.headers["retry-after"]) >= 1
        near.gate.set()
        assert (await first).status == 200
        assert [entry["outcome"] for entry in await edge.ledger()] == ["ok"]


async def test_full_backend_overflows_to_the_next_and_then_to_the_fallback(near: Upstream, far: Upstream) -> None:
    models = [{"name": "m", "fallback": ["other"]}]
    async with running_edge(
        backend(near, "gated", max_concurrency=1),
        backend(far, place=1, max_concurrency=1, models={"m": "gated", "other": "ok"}),
        backend(far, place=2, kind="api", models={"other": "ok"}),
        deadlines=PATIENT,
        model=models,
    ) as edge:
        held: list[asyncio.Task[Answer]] = []
        for upstream in (near, far):
            held.append(asyncio.create_task(edge.chat(messages=[{"role": "user", "content": str(len(held))}])))
            await eventually(partial(_was_asked, upstream))
        answer = await edge.chat()
        assert (answer.status, answer.headers["x-isochrone-backend"]) == (200, "pool-2")
        near.gate.set()
        far.gate.set()
        assert [(await one).headers["x-isochrone-backend"] for one in held] == ["pool-0", "pool-1"]


def _was_asked(upstream: Upstream) -> bool:
    return bool(upstream.requests)


HEDGED: dict[str, Any] = {
    "model": [{"name": "m", "hedge_after": 0.05}],
    "routing": {"probe_interval": 0, "hedge_ratio": 1.0},
}


@pytest.mark.parametrize("stream", [True, False])
async def test_silent_stream_is_hedged_and_the_loser_is_hung_up_on_and_not_charged(
    near: Upstream, far: Upstream, stream: bool
) -> None:
    async with running_edge(backend(near, "silent"), backend(far, place=1), deadlines=PATIENT, **HEDGED) as edge:
        answer = await edge.chat(stream=stream)
        assert (answer.text(), answer.headers["x-isochrone-backend"]) == (TEXT, "pool-1")
        async with asyncio.timeout(1):
            await near.requests[0].client_left.wait()
        assert [(entry["backend"], entry["outcome"], entry["cost"]) for entry in await edge.ledger()] == [
            ("pool-0", "hedged", 0.0),
            ("pool-1", "ok", 0.0),
        ]
        states = (await edge.status())["backends"]
        assert [(state["in_flight"], state["standing"]) for state in states] == [(0, "healthy")] * 2


async def test_hedges_never_exceed_their_ratio(near: Upstream, far: Upstream) -> None:
    rare = {**HEDGED, "routing": {"probe_interval": 0, "hedge_ratio": 0.1}}
    near.gate.set()
    async with running_edge(backend(near, "gated"), backend(far, "gated", place=1), deadlines=PATIENT, **rare) as edge:
        for _ in range(10):
            await edge.chat(stream=True, headers=ALONE)
        near.gate.clear()
        late = [asyncio.create_task(edge.chat(stream=True, headers=ALONE)) for _ in range(8)]
        await eventually(lambda: len(near.requests) + len(far.requests) >= 18)
        await asyncio.sleep(0.2)
        near.gate.set()
        far.gate.set()
        await asyncio.gather(*late)
        assert len(near.requests) + len(far.requests) == 18 + 1


async def test_callers_who_leave_hedged_requests_leave_nothing_behind(near: Upstream, far: Upstream) -> None:
    async with running_edge(
        backend(near, "silent", max_concurrency=1),
        backend(far, "silent", place=1, max_concurrency=1),
        deadlines=PATIENT,
        **HEDGED,
    ) as edge:
        known = len(asyncio.all_tasks())
        for patience in (0.02, 0.05, 0.055, 0.06, 0.08, 0.12):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience):
                    await edge.chat(stream=True)
        states = edge.edge.pipeline.rooms.fleet.states
        await eventually(lambda: [state.in_flight for state in states] == [0, 0])
        await eventually(lambda: near.open_connections + far.open_connections == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= known)
        near.scripts["silent"] = ok
        answer = await edge.chat(stream=True)
        assert (answer.text(), answer.headers["x-isochrone-backend"]) == (TEXT, "pool-0")


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
    floor, patient = 60, {"connect": 30.0, "first_token": 30.0, "stall": 30.0, "total": 60.0}
    async with running_edge(backend(near, "dead"), backend(far, "dead", place=1), deadlines=patient) as edge:
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


def fall_ill(offer: Offer) -> None:
    """Open its circuit."""
    now = time.monotonic()
    for _ in range(CONSECUTIVE_FAILURES):
        offer.on_failure(now, "answered 503", begun=now, fault=Fault.ANSWER)


async def slow_to_begin(exchange: Exchange) -> None:
    """A first token that comes late, but in time."""
    await asyncio.sleep(0.6)
    await ok(exchange)


async def test_backend_that_is_slow_but_in_time_comes_back_after_an_outage(
    near: Upstream, far: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.routing.circuit.OPEN_BASE_SECONDS", 0.05)
    near.scripts["slow"] = slow_to_begin
    deadlines = {"connect": 1.0, "first_token": 1.0, "stall": 1.0, "total": 10.0}
    async with running_edge(
        backend(near, "slow"), backend(far, place=1), deadlines=deadlines, answers={"exact": False}
    ) as edge:
        fall_ill(edge.edge.pipeline.rooms.fleet.states[0].offers[0])

        async def is_back() -> bool:
            return (await edge.chat(stream=True)).headers["x-isochrone-backend"] == "pool-0"

        await eventually(is_back, within=8.0)


async def test_error_names_the_backend_that_another_request_tries_after_an_outage(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.routing.circuit.OPEN_BASE_SECONDS", 0.01)
    routing = {"probe_interval": 0, "max_wait": 0.05}
    async with running_edge(backend(near, "gated"), deadlines=PATIENT, routing=routing) as edge:
        sick = edge.edge.pipeline.rooms.fleet.states[0].offers[0]
        fall_ill(sick)
        await eventually(lambda: sick.circuit.state(time.monotonic()) is State.HALF_OPEN)
        trial = asyncio.create_task(edge.chat(stream=True))
        await eventually(lambda: len(near.requests) == 1)
        answer = await edge.chat(stream=True, headers=ALONE)
        assert (answer.status, answer.error["code"]) == (503, "nothing_alive")
        assert "pool-0 was sick and is being tried" in answer.error["message"]
        near.gate.set()
        assert (await trial).status == 200
