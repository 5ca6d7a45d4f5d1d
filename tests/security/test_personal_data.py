"""Personal data that is taken out before the backend: who sees it, who gets it back, and what is kept."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from isochrone.stores.memory import MemoryAnswerStore
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Exchange, Upstream, chunk, completion, ending, words

pytestmark = pytest.mark.anyio

JANE, TOM, PHONE = "jane@example.com", "tom@example.org", "13812345678"
KEYS = [
    {"id": name, "tenant": tenant, "sha256": sha256(f"key-{name}".encode()).hexdigest(), **more}
    for name, tenant, more in (
        ("taken-out", "a", {"pii": "upstream"}),
        ("other", "a", {"pii": "upstream"}),
        ("logged", "a", {"pii": "log"}),
        ("off", "a", {"pii": "off"}),
        ("default", "a", {}),
    )
]


async def echo(exchange: Exchange) -> None:
    """Says the last question again, in pieces of three letters."""
    text = "You said: " + exchange.received.fields["messages"][-1]["content"]
    if exchange.wants_stream:
        await exchange.stream([*words(re.findall(r"(?s).{1,3}", text)), *ending(exchange)])
    else:
        await exchange.json(completion({"content": text}))


async def echo_then_cut(exchange: Exchange) -> None:
    """Ends inside a placeholder, without an ending, where it is asked the first time; the second time it is whole."""
    if len(exchange.backend.requests) > 1:
        await echo(exchange)
    else:
        await exchange.begin_stream()
        text = "You said: " + exchange.received.fields["messages"][-1]["content"]
        await exchange.send(chunk({"role": "assistant", "content": text[: text.index("_1")]}))
        await exchange.end()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.scripts |= {"echo": echo, "cut": echo_then_cut}
        yield upstream


@pytest.fixture
async def edge(upstream: Upstream) -> AsyncIterator[RunningEdge]:
    served = backend(upstream, models={"m": "echo", "cut": "cut"})
    async with running_edge(served, key=KEYS, auth={"required": True}, pii={"mode": "upstream"}) as edge:
        yield edge


async def ask(edge: RunningEdge, text: str, *, key: str = "taken-out", **fields: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return await edge.chat(messages=messages, headers={"authorization": f"Bearer key-{key}"}, **fields)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", ["taken-out", "default"])
async def test_a_backend_sees_placeholders_and_the_caller_his_own_words(
    edge: RunningEdge, upstream: Upstream, stream: bool, key: str
) -> None:
    answer = await ask(edge, f"Write to {JANE}, not {TOM}; {PHONE}", key=key, stream=stream)
    assert answer.text() == f"You said: Write to {JANE}, not {TOM}; {PHONE}"
    sent = upstream.requests[0].body.decode()
    assert "Write to [EMAIL_1], not [EMAIL_2]; [PHONE_1]" in sent
    assert not any(thing in sent for thing in (JANE, TOM, PHONE))


@pytest.mark.parametrize("stream", [False, True])
async def test_two_callers_share_an_answer_and_each_gets_his_own_data_back(
    edge: RunningEdge, upstream: Upstream, stream: bool
) -> None:
    await ask(edge, f"Greet {JANE}", stream=not stream)
    await edge.settled()
    answer = await ask(edge, f"Greet {TOM}", key="other", stream=stream)
    assert answer.headers["x-isochrone-cache"] == "hit"
    assert answer.text() == f"You said: Greet {TOM}"
    assert JANE.encode() not in answer.body
    assert len(upstream.requests) == 1


async def test_what_is_kept_holds_placeholders(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    put = MemoryAnswerStore.put

    async def noted(self: MemoryAnswerStore, fingerprint: str, value: bytes, **options: Any) -> bool:
        kept.append(value)
        return await put(self, fingerprint, value, **options)

    monkeypatch.setattr(MemoryAnswerStore, "put", noted)
    answer = await ask(edge, f"Greet {JANE}")
    await edge.settled()
    shown = await edge.request(
        "GET",
        f"/v1/answers/{answer.headers['x-isochrone-answer']}",
        headers={"authorization": "Bearer key-taken-out"},
    )
    assert len(kept) == 1
    assert "[EMAIL_1]" in shown.body.decode()
    assert JANE not in shown.body.decode()


async def test_a_stream_that_dies_within_a_placeholder_is_gone_on_with(edge: RunningEdge, upstream: Upstream) -> None:
    answer = await ask(edge, f"Greet {JANE} and go", model="cut", stream=True)
    assert answer.text() == f"You said: Greet {JANE} and go"
    assert len(upstream.requests) == 2


async def test_who_writes_a_placeholder_gets_nobodys_data(edge: RunningEdge) -> None:
    await ask(edge, f"Greet {JANE}")
    await edge.settled()
    answer = await ask(edge, "Greet [EMAIL_1]", key="other")
    assert answer.text() == "You said: Greet [EMAIL_1]"


async def test_in_log_mode_a_backend_sees_everything_and_nothing_is_kept(edge: RunningEdge, upstream: Upstream) -> None:
    for _ in range(2):
        answer = await ask(edge, f"Greet {JANE}", key="logged")
        assert answer.text() == f"You said: Greet {JANE}"
        assert answer.headers["x-isochrone-cache"] == "bypass"
        await edge.settled()
    assert [JANE in received.body.decode() for received in upstream.requests] == [True, True]


async def test_in_log_mode_what_holds_no_such_data_is_kept(edge: RunningEdge, upstream: Upstream) -> None:
    for expected in ("miss", "hit"):
        answer = await ask(edge, "Greet everybody", key="logged")
        assert answer.headers["x-isochrone-cache"] == expected
        await edge.settled()


@pytest.mark.parametrize("key", ["logged", "taken-out"])
async def test_an_answer_in_which_the_model_wrote_such_data_is_not_kept(
    edge: RunningEdge, upstream: Upstream, key: str
) -> None:
    async def invents(exchange: Exchange) -> None:
        await exchange.json(completion({"content": f"Ask {TOM}"}))

    upstream.scripts["echo"] = invents
    for _ in range(2):
        assert (await ask(edge, "Whom?", key=key)).text() == f"Ask {TOM}"
        await edge.settled()
    assert len(upstream.requests) == 2


async def test_off_for_a_key_is_off(edge: RunningEdge, upstream: Upstream) -> None:
    await ask(edge, f"Greet {JANE}", key="off")
    assert JANE in upstream.requests[0].body.decode()


async def test_a_tools_arguments_get_their_data_back_too(edge: RunningEdge, upstream: Upstream) -> None:
    async def calls(exchange: Exchange) -> None:
        pieces = ['{"to":"[EM', "AIL_1", ']"}']
        deltas = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
        first = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]}
        await exchange.stream([chunk(delta) for delta in (first, *deltas)] + ending(exchange, "tool_calls"))

    upstream.scripts["echo"] = calls
    answer = await ask(edge, f"Mail {JANE}", stream=True, tools=[{"type": "function", "function": {"name": "f"}}])
    pieces = [
        call["function"].get("arguments", "")
        for one in answer.chunks
        for choice in one["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert "".join(pieces) == f'{{"to":"{JANE}"}}'


async def test_more_than_can_be_taken_out_is_refused_before_a_backend_is_asked(
    edge: RunningEdge, upstream: Upstream
) -> None:
    answer = await ask(edge, f"{PHONE} " * 10_001)
    assert (answer.status, answer.error["code"]) == (400, "too_much_personal_data")
    assert upstream.requests == []
