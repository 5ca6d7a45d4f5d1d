"""An answer past its time is given only where the operator allows it, and says so."""

from __future__ import annotations

import asyncio
import time

import pytest

from isochrone.answers.terms import TermsBook
from tests.faults.harness import Answer, RunningEdge, backend, running_edge, settings_with
from tests.upstream import TEXT, Exchange, Upstream, ok, refusal

HOUR = 3600.0
FORGETS = {"ttl": 60}
REVALIDATES = {"ttl": 60, "stale_while_revalidate": 36_000}
FORGIVES = {"ttl": 60, "stale_if_error": 36_000}


def an_hour_later(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.edge.pipeline, "_now", lambda: time.time() + HOUR)


def dies(upstream: Upstream) -> None:
    upstream.scripts["ok"] = refusal(503, "server_error")


async def known(edge: RunningEdge) -> Answer:
    answer = await edge.chat()
    await edge.settled()
    return answer


def said(answer: Answer) -> tuple[str | None, str | None]:
    return answer.headers.get("x-isochrone-cache"), answer.headers.get("x-isochrone-stale")


async def test_an_answer_past_its_time_is_not_known(near: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(backend(near), answers=FORGETS) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        assert said(await edge.chat()) == ("miss", None)


@pytest.mark.parametrize("stream", [False, True])
async def test_while_it_is_made_anew_the_old_one_is_given_at_once_with_its_age(
    near: Upstream, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async with running_edge(backend(near), answers=REVALIDATES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        stale = await edge.chat(stream=stream)
        assert said(stale) == ("hit", "revalidating")
        assert stale.text() == TEXT
        assert HOUR <= int(stale.headers["age"]) < HOUR + 10
        await edge.settled()
        assert said(await edge.chat()) == ("hit", None)
        assert len(near.requests) == 2


async def test_only_has_no_answer_for_errors_for_nobody_is_asked_who_could_fail(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=FORGIVES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        dies(near)
        only = await edge.chat(headers={"x-isochrone-cache": "only"})
        assert (only.status, len(near.requests)) == (404, 1)
        assert said(await edge.chat()) == ("hit", "error")


async def slowly(exchange: Exchange) -> None:
    await asyncio.sleep(0.05)
    await ok(exchange)


@pytest.mark.parametrize("coalesce", [True, False])
@pytest.mark.parametrize("recovery", ["splice", "error"])
async def test_many_who_get_the_old_one_cause_one_new_one(
    near: Upstream, monkeypatch: pytest.MonkeyPatch, coalesce: bool, recovery: str
) -> None:
    async with running_edge(backend(near), answers={**REVALIDATES, "coalesce": coalesce}) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        near.scripts["ok"] = slowly
        stale = await asyncio.gather(*(edge.chat(headers={"x-isochrone-recovery": recovery}) for _ in range(20)))
        assert {said(answer) for answer in stale} == {("hit", "revalidating")}
        await edge.settled()
        assert len(near.requests) == 2
        assert edge.edge.pipeline.rooms.counters.as_dict()["cache_hit"] == 20
        assert "cache_coalesced" not in edge.edge.pipeline.rooms.counters.as_dict()


async def test_the_new_one_may_take_longer_than_who_gets_the_old_one_would_wait(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=REVALIDATES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        near.scripts["ok"] = slowly
        assert said(await edge.chat(headers={"x-isochrone-timeout": "0.02"})) == ("hit", "revalidating")
        await edge.settled()
        assert said(await edge.chat()) == ("hit", None)


async def test_who_forbids_to_generate_gets_the_old_one_and_nothing_is_generated(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=REVALIDATES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        assert (await edge.chat(headers={"x-isochrone-cache": "only"})).text() == TEXT
        await edge.settled()
        assert len(near.requests) == 1


async def test_what_is_not_to_be_kept_any_more_is_not_known_any_more(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=REVALIDATES) as edge:
        await known(edge)
        now_never = TermsBook(
            settings_with(backend(near), answers={**REVALIDATES, "rule": [{"name": "never", "ttl": 0}]})
        )
        monkeypatch.setattr(edge.edge.pipeline.rooms.desk, "_terms", now_never)
        assert said(await edge.chat()) == ("bypass", None)


async def test_when_no_backend_can_answer_the_old_one_is_better_than_an_error(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=FORGIVES, retry={"attempts": 1}) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        dies(near)
        stale = await edge.chat()
        assert (stale.status, stale.text(), said(stale)) == (200, TEXT, ("hit", "error"))


async def test_what_is_taken_back_while_the_backends_are_asked_is_not_given(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=FORGIVES, retry={"attempts": 1}) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)

        async def taken_back(exchange: Exchange) -> None:
            await edge.request("DELETE", "/v1/answers?pattern=*")
            await refusal(503, "server_error")(exchange)

        near.scripts["ok"] = taken_back
        assert (await edge.chat()).status == 503


async def test_without_leave_for_it_an_error_is_an_error(near: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(backend(near), answers=REVALIDATES, retry={"attempts": 1}) as edge:
        await known(edge)
        monkeypatch.setattr(edge.edge.pipeline, "_now", lambda: time.time() + 12 * HOUR)
        dies(near)
        assert (await edge.chat()).status == 503


async def test_who_asks_for_a_fresh_answer_gets_no_old_one(near: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_edge(backend(near), answers=FORGIVES, retry={"attempts": 1}) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        dies(near)
        assert (await edge.chat(headers={"x-isochrone-cache": "no-cache"})).status == 503


async def test_a_request_that_is_wrong_is_told_so_whatever_is_known(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=FORGIVES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        near.scripts["ok"] = refusal(400, "invalid_request_error")
        assert (await edge.chat()).status == 400


async def test_what_is_generated_after_the_reply_is_in_the_ledger_before_a_function_may_be_frozen(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_edge(backend(near), answers=REVALIDATES) as edge:
        await known(edge)
        an_hour_later(edge, monkeypatch)
        near.scripts["ok"] = slowly
        await edge.chat()
        await edge.settled()
        assert len(near.requests) == 2
        assert len(edge.edge.pipeline.rooms.book) == 0
