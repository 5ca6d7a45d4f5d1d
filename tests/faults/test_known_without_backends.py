"""Standard answers and light work over HTTP, with every backend down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError

from isochrone.settings import SettingsError
from isochrone.wiring import build_edge
from tests.faults.harness import REGIONS, RunningEdge, backend, running_edge, settings_with
from tests.upstream import Upstream

FAQ = """id,phrasings,answer,tenants,models,variables
hours,"When are you open?
营业时间","From 9 to 5.
朝九晚五。",,,
city,Open in {city}?,{city}: 9 to 5.,,,city = Rome | Milan
ours,Who are we?,Team A.,team-a,,
other,Hello,Another model.,,n,
"""
DOWN = {"name": "down", "region": REGIONS[0], "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m", "n": "n"}}
LIGHT = [{"task": "keywords", "pattern": r"^keywords:\s*(?P<text>.*)"}]


@pytest.fixture
def faq(tmp_path: Path) -> str:
    path = tmp_path / "faq.csv"
    path.write_text(FAQ, encoding="utf-8")
    return str(path)


@pytest.fixture
async def edge(faq: str) -> AsyncIterator[RunningEdge]:
    async with running_edge(DOWN, answers={"curated": faq}, light=LIGHT) as edge:
        yield edge


async def asked(edge: RunningEdge, question: str, cache: str | None = None, **fields: Any) -> Any:
    headers = {"x-isochrone-cache": cache} if cache else None
    return await edge.chat(messages=[{"role": "user", "content": question}], headers=headers, **fields)


@pytest.mark.parametrize("cache", [None, "only"])
@pytest.mark.parametrize("stream", [False, True])
async def test_standard_question_is_answered_with_every_backend_down(
    edge: RunningEdge, stream: bool, cache: str | None
) -> None:
    answer = await asked(edge, "营业时间?", cache, stream=stream)
    assert answer.status == 200
    assert answer.text() == "From 9 to 5.\n朝九晚五。"
    assert {name: answer.headers[f"x-isochrone-{name}"] for name in ("cache", "backend", "attempts", "answer")} == {
        "cache": "curated",
        "backend": "curated",
        "attempts": "0",
        "answer": "curated/hours",
    }
    assert answer.headers["x-isochrone-reason"] == "curated hours version 1"
    assert answer.headers["cache-control"] == "private, no-store"
    if stream:
        assert answer.events[-1] == b"[DONE]"


async def test_placeholder_is_filled(edge: RunningEdge) -> None:
    assert (await asked(edge, "open in MILAN")).text() == "Milan: 9 to 5."


@pytest.mark.parametrize(
    ("question", "fields"),
    [
        ("When are you closed?", {}),
        ("Open in Paris?", {}),
        ("Hello", {}),
        ("Who are we?", {}),
        ("When are you open?", {"n": 2}),
        ("When are you open?", {"response_format": {"type": "json_object"}}),
    ],
)
async def test_any_other_question_needs_a_backend(edge: RunningEdge, question: str, fields: dict[str, Any]) -> None:
    answer = await asked(edge, question, **fields)
    assert answer.status == 503
    assert "x-isochrone-answer" not in answer.headers


@pytest.mark.parametrize("cache", ["no-cache", "no-store"])
async def test_caller_who_wants_a_generated_answer_gets_one(faq: str, near: Upstream, cache: str) -> None:
    async with running_edge(backend(near), answers={"curated": faq}) as edge:
        answer = await asked(edge, "When are you open?", cache)
        assert answer.headers["x-isochrone-backend"] == "pool-0"
        assert near.requests


async def test_standard_answer_costs_the_backends_and_the_ledger_nothing(faq: str, near: Upstream) -> None:
    async with running_edge(backend(near), answers={"curated": faq}) as edge:
        for _ in range(3):
            assert (await asked(edge, "When are you open?")).headers["x-isochrone-cache"] == "curated"
        await edge.settled()
        assert near.requests == []
        assert await edge.ledger() == []


async def test_file_with_a_mistake_keeps_an_edge_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("id,phrasings,answer\na,Hi,{name}\n")
    with pytest.raises(SettingsError, match=r"^answers\.curated: .*faq\.csv:2: answer: \{name\} is unknown"):
        build_edge(settings_with(DOWN, answers={"curated": str(path)}), region=REGIONS[0])


# -- light work ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_light_work_is_done_with_every_backend_down(edge: RunningEdge, stream: bool) -> None:
    answer = await asked(edge, "Bonjour tout le monde", model="edge/language", stream=stream)
    assert answer.status == 200
    assert json.loads(answer.text())["language"] == "fr"
    assert {name: answer.headers[f"x-isochrone-{name}"] for name in ("cache", "backend", "attempts", "reason")} == {
        "cache": "bypass",
        "backend": "edge",
        "attempts": "0",
        "reason": "light work: language",
    }


async def test_rule_takes_light_work_out_of_other_requests(edge: RunningEdge) -> None:
    answer = await asked(edge, "Keywords: the mobile banking app")
    assert "mobile banking app" in json.loads(answer.text())["keywords"]
    assert (await asked(edge, "the mobile banking app")).status == 503


async def test_status_counts_standard_answers_as_known_and_light_work_as_none(edge: RunningEdge) -> None:
    await asked(edge, "Bonjour", model="edge/language")
    await asked(edge, "When are you open?")
    tiers = (await edge.status())["answers"]["tiers"]
    assert {name: tier["hits"] for name, tier in tiers.items()} == {"curated": 1}


async def test_completions_are_done_too(edge: RunningEdge) -> None:
    fields = {"model": "edge/tokens", "prompt": "Hello, world!"}
    answer = await edge.request("POST", "/v1/completions", json=fields)
    assert json.loads(answer.fields["choices"][0]["text"])["tokens"] == 4


async def test_openai_client_reads_structured_answers_of_the_edge(edge: RunningEdge) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key="none", max_retries=0) as client:
        done = await client.chat.completions.create(
            model="edge/schema", messages=[{"role": "user", "content": '{"city": "Rome"}'}], response_format=wanted
        )
        assert json.loads(done.choices[0].message.content or "") == {"city": "Rome"}
        assert done.usage is not None
        with pytest.raises(BadRequestError, match="does not fit the schema"):
            await client.chat.completions.create(
                model="edge/schema", messages=[{"role": "user", "content": '{"town": "Rome"}'}], response_format=wanted
            )


async def test_light_model_is_listed_and_a_wrong_request_says_why(edge: RunningEdge) -> None:
    assert (await edge.request("GET", "/v1/models/edge%2Ftokens")).fields["owned_by"] == "isochrone"
    refused = await asked(edge, "x", model="edge/tokens", n=2)
    assert (refused.status, refused.error["param"]) == (400, "n")
    unknown = await asked(edge, "x", model="edge/nothing")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")


async def test_light_work_says_of_no_prompt_that_it_was_cached(edge: RunningEdge) -> None:
    done = await asked(edge, "Bonjour tout le monde", model="edge/language")
    assert "prompt_tokens_details" not in done.fields["usage"]
    standard = await asked(edge, "When are you open?")
    assert (
        standard.fields["usage"]["prompt_tokens_details"]["cached_tokens"] == standard.fields["usage"]["prompt_tokens"]
    )
