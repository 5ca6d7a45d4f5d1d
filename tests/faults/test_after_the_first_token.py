"""A stream that dies after its first token is gone on with, or ends in one error event; a part is never a success."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import AFTER_THE_FIRST_TOKEN, TEXT, USAGE, WORDS, Exchange, Upstream, begun, chunk, words

ERROR = {"x-isochrone-recovery": "error"}
BEGUN = "".join(WORDS[:3])


def assert_honest_end(answer: Answer) -> None:
    """Exactly one error event, the last one; no [DONE]; and the HTTP reply itself is sound."""
    errors = [data for data in answer.chunks if "error" in data]
    assert (answer.status, answer.whole) == (200, True)
    assert len(errors) == 1
    assert errors == answer.chunks[-1:]
    assert errors[0]["error"]["type"] == "upstream_error"
    assert errors[0]["error"]["code"] == "stream_incomplete"
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
async def test_broken_stream_ends_in_one_error_event_and_no_done(near: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault)) as edge:
        answer = await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set)
        assert_honest_end(answer)
        assert answer.text() == BEGUN
        assert (await edge.ledger())[-1]["outcome"] in ("cut", "silent", "broken", "dropped")


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
async def test_broken_stream_is_gone_on_with_by_the_next_backend(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        answer = await edge.chat(stream=True, stream_options={"include_usage": True}, on_first=near.gate.set)
        assert (answer.status, answer.text(), answer.events[-1]) == (200, TEXT, b"[DONE]")
        assert [data["usage"] for data in answer.chunks if data.get("usage")] == [USAGE]
        assert all("error" not in data for data in answer.chunks)
        assert [entry["outcome"] for entry in await edge.ledger()][-1] == "ok"


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
async def test_broken_stream_is_never_kept(near: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault)) as edge:
        await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set)
        await edge.settled()
        assert (await edge.chat(headers={"x-isochrone-cache": "only"})).status == 404


async def test_answer_that_was_gone_on_with_is_kept_whole(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "cut"), backend(far, place=1)) as edge:
        await edge.chat(stream=True, on_first=near.gate.set)
        await edge.settled()
        known = await edge.chat(headers={"x-isochrone-cache": "only"})
        assert (known.status, known.text(), known.headers["x-isochrone-cache"]) == (200, TEXT, "hit")


@pytest.mark.parametrize("script", ["filtered", "only-done", "tools"])
async def test_answer_that_did_not_end_by_itself_is_passed_on_but_not_kept(near: Upstream, script: str) -> None:
    async with running_edge(backend(near, script)) as edge:
        answer = await edge.chat(stream=True)
        assert answer.events[-1] == b"[DONE]"
        await edge.settled()
        assert (await edge.chat(headers={"x-isochrone-cache": "only"})).status == 404


@pytest.mark.parametrize("fault", ["closed-early", "closed-inside-an-event", "cut", "ended-early"])
async def test_whole_body_cut_short_is_never_passed_on(near: Upstream, far: Upstream, fault: str) -> None:
    async def cut_body(exchange: Exchange) -> None:
        await exchange.head(content_type="application/json", content_length="500")
        await exchange.write(b'{"choices": [{"message": {"content": "An iso')
        exchange.hang_up()

    near.scripts[fault] = cut_body
    async with running_edge(backend(near, fault), backend(far, place=1)) as edge:
        assert (await edge.chat()).text() == TEXT


async def test_another_answer_is_not_sewn_on(near: Upstream, far: Upstream) -> None:
    async def another(exchange: Exchange) -> None:
        await exchange.stream([*words(["Quite ", "another ", "answer."]), chunk(finish="stop"), b"data: [DONE]\n\n"])

    far.scripts["another"] = another
    async with running_edge(backend(near, "cut"), backend(far, "another", place=1)) as edge:
        answer = await edge.chat(stream=True, on_first=near.gate.set)
        assert_honest_end(answer)
        assert answer.text() == BEGUN


async def test_backend_that_dies_in_every_stream_is_ejected(near: Upstream) -> None:
    async with running_edge(backend(near, "ended-early")) as edge:
        for _ in range(3):
            await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set)
        assert (await edge.status())["backends"][0]["standing"] == "ejected"


# -- what is no fault, only unusual ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        "blank-lines", "without-done", "only-done", "crlf", "cr", "byte-order-mark", "split-emoji", "single-bytes",
        "one-chunk", "without-usage",
    ],
)  # fmt: skip
async def test_unusual_stream_arrives_as_the_same_text(near: Upstream, script: str) -> None:
    async with running_edge(backend(near, script)) as edge:
        answer = await edge.chat(stream=True)
        assert (answer.status, answer.text(), answer.events[-1]) == (200, TEXT, b"[DONE]")
        assert all("error" not in data for data in answer.chunks)
        assert answer.headers["x-isochrone-attempts"] == "1"


async def test_stream_in_single_bytes_does_not_become_a_flood_of_comments(near: Upstream) -> None:
    async with running_edge(backend(near, "single-bytes")) as edge:
        assert b": keep-alive" not in (await edge.chat(stream=True)).body


async def test_event_of_a_mebibyte_arrives_whole(near: Upstream) -> None:
    async with running_edge(backend(near, "mebibyte")) as edge:
        assert (await edge.chat(stream=True)).text() == "x" * 2**20


async def test_blank_lines_before_a_body_do_no_harm(near: Upstream) -> None:
    async with running_edge(backend(near, "blank-lines")) as edge:
        assert (await edge.chat()).text() == TEXT


async def test_stream_is_passed_on_as_it_comes_and_not_gathered(near: Upstream) -> None:
    async def slowly(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send(*words()[:2])
        await exchange.backend.gate.wait()
        await exchange.send(*words()[2:], chunk(finish="stop"), b"data: [DONE]\n\n")
        await exchange.end()

    near.scripts["slowly"] = slowly
    async with running_edge(backend(near, "slowly"), deadlines={"stall": 60.0}) as edge:
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with edge.session.post(edge.url + "/v1/chat/completions", json=asked) as response:
            first = await response.content.readany()
            assert WORDS[0].encode() in first
            near.gate.set()
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")


async def test_request_goes_on_when_the_client_of_another_leaves(near: Upstream) -> None:
    async with running_edge(backend(near, "endless"), backend(near, "ok", place=1, models={"n": "ok"})) as edge:
        await leave_after_the_first_bytes(edge)
        assert (await edge.chat(model="n")).text() == TEXT


async def leave_after_the_first_bytes(edge: RunningEdge) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    response = await edge.session.post(edge.url + "/v1/chat/completions", json=asked)
    await response.content.readany()
    response.close()


Leave = Callable[[RunningEdge], Awaitable[None]]


async def leave_while_waiting(edge: RunningEdge) -> None:
    asking = asyncio.create_task(edge.chat(stream=True))
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def leave_a_body(edge: RunningEdge) -> None:
    asking = asyncio.create_task(edge.chat())
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("script", "leave"),
    [("endless", leave_after_the_first_bytes), ("silent", leave_while_waiting), ("silent", leave_a_body)],
    ids=["in the middle of a stream", "before the first token", "before a body"],
)
async def test_client_that_leaves_frees_everything_within_a_second(near: Upstream, script: str, leave: Leave) -> None:
    deadlines = {"first_token": 60.0, "stall": 60.0}
    async with running_edge(backend(near, script), deadlines=deadlines) as edge:
        await edge.status()
        tasks = len(asyncio.all_tasks())
        await leave(edge)
        async with asyncio.timeout(1):
            await near.requests[0].client_left.wait()
        await eventually(lambda: near.open_connections == 0)
        backends = (await edge.status())["backends"]
        assert [known["in_flight"] for known in backends] == [0]
        assert backends[0]["standing"] == "healthy"
        assert [entry["outcome"] for entry in await edge.ledger()] == ["cancelled"]
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_many_clients_that_leave_leak_nothing(near: Upstream) -> None:
    async with running_edge(backend(near, "endless")) as edge:
        await asyncio.gather(*(leave_after_the_first_bytes(edge) for _ in range(30)))
        await eventually(lambda: near.open_connections == 0)
        assert (await edge.status())["backends"][0]["in_flight"] == 0
        await edge.settled()
        assert len(edge.edge.pipeline.rooms.book) == 0


async def test_stream_cut_between_two_choices_is_never_a_success(near: Upstream) -> None:
    async def one_of_two(exchange: Exchange) -> None:
        await begun(exchange)
        await exchange.send(chunk(finish="stop"))
        await exchange.end()

    near.scripts["one-of-two"] = one_of_two
    async with running_edge(backend(near, "one-of-two")) as edge:
        assert_honest_end(await edge.chat(stream=True, n=2, headers=ERROR, on_first=near.gate.set))


async def test_body_without_an_end_is_given_up_before_memory_is_gone(
    near: Upstream, far: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.upstream.attempt._MAX_BODY", 100_000)

    async def without_end(exchange: Exchange) -> None:
        exchange.chunked = True
        await exchange.head(content_type="application/json", transfer_encoding="chunked")
        while not exchange.received.client_left.is_set():
            await exchange.send(b" " * 10_000)
        exchange.hang_up()

    near.scripts["without-end"] = without_end
    async with running_edge(backend(near, "without-end"), backend(far, place=1)) as edge:
        assert (await edge.chat()).text() == TEXT
        assert (await edge.ledger())[0]["detail"] == "sent a body of more than 100000 bytes"
