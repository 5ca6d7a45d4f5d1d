"""A real llama.cpp goes on with an answer that died elsewhere, instead of telling it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.faults.harness import Answer, RunningEdge, backend, running_edge
from tests.lambda_.test_real_model import model_running
from tests.upstream import Exchange, Upstream

STORY = [{"role": "user", "content": "Write a story about a river and its people."}]
PATIENT = {"connect": 2.0, "first_token": 60.0, "stall": 60.0, "total": 120.0}
EVENTS_BEFORE_THE_CUT = 12


@pytest.fixture
async def model() -> AsyncIterator[str]:
    async with aiohttp.ClientSession() as session, model_running(session) as url:
        yield url


async def told(edge: RunningEdge, on_first: Callable[[], None] | None = None) -> Answer:
    options = {"temperature": 0, "seed": 1, "max_tokens": 40, "stream_options": {"include_usage": True}}
    no_store = {"x-isochrone-cache": "no-store"}
    return await edge.chat(stream=True, messages=STORY, headers=no_store, on_first=on_first, **options)


def usage_of(answer: Answer) -> list[dict[str, object]]:
    usages = [data["usage"] for data in answer.chunks if data.get("usage")]
    counts = ("prompt_tokens", "completion_tokens")
    return [{name: usage[name] for name in counts} for usage in usages]


async def test_answer_that_died_is_gone_on_with_and_not_told_again(near: Upstream, model: str) -> None:
    heard = bytearray()

    async def dying(exchange: Exchange) -> None:
        """The real engine, dead after some events."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(model + exchange.received.path, data=exchange.received.body) as response,
        ):
            for _ in range(2 * EVENTS_BEFORE_THE_CUT):
                heard.extend(await response.content.readline())
        await exchange.begin_stream()
        await exchange.send(bytes(heard))
        await exchange.backend.gate.wait()
        exchange.hang_up()

    near.scripts["dying"] = dying
    real = {"name": "real", "region": "eu-west-1", "base_url": model + "/v1", "models": {"m": "m"}}
    async with running_edge(real, deadlines=PATIENT) as edge:
        alone = await told(edge)
    goes_on = {**real, "engine": "llama.cpp", "prefill": True}
    async with running_edge(backend(near, "dying"), goes_on, deadlines=PATIENT) as edge:
        by_two = await told(edge, on_first=near.gate.set)
        assert [entry["outcome"] for entry in await edge.ledger()] == ["cut", "ok"]
    begun = Answer(status=200, headers=by_two.headers, body=bytes(heard)).text()
    assert by_two.text().startswith(begun)
    assert begun not in by_two.text()[len(begun) :]
    assert by_two.events[-1] == b"[DONE]"
    assert usage_of(by_two) == usage_of(alone) == [{"prompt_tokens": 40, "completion_tokens": 40}]
