"""Questions that mean the same, asked over HTTP of an edge with the real embedder: answered once; their twins never."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from isochrone.stores.dynamodb.client import Timeouts, connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge, settings_with
from tests.upstream import Exchange, Upstream, chunk, completion, ending

SEMANTIC = {"semantic": True, "coalesce": False}
PARAPHRASES = {
    "en": ("How do I reset my password?", "How can I reset my password?"),
    "zh": ("怎么修改登录密码", "如何修改登录密码"),
}
TWINS = [
    ("How do I increase my credit limit?", "How do I decrease my credit limit?"),
    ("What is the fee for a transfer of 100 euros?", "What is the fee for a transfer of 1000 euros?"),
    ("Can I cancel my order after it was shipped?", "Can I not cancel my order after it was shipped?"),
    ("Which flights go from Paris to Rome?", "Which flights go from Rome to Paris?"),
    ("How do I lock my card?", "How do I unlock my card?"),
    ("Who is the mayor of London?", "Who is the mayor of Lisbon?"),
    ("怎么开通短信提醒", "怎么关闭短信提醒"),
    ("转账100元要手续费吗", "转账1000元要手续费吗"),
    ("从北京到上海怎么走", "从上海到北京怎么走"),
    ("为什么可以借款", "为什么不可以借款"),
]


async def by_question(exchange: Exchange) -> None:
    """Says what it was asked; no two questions have the same answer."""
    asked = exchange.received.fields["messages"][-1]["content"]
    text = f"The answer to: {asked}"
    if exchange.wants_stream:
        await exchange.stream([chunk({"role": "assistant", "content": text}), *ending(exchange)])
    else:
        await exchange.json(completion({"content": text}))


async def always_the_same(exchange: Exchange) -> None:
    """One answer to everything."""
    await exchange.json(completion({"content": "Open the settings and follow the steps."}))


@pytest.fixture
def upstream(near: Upstream) -> Upstream:
    near.scripts["m"] = by_question
    near.scripts["same"] = always_the_same
    return near


def asked(text: str, system: str = "Be brief.") -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


async def ask(edge: RunningEdge, text: str, *, system: str = "Be brief.", **more: Any) -> Answer:
    """Ask, and wait until the background has learned from it."""
    answer = await edge.chat(messages=asked(text, system), **more)
    await edge.settled()
    return answer


async def until_answered(edge: RunningEdge, text: str, **more: Any) -> Answer:
    """Ask until it is no audit any more: some of the first would-be hits are answered anew to be compared."""
    for _ in range(20):
        answer = await ask(edge, text, headers={"x-isochrone-cache": "only"}, **more)
        if answer.status == 200:
            return answer
    raise AssertionError(f"{text!r} is not answered from what is known")


def cache(answer: Answer) -> str:
    return answer.headers["x-isochrone-cache"]


@pytest.mark.parametrize("language", PARAPHRASES)
async def test_a_question_worded_otherwise_has_the_known_answer_in_either_form(
    upstream: Upstream, language: str
) -> None:
    first, other = PARAPHRASES[language]
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC, semantic={"shadow": 0.0}) as edge:
        known = await ask(edge, first)
        body, stream = await until_answered(edge, other), await until_answered(edge, other, stream=True)
        assert (cache(known), cache(body), cache(stream)) == ("miss", "semantic", "semantic")
        assert known.text() == body.text() == stream.text() == f"The answer to: {first}"
        assert len(upstream.requests) == 1
        again = await edge.chat(messages=upstream.requests[0].fields["messages"])
        assert body.headers["x-isochrone-answer"] == again.headers["x-isochrone-answer"]
        assert "sure" in body.headers["x-isochrone-reason"]


@pytest.mark.parametrize(("first", "twin"), TWINS)
async def test_a_twin_is_never_answered_by_the_other(upstream: Upstream, first: str, twin: str) -> None:
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC) as edge:
        await ask(edge, first)
        for question in (twin, first, twin):
            answer = await ask(edge, question)
            assert answer.text() == f"The answer to: {question}"
            assert cache(answer) != "semantic"
        assert len(upstream.requests) == 2


async def test_a_miss_says_why_a_similar_question_s_answer_was_not_given(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC) as edge:
        first = await ask(edge, "How do I increase my limit?")
        twin = await ask(edge, "How do I decrease my limit?")
        assert "; " not in first.headers["x-isochrone-reason"]
        assert twin.headers["x-isochrone-reason"].endswith("; similar question known, refused: opposites")


async def test_equal_words_in_other_case_and_spacing_need_no_learning(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC, semantic={"shadow": 0.0}) as edge:
        await ask(edge, "How do I reset my password?")
        assert cache(await ask(edge, "how do I  reset my password ?!")) == "semantic"


@pytest.mark.parametrize(
    "other",
    [
        {"system": "Answer like a pirate."},
        {"max_tokens": 5},
        {"nobody_knows_this_field": 1},
        {"response_format": {"type": "json_object"}},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_a_request_that_differs_in_more_than_the_question_has_no_known_answer(
    upstream: Upstream, other: dict[str, Any]
) -> None:
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC) as edge:
        await ask(edge, "How do I reset my password?")
        assert cache(await ask(edge, "how do i reset my password", **other)) == "miss"


async def test_another_tenant_has_no_known_answer_and_cannot_tell(upstream: Upstream) -> None:
    keys = [{"id": t, "tenant": t, "sha256": sha256(f"key-of-{t}".encode()).hexdigest()} for t in ("a", "b")]
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC, key=keys, auth={"required": True}) as edge:
        await ask(edge, "How do I reset my password?", headers={"authorization": "Bearer key-of-a"})
        other = await ask(edge, "how do i reset my password", headers={"authorization": "Bearer key-of-b"})
        never = await ask(edge, "What is the boiling point of water?", headers={"authorization": "Bearer key-of-b"})
        differ = {name for name in other.headers if other.headers[name] != never.headers[name]}
        assert differ <= {"x-request-id", "date", "content-length", "x-isochrone-reason", "x-isochrone-answer"}
        assert (cache(other), len(upstream.requests)) == ("miss", 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"answers": {}},
        {"answers": SEMANTIC, "model": [{"name": "m", "answers": {"semantic": False}}]},
        {"answers": SEMANTIC, "semantic": {"max_chars": 10}},
    ],
    ids=["off", "off for the model", "too long"],
)
async def test_where_it_is_off_only_the_same_question_is_known(upstream: Upstream, settings: dict[str, Any]) -> None:
    async with running_edge(backend(upstream, "m"), **settings) as edge:
        await ask(edge, "How do I reset my password?")
        assert cache(await ask(edge, "how do I reset my password")) == "miss"


async def test_a_question_in_another_language_is_only_known_word_by_word(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, "m"), answers=SEMANTIC) as edge:
        await ask(edge, "Wie setze ich mein Passwort zurück?")
        assert cache(await ask(edge, "wie setze ich mein passwort zurück")) == "miss"
        assert cache(await ask(edge, "Wie setze ich mein Passwort zurück?")) == "hit"


async def test_each_checked_answer_is_generated_anew_beside_it(upstream: Upstream) -> None:
    async with running_edge(backend(upstream, "same"), answers=SEMANTIC, semantic={"shadow": 1.0}) as edge:
        await ask(edge, "How do I reset my password?", model="m")
        assert cache(await ask(edge, "how do i reset my password", model="m")) == "semantic"
        assert len(upstream.requests) == 2
        answers = (await edge.status())["answers"]
        assert [(one["model"], one["checked"], one["off_until"]) for one in answers["similar"]] == [("m", 1, None)]
        assert answers["false_hits"]["judged"] == 1


@pytest.mark.parametrize(("stream", "other_form"), [(False, False), (True, True), (True, False)])
async def test_within_the_merge_window_a_similar_question_follows_the_one_being_answered(
    upstream: Upstream, stream: bool, other_form: bool
) -> None:
    async def slowly(exchange: Exchange) -> None:
        await upstream.gate.wait()
        await by_question(exchange)

    upstream.scripts["m"] = slowly
    merging: dict[str, Any] = {
        "answers": {"semantic": True},
        "semantic": {"merge_window": 30.0},
        "deadlines": {"first_token": 5.0},
    }
    async with running_edge(backend(upstream, "m"), **merging) as edge:
        first = asyncio.create_task(edge.chat(messages=asked("How do I reset my password?"), stream=stream))
        await eventually(lambda: len(upstream.requests) == 1)
        other = asyncio.create_task(edge.chat(messages=asked("how do i  reset my password"), stream=other_form))
        twin = asyncio.create_task(edge.chat(messages=asked("How do I reset my pin?"), stream=stream))
        await eventually(lambda: len(upstream.requests) == 2)
        upstream.gate.set()
        answers = [await first, await other, await twin]
    assert [cache(answer) for answer in answers] == ["miss", "coalesced", "miss"]
    assert answers[0].text() == answers[1].text() == "The answer to: How do I reset my password?"
    assert answers[2].text() == "The answer to: How do I reset my pin?"
    ids = [answer.headers["x-isochrone-answer"] for answer in answers]
    assert ids[0] == ids[1] != ids[2]


async def test_edges_of_a_region_answer_what_another_one_knows(
    upstream: Upstream, ministack: str, tmp_path: Path
) -> None:
    state = {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)}
    shared: dict[str, Any] = {"service": {"name": f"s{uuid4().hex[:12]}"}, "state": state}
    async with connect(REGIONS[0], endpoint_url=ministack, timeouts=Timeouts(10, 60), environ={}) as client:
        await create_tables(client, settings_with(backend(upstream, "m"), **shared), lambda line: None)
    sections: dict[str, Any] = {**shared, "answers": SEMANTIC, "semantic": {"shadow": 0.0}}
    pool = backend(upstream, "m")
    async with running_edge(pool, **sections) as here, running_edge(pool, **sections) as there:
        await ask(here, "How do I reset my password?")
        answer = await ask(there, "how do i reset my password")
    assert (cache(answer), answer.text()) == ("semantic", "The answer to: How do I reset my password?")
    assert len(upstream.requests) == 1
