"""A stream that dies after its first token is gone on with, or ends in one error event; a part is never a success."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from isochrone.routing.circuit import CONSECUTIVE_FAILURES
from isochrone.routing.health import Fault
from tests.faults.harness import Answer, RunningEdge, backend, eventually, running_edge
from tests.upstream import (
    AFTER_THE_FIRST_TOKEN,
    DONE,
    FUNCTION,
    KEEP_ALIVE,
    TEXT,
    TOOL_CALL,
    USAGE,
    WORDS,
    Exchange,
    Upstream,
    begun,
    chunk,
    event,
    ok,
    refusal,
    words,
)

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
    assert b"[DONE]" not in answer.events


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


# -- a backend that can go on from a text ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
async def test_broken_stream_is_continued_where_a_prefill_is_taken(near: Upstream, far: Upstream, fault: str) -> None:
    async with running_edge(backend(near, fault), backend(far, "goes-on", place=1, prefill=True)) as edge:
        answer = await edge.chat(stream=True, stream_options={"include_usage": True}, on_first=near.gate.set)
        assert (answer.status, answer.text(), answer.events[-1]) == (200, TEXT, b"[DONE]")
        assert far.requests[0].fields["messages"][-1]["content"] == BEGUN
        assert [data["usage"] for data in answer.chunks if data.get("usage")] == [{**USAGE, "estimated": True}]
        first, second = await edge.ledger()
        assert (first["output_tokens"], first["usage_estimated"]) == (3, True)
        assert (second["outcome"], second["input_tokens"], second["output_tokens"]) == ("ok", 10, 6)


@pytest.mark.parametrize(
    ("engine", "message", "more"),
    [
        ("vllm", {}, {"continue_final_message": True, "add_generation_prompt": False}),
        ("llama.cpp", {}, {}),
        ("openai", {"prefix": True}, {}),
    ],
)
async def test_each_engine_is_asked_in_its_own_way_to_go_on(
    near: Upstream, far: Upstream, engine: str, message: dict[str, Any], more: dict[str, Any]
) -> None:
    goes_on = backend(far, "goes-on", place=1, prefill=True, engine=engine)
    async with running_edge(backend(near, "cut"), goes_on) as edge:
        assert (await edge.chat(stream=True, max_tokens=20, on_first=near.gate.set)).text() == TEXT
    first, second = near.requests[0].fields, far.requests[0].fields
    beginning = {"role": "assistant", "content": BEGUN, **message}
    assert second == {
        **first,
        "model": "goes-on",
        "messages": [*first["messages"], beginning],
        "max_tokens": 17,
        **more,
    }


async def test_answer_told_by_two_is_kept_whole(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "cut"), backend(far, "goes-on", place=1, prefill=True)) as edge:
        await edge.chat(stream=True, on_first=near.gate.set)
        await edge.settled()
        known = await edge.chat(headers={"x-isochrone-cache": "only"})
        cached = {"prompt_tokens_details": {"cached_tokens": USAGE["prompt_tokens"]}}
        assert (known.text(), known.fields["usage"]) == (TEXT, {**USAGE, "estimated": True, **cached})


async def test_refused_prefill_is_never_shown(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "cut"), backend(far, "refuses-to-go-on", place=1, prefill=True)) as edge:
        answer = await edge.chat(stream=True, on_first=near.gate.set)
        assert (answer.text(), answer.events[-1]) == (TEXT, b"[DONE]")
        assert [entry["outcome"] for entry in await edge.ledger()] == ["cut", "ok"]


async def test_refused_prefill_does_not_hide_what_went_wrong_first(near: Upstream, far: Upstream) -> None:
    async def refuses_and_dies(exchange: Exchange) -> None:
        continues = exchange.received.fields["messages"][-1]["role"] == "assistant"
        await refusal(*((400, "invalid_request_error") if continues else (503, "server_error")))(exchange)

    far.scripts["refuses-and-dies"] = refuses_and_dies
    async with running_edge(backend(near, "cut"), backend(far, "refuses-and-dies", place=1, prefill=True)) as edge:
        answer = await edge.chat(stream=True, on_first=near.gate.set)
        assert_honest_end(answer)
        assert "pool-0 cut its reply short" in answer.chunks[-1]["error"]["message"]
        assert "400" not in answer.chunks[-1]["error"]["message"]


async def test_text_of_the_older_route_is_continued_too(near: Upstream, far: Upstream) -> None:
    def said(*texts: str, finish: str | None = None) -> list[bytes]:
        choices = [{"index": 0, "text": text, "finish_reason": None} for text in texts]
        return [event({"choices": [choice]}) for choice in choices]

    async def dies(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send(*said(*WORDS[:3]))
        await exchange.backend.gate.wait()
        exchange.hang_up()

    async def goes_on(exchange: Exchange) -> None:
        assert exchange.received.fields["prompt"] == "Say it: " + BEGUN
        end = event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
        await exchange.stream([*said(*WORDS[3:]), end, DONE])

    near.scripts["dies"], far.scripts["rest"] = dies, goes_on
    async with running_edge(backend(near, "dies"), backend(far, "rest", place=1, prefill=True)) as edge:
        asked = {"model": "m", "prompt": "Say it: ", "stream": True}
        answer = await edge.request("POST", "/v1/completions", json=asked, on_first=near.gate.set)
        assert "".join(data["choices"][0]["text"] for data in answer.chunks) == TEXT
        assert answer.events[-1] == b"[DONE]"


# -- calls of functions ------------------------------------------------------------------------------------------------


def call_of(answer: Answer) -> dict[str, Any]:
    """The one call of a stream, put together as OpenAI's clients do it."""
    call: dict[str, Any] = {"id": "", "name": "", "arguments": ""}
    for data in answer.chunks:
        for piece in data["choices"][0]["delta"].get("tool_calls", ()):
            call["id"] += piece.get("id", "")
            call["name"] += piece["function"].get("name", "")
            call["arguments"] += piece["function"].get("arguments", "")
    return call


async def calling(exchange: Exchange) -> None:
    """Dies over the arguments of a call."""
    first = {**TOOL_CALL, "index": 0, "id": "call_0", "function": {**FUNCTION, "arguments": ""}}
    await exchange.begin_stream()
    await exchange.send(chunk({"role": "assistant", "tool_calls": [first]}))
    await exchange.send(chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"to": "eu'}}]}))
    await exchange.backend.gate.wait()
    exchange.hang_up()


async def test_call_that_was_cut_is_gone_on_with_under_its_first_id(near: Upstream, far: Upstream) -> None:
    near.scripts["calling"] = calling
    async with running_edge(backend(near, "calling"), backend(far, "tools", place=1, prefill=True)) as edge:
        answer = await edge.chat(stream=True, on_first=near.gate.set)
        assert call_of(answer) == {"id": "call_0", **FUNCTION}
        assert answer.events[-1] == b"[DONE]"
        assert far.requests[0].fields["messages"][-1]["role"] == "user"


async def test_call_that_nobody_goes_on_with_is_an_error(near: Upstream) -> None:
    near.scripts["calling"] = calling
    async with running_edge(backend(near, "calling")) as edge:
        assert_honest_end(await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set))


# -- callers who want a body -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*AFTER_THE_FIRST_TOKEN, "silent", "silent-after-headers", "only-comments"])
@pytest.mark.parametrize("prefill", [False, True], ids=["told anew", "continued"])
async def test_body_is_whole_whatever_befalls_its_stream(
    near: Upstream, far: Upstream, fault: str, prefill: bool
) -> None:
    near.gate.set()
    script = "goes-on" if prefill else "ok"
    async with running_edge(backend(near, fault), backend(far, script, place=1, prefill=prefill)) as edge:
        answer = await edge.chat()
        assert (answer.status, answer.text()) == (200, TEXT)
        assert answer.fields["object"] == "chat.completion"
        assert answer.fields["usage"].items() >= USAGE.items()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-isochrone-attempts"] == "2"


@pytest.mark.parametrize("fault", AFTER_THE_FIRST_TOKEN)
async def test_body_that_nobody_tells_to_its_end_is_an_error_and_no_part_of_it(near: Upstream, fault: str) -> None:
    near.gate.set()
    async with running_edge(backend(near, fault), retry={"attempts": 1}) as edge:
        answer = await edge.chat()
        assert answer.status >= 500
        assert WORDS[0] not in str(answer.fields)
        assert [known["in_flight"] for known in (await edge.status())["backends"]] == [0]


@pytest.mark.parametrize("assemble", [True, False])
async def test_engine_that_breaks_off_a_body_has_not_answered(near: Upstream, far: Upstream, assemble: bool) -> None:
    async def broken_off(exchange: Exchange) -> None:
        choice = {"index": 0, "message": {"content": BEGUN}, "finish_reason": "insufficient_system_resource"}
        await exchange.json({"choices": [choice], "usage": USAGE})

    near.scripts["broken-off"] = broken_off
    async with running_edge(backend(near, "broken-off", assemble=assemble), backend(far, place=1)) as edge:
        assert (await edge.chat()).text() == TEXT


async def test_assembled_body_is_kept_like_any_other(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        told = await edge.chat()
        await edge.settled()
        known = await edge.chat(headers={"x-isochrone-cache": "only"})
        cached = {**USAGE, "prompt_tokens_details": {"cached_tokens": USAGE["prompt_tokens"]}}
        assert {**known.fields, "id": "", "created": 0} == {**told.fields, "id": "", "created": 0, "usage": cached}


async def test_body_that_comes_soon_is_asked_for_as_one_the_next_time(near: Upstream) -> None:
    async with running_edge(backend(near), answers={"exact": False}) as edge:
        assert (await edge.chat()).text() == (await edge.chat()).text() == TEXT
        assert [received.fields.get("stream") for received in near.requests] == [True, None]


async def test_long_answer_after_short_ones_is_asked_for_as_a_stream_and_no_silence(near: Upstream) -> None:
    async def slowly(exchange: Exchange) -> None:
        if not exchange.wants_stream:
            await exchange.client_gone()
            return
        await exchange.begin_stream()
        for piece in [*words(), chunk(finish="stop"), DONE]:
            await exchange.send(piece)
            await asyncio.sleep(0.05)
        await exchange.end()

    deadlines = {"connect": 1.0, "first_token": 0.3, "stall": 0.3, "total": 10.0}
    sections: dict[str, Any] = {"answers": {"exact": False}, "deadlines": deadlines, "retry": {"attempts": 1}}
    async with running_edge(backend(near, "usual"), **sections) as edge:
        near.scripts["usual"] = ok
        for _ in range(3):
            assert (await edge.chat()).status == 200
        near.scripts["usual"] = slowly
        for _ in range(2):
            assert (await edge.chat()).text() == TEXT
        asked_for = [received.fields.get("stream") for received in near.requests]
        assert asked_for == [True, None, None, None, True, True]
        entries = await edge.ledger()
        assert [entry["outcome"] for entry in entries] == ["ok"] * 5
        assert [entry["detail"] for entry in entries[-2:]] == ["asked twice: was silent for too long", None]


async def test_backend_that_falls_silent_over_a_body_is_left_within_the_first_token_deadline(
    near: Upstream, far: Upstream
) -> None:
    async def silently(exchange: Exchange) -> None:
        await exchange.client_gone()

    async with running_edge(backend(near, "usual"), backend(far, place=1), answers={"exact": False}) as edge:
        near.scripts["usual"] = ok
        for _ in range(2):
            assert (await edge.chat()).headers["x-isochrone-backend"] == "pool-0"
        near.scripts["usual"] = silently
        answer = await edge.chat()
        assert (answer.text(), answer.headers["x-isochrone-attempts"]) == (TEXT, "2")
        assert [entry["outcome"] for entry in await edge.ledger()] == ["ok", "ok", "silent", "ok"]


# -- usage that nobody said --------------------------------------------------------------------------------------------


async def test_caller_who_asked_for_usage_gets_an_estimate_where_the_engine_says_none(near: Upstream) -> None:
    async with running_edge(backend(near, "without-usage"), answers={"exact": False}) as edge:
        answer = await edge.chat(stream=True, stream_options={"include_usage": True})
        assert answer.chunks[-1]["usage"]["estimated"] is True
        assert answer.events[-1] == b"[DONE]"
        assert (await edge.chat()).fields["usage"]["estimated"] is True
        assert all(entry["usage_estimated"] and entry["output_tokens"] for entry in await edge.ledger())


async def test_client_that_left_is_booked_with_what_was_told_until_then(near: Upstream) -> None:
    async with running_edge(backend(near, "endless")) as edge:
        await leave_after_the_first_bytes(edge)
        await eventually(lambda: near.open_connections == 0)
        (entry,) = await edge.ledger()
        assert (entry["outcome"], entry["usage_estimated"]) == ("cancelled", True)
        assert entry["output_tokens"] >= 1


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


async def test_comments_of_a_backend_keep_the_client_awake_but_the_stream_not_alive(near: Upstream) -> None:
    async with running_edge(backend(near, "commenting-after-words")) as edge:
        answer = await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set)
        assert_honest_end(answer)
        assert KEEP_ALIVE in answer.body
        assert (await edge.ledger())[0]["outcome"] == "silent"


async def test_done_without_a_reason_is_an_end_only_where_the_engine_never_gave_one(near: Upstream) -> None:
    endings = [[DONE], [chunk(finish="stop"), DONE], [DONE]]

    async def done(exchange: Exchange) -> None:
        near.gate.clear()
        await begun(exchange)
        await exchange.send(*endings.pop(0))
        await exchange.end()

    near.scripts["done"] = done
    async with running_edge(backend(near, "done"), answers={"exact": False}) as edge:
        answers = [await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set) for _ in range(3)]
        assert [answer.events[-1] for answer in answers[:2]] == [b"[DONE]", b"[DONE]"]
        assert_honest_end(answers[2])


async def test_event_without_an_end_is_given_up_before_memory_is_gone(
    near: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.api.sse.MAX_EVENT_BYTES", 100_000)

    async def without_end(exchange: Exchange) -> None:
        await begun(exchange)
        while not exchange.received.client_left.is_set():
            await exchange.send(b"x" * 10_000)
        exchange.hang_up()

    near.scripts["without-end"] = without_end
    async with running_edge(backend(near, "without-end")) as edge:
        answer = await edge.chat(stream=True, headers=ERROR, on_first=near.gate.set)
        assert_honest_end(answer)
        assert "more than 100000 bytes" in answer.chunks[-1]["error"]["message"]


async def test_client_that_does_not_read_holds_the_backend_back(near: Upstream) -> None:
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin_stream()
        while not exchange.received.client_left.is_set():
            await exchange.send(chunk({"content": "x" * 60_000}))
            sent += 60_000
        exchange.hang_up()

    async def has_stopped() -> bool:
        before = sent
        await asyncio.sleep(0.1)
        return sent == before > 0

    near.scripts["flood"] = flood
    async with running_edge(backend(near, "flood")) as edge:
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
        response = await edge.session.post(edge.url + "/v1/chat/completions", json=asked)
        await eventually(has_stopped, within=10.0)
        assert sent < 32 * 2**20
        response.close()
        await eventually(lambda: near.open_connections == 0)


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


async def test_client_that_leaves_while_another_backend_is_sought_frees_everything(
    near: Upstream, far: Upstream
) -> None:
    deadlines = {"first_token": 60.0, "stall": 60.0}
    async with running_edge(backend(near, "cut"), backend(far, "silent", place=1), deadlines=deadlines) as edge:
        await edge.status()
        tasks = len(asyncio.all_tasks())
        asking = asyncio.create_task(edge.chat(stream=True, on_first=near.gate.set))
        await eventually(lambda: bool(far.requests))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(1):
            await far.requests[0].client_left.wait()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        assert [known["in_flight"] for known in (await edge.status())["backends"]] == [0, 0]
        assert [entry["outcome"] for entry in await edge.ledger()] == ["cut", "cancelled"]


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


async def one_choice_after_the_other(exchange: Exchange) -> None:
    """Of two choices, the beginning of the first one."""
    await exchange.begin_stream()
    await exchange.send(*words()[1:3])
    await exchange.backend.gate.wait()
    exchange.hang_up()


async def the_other_choice_first(exchange: Exchange) -> None:
    """Two whole choices, the second one first."""
    choices = [[chunk({"content": TEXT}, index=at), chunk(finish="stop", index=at)] for at in (1, 0)]
    await exchange.stream([*choices[0], *choices[1], DONE])


async def test_two_choices_are_never_joined_into_one(near: Upstream, far: Upstream) -> None:
    near.scripts["first"], far.scripts["second"] = one_choice_after_the_other, the_other_choice_first
    async with running_edge(backend(near, "first"), backend(far, "second", place=1)) as edge:
        answer = await edge.chat(stream=True, n=2, on_first=near.gate.set)
        assert_honest_end(answer)
        assert answer.text() == "".join(WORDS[:2])


INAPPROPRIATE = {"message": "Output data may be inappropriate.", "type": "x", "code": "data_inspection_failed"}


async def filtered_after_words(exchange: Exchange) -> None:
    """A few words, and then a content filter stops the answer."""
    await begun(exchange)
    await exchange.send(event({"error": INAPPROPRIATE}))


@pytest.mark.parametrize("stream", [True, False])
async def test_answer_that_a_content_filter_stops_is_told_by_nobody_else(
    near: Upstream, far: Upstream, stream: bool
) -> None:
    near.scripts["filtered"] = filtered_after_words
    if not stream:
        near.gate.set()
    async with running_edge(backend(near, "filtered"), backend(far, place=1)) as edge:
        answer = await edge.chat(stream=stream, on_first=near.gate.set)
        assert (answer.status, answer.whole) == (200 if stream else 400, True)
        assert (answer.chunks[-1] if stream else answer.fields) == {"error": {**INAPPROPRIATE, "param": None}}
        assert b"[DONE]" not in answer.events
        assert far.requests == []
        assert [entry["outcome"] for entry in await edge.ledger()] == ["filtered"]
        assert (await edge.status())["backends"][0]["standing"] == "healthy"


async def test_stream_that_dies_is_gone_on_with_by_who_is_well_by_then(near: Upstream, far: Upstream) -> None:
    async with (
        Upstream() as third,
        running_edge(
            backend(near, "cut"), backend(far, "dead", place=1), backend(third, place=2), retry={"attempts": 2}
        ) as edge,
    ):
        sick = edge.edge.pipeline.rooms.fleet.states[1].offers[0]

        def fall_ill() -> None:
            now = time.monotonic()
            for _ in range(CONSECUTIVE_FAILURES - sick.circuit.failures_in_a_row):
                sick.on_failure(now, "answered 503", begun=now, fault=Fault.ANSWER)
            near.gate.set()

        answer = await edge.chat(stream=True, on_first=fall_ill)
        assert (answer.text(), answer.events[-1]) == (TEXT, b"[DONE]")
        assert far.requests == []


@pytest.mark.parametrize("begins", [False, True])
async def test_body_of_several_choices_is_told_whole_by_the_next_when_one_falls_silent(
    near: Upstream, far: Upstream, begins: bool
) -> None:
    near.gate.set()
    near.scripts["first"], far.scripts["second"] = one_choice_after_the_other, the_other_choice_first
    deadlines = {"connect": 1.0, "first_token": 0.4, "stall": 0.4, "total": 60.0}
    first = backend(near, "first" if begins else "silent")
    async with running_edge(first, backend(far, "second", place=1), deadlines=deadlines) as edge:
        answer = await edge.chat(n=2)
        choices = [(choice["index"], choice["message"]["content"]) for choice in answer.fields["choices"]]
        assert choices == [(0, TEXT), (1, TEXT)]
        assert answer.headers["x-isochrone-attempts"] == "2"
