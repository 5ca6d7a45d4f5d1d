"""openai-python, unmodified but for its base URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import FUNCTION, REASONING, TEXT, USAGE, Upstream

KEY = {"id": "k", "tenant": "t", "sha256": sha256(b"the-key").hexdigest()}
MESSAGES = [{"role": "user", "content": "How far?"}]
TOOLS = [{"type": "function", "function": {"name": "rtt", "parameters": {"type": "object", "properties": {}}}}]
NAMES = ("ok", "reasoning", "tools", "context-length", "busy", "dead", "cut", "silent")


@pytest.fixture
async def edge(near: Upstream) -> AsyncIterator[RunningEdge]:
    """Every script of the upstream as a model of the same name."""
    models = {name: name for name in NAMES}
    async with running_edge(backend(near, models=models), key=[KEY], auth={"required": True}) as edge:
        near.gate.set()
        yield edge


@pytest.fixture
async def client(edge: RunningEdge) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key="the-key", max_retries=0) as client:
        yield client


async def ask(client: AsyncOpenAI, model: str, **options: Any) -> Any:
    """One chat completion; what comes back has a type for each set of options, too many to spell out here."""
    create: Any = client.chat.completions.create
    return await create(model=model, messages=MESSAGES, **options)


async def test_completion(client: AsyncOpenAI) -> None:
    done = await ask(client, "ok")
    assert done.choices[0].message.content == TEXT
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.total_tokens == USAGE["total_tokens"]


async def test_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await ask(client, "ok", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == USAGE["completion_tokens"]


async def test_known_answer_is_the_same_to_the_client(client: AsyncOpenAI, edge: RunningEdge, near: Upstream) -> None:
    for _ in range(2):
        stream = await ask(client, "ok", stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        await edge.settled()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        assert chunks[-1].usage.total_tokens == USAGE["total_tokens"]
    assert len(near.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_content(client: AsyncOpenAI, stream: bool) -> None:
    said = await ask(client, "reasoning", stream=stream)
    if stream:
        deltas = [chunk.choices[0].delta async for chunk in said if chunk.choices]
        thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    else:
        thoughts = said.choices[0].message.reasoning_content
    assert thoughts == "".join(REASONING)


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls(client: AsyncOpenAI, stream: bool) -> None:
    said = await ask(client, "tools", tools=TOOLS, stream=stream)
    if stream:
        deltas = [chunk.choices[0].delta async for chunk in said if chunk.choices]
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        arguments = "".join(call.function.arguments or "" for call in calls)
        name = calls[0].function.name
    else:
        (call,) = said.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert {"name": name, "arguments": arguments} == FUNCTION


async def test_json_mode_reaches_the_engine(client: AsyncOpenAI, near: Upstream) -> None:
    await ask(client, "ok", response_format={"type": "json_object"}, extra_body={"guided_choice": ["a"]})
    assert near.requests[0].fields["response_format"] == {"type": "json_object"}
    assert near.requests[0].fields["guided_choice"] == ["a"]


async def test_models(client: AsyncOpenAI) -> None:
    light = ["edge/keywords", "edge/language", "edge/schema", "edge/tokens"]
    assert [model.id async for model in client.models.list()] == [*NAMES, *light]
    assert (await client.models.retrieve("edge/tokens")).owned_by == "isochrone"
    assert (await client.models.retrieve("ok")).id == "ok"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-9")


async def test_embeddings_and_the_older_route(client: AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(model="ok", input="far", encoding_format="float")
    assert vectors.data[0].embedding == [0.25, -0.5]
    assert (await client.completions.create(model="ok", prompt="Once")).choices[0].text == TEXT


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("gpt-9", openai.NotFoundError, "model_not_found"),
        ("context-length", openai.BadRequestError, "context_length_exceeded"),
        ("busy", openai.RateLimitError, "fleet_saturated"),
        ("dead", openai.InternalServerError, "nothing_alive"),
    ],
)
async def test_errors_are_the_clients_own_classes(
    client: AsyncOpenAI, model: str, kind: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        await ask(client, model)
    assert caught.value.code == code
    assert caught.value.response.headers["x-request-id"]


async def test_bad_request_names_its_field(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="ok", messages=[])
    assert caught.value.param == "messages"


async def test_wrong_key_is_an_authentication_error(edge: RunningEdge) -> None:
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key="guessed", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_broken_stream_raises_in_the_client(client: AsyncOpenAI) -> None:
    stream = await ask(client, "cut", stream=True, extra_headers={"x-isochrone-recovery": "error"})
    with pytest.raises(openai.APIError, match="not complete"):
        async for _ in stream:
            pass


async def test_synchronous_client_works_as_well(edge: RunningEdge) -> None:
    def ask() -> tuple[str, str]:
        with OpenAI(base_url=edge.url + "/v1", api_key="the-key", max_retries=0) as client:
            create: Any = client.chat.completions.create
            done = create(model="ok", messages=MESSAGES)
            stream = create(model="ok", messages=MESSAGES, stream=True)
            told = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            return done.choices[0].message.content, told

    assert await asyncio.to_thread(ask) == (TEXT, TEXT)
