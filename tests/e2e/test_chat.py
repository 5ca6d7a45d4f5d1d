"""Real questions to a real model through each edge, by openai-python and by hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.running import Edge, Run, free_block

MODEL = "smollm2-135m"
EDGES = {"us-east-1": 0, "eu-west-1": 1, "ap-southeast-1": 2}
SHORT = "Name a colour. Answer with one word."  # so that the model comes to its own end: only such answers are kept
ClientOf = Callable[[int], openai.OpenAI]


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("region", EDGES)
def test_streamed_answer_comes_in_pieces_and_ends_with_its_reason_and_usage(client_of: ClientOf, region: str) -> None:
    with client_of(EDGES[region]).chat.completions.create(
        model=MODEL,
        messages=user(f"Write one sentence about {region}."),
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    texts = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(texts) > 3
    assert reasons in (["stop"], ["length"])
    assert len(usages) == 1
    assert 0 < usages[0].completion_tokens <= 24


@pytest.mark.parametrize("region", EDGES)
def test_whole_answer_names_edge_and_backend(client_of: ClientOf, region: str) -> None:
    raw = client_of(EDGES[region]).chat.completions.with_raw_response.create(
        model=MODEL, messages=user(f"Say hello to {region}."), max_tokens=8
    )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-isochrone-edge"] == region
    assert raw.headers["x-isochrone-backend"].startswith("pool-")
    assert raw.headers["x-isochrone-attempts"] == "1"
    assert raw.headers["x-request-id"]


def test_repeated_question_is_a_hit_with_the_same_text(edition: Run) -> None:
    first = edition.edge(0).ask(SHORT, options={"seed": 7, "max_tokens": 50})
    again = edition.edge(0).ask(SHORT, options={"seed": 7, "max_tokens": 50})
    assert (first.headers["x-isochrone-cache"], again.headers["x-isochrone-cache"]) == ("miss", "hit")
    assert again.json()["choices"][0]["message"]["content"] == first.json()["choices"][0]["message"]["content"]
    assert again.json()["usage"]["completion_tokens"] == first.json()["usage"]["completion_tokens"]


def test_known_answer_is_replayed_as_a_stream(edition: Run, client_of: ClientOf) -> None:
    options = {"seed": 8, "max_tokens": 50}
    known = edition.edge(1).ask(SHORT, options=options).json()["choices"][0]["message"]["content"]
    with client_of(1).chat.completions.create(
        model=MODEL, messages=user(SHORT), seed=8, max_tokens=50, stream=True
    ) as stream:
        assert stream.response.headers["x-isochrone-cache"] == "hit"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == known


def test_answer_outlives_the_edge_that_gave_it(edition: Run) -> None:
    options = {"seed": 9, "max_tokens": 50}
    first = edition.edge(0).ask(SHORT, options=options)
    with another_edge(edition, "us-east-1") as edge:
        again = edge.ask(SHORT, options=options)
    assert (first.headers["x-isochrone-cache"], again.headers["x-isochrone-cache"]) == ("miss", "hit")
    assert again.json()["choices"][0]["message"]["content"] == first.json()["choices"][0]["message"]["content"]


@contextmanager
def another_edge(edition: Run, region: str) -> Iterator[Edge]:
    """One more process for `region`: all that it shares with the first is the tables."""
    port = free_block(1)
    serve = (Path(sys.executable).with_name("isochrone"), "serve", "--config", edition.config(region))
    where = ("--region", region, "--host", "127.0.0.1", "--port", str(port))
    emulator = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    process = subprocess.Popen((*serve, *where), env=os.environ | emulator, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("ready http://")
        yield Edge(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_pasted_curl_line_streams_to_the_end(edition: Run) -> None:
    line = next(line for line in edition.said.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(["bash", "-c", line + " -sS"], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("region", EDGES)
def test_deployed_api_answers_through_its_function(edition: Run, region: str) -> None:
    found = re.search(rf"API +(http://\S+) +{region}", edition.said)
    assert found, edition.said
    reply = Edge(found[1]).ask("Are you there?", options={"seed": 1})
    assert reply.status == 200
    assert reply.json()["usage"]["completion_tokens"] > 0
    assert reply.headers["x-isochrone-edge"] == region


def test_no_store_is_neither_answered_from_nor_kept(edition: Run) -> None:
    replies = [edition.edge(0).ask("Name a town.", x_isochrone_cache="no-store") for _ in range(2)]
    assert [reply.headers["x-isochrone-cache"] for reply in replies] == ["bypass", "bypass"]


def test_only_refuses_what_is_not_known(edition: Run) -> None:
    reply = edition.edge(0).ask("Name something nobody ever asked for.", x_isochrone_cache="only")
    assert reply.status in (404, 504)
    assert set(reply.json()["error"]) == {"message", "type", "code", "param"}


def test_models_are_listed_in_the_shape_that_openai_gives(client_of: ClientOf) -> None:
    served, *light = [model.id for model in client_of(2).models.list()]
    assert served == MODEL
    assert light == ["edge/keywords", "edge/language", "edge/schema", "edge/tokens"]


def test_unknown_model_is_an_openai_error_that_names_the_field(client_of: ClientOf) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client_of(0).chat.completions.create(model="gpt-none", messages=user("Hello"))
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{not json", 400, None),
        (b"[]", 400, None),
        (b'{"messages": [{"role": "user", "content": "x"}]}', 400, "model"),
        (b'{"model": "smollm2-135m"}', 400, "messages"),
        (b'{"model": "smollm2-135m", "messages": []}', 400, "messages"),
        (b'{"model": "smollm2-135m", "messages": "hello"}', 400, "messages"),
        (b'{"model": 7, "messages": [{"role": "user", "content": "x"}]}', 400, "model"),
        (b" " * 20_000_000, 413, None),
    ],
)
def test_bad_body_is_an_openai_error_and_the_edge_stays_up(
    edition: Run, body: bytes, status: int, field: str | None
) -> None:
    reply = edition.edge(0).request("/v1/chat/completions", body)
    assert reply.status == status
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert field is None or error["param"] == field
    assert edition.edge(0).request("/healthz").status == 200


def test_unknown_path_and_wrong_method_are_openai_errors(edition: Run) -> None:
    missing = edition.edge(0).request("/v1/nothing")
    wrong = edition.edge(0).request("/v1/models", b"{}", method="DELETE")
    assert (missing.status, wrong.status) == (404, 405)
    assert missing.json()["error"]["message"]
    assert wrong.json()["error"]["message"]
