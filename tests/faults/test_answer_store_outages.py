"""While a table is throttled, slow, silent or gone, requests are answered, rightly and soon. Then all is known again.

Two edges of one region ask the same questions at the same time, each request with five seconds to live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from isochrone import listening
from isochrone.answers import library
from isochrone.answers.codec import from_bytes
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import Timeouts, connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.brown_out import TROUBLES, Way, gone, hanging, way_to
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, eventually, running_edge, settings_with
from tests.faults.test_similar_questions import by_question
from tests.upstream import Upstream

QUESTIONS = [f"How far is star {i}?" for i in range(4)]
IN_TIME = {"x-isochrone-timeout": "5"}
PATIENT = Timeouts(connect=10, total=60)


class Service:
    """Two edges over the same tables, the way to these, and their name."""

    def __init__(self, name: str, way: Way, endpoint: str) -> None:
        self.name = name
        self.way = way
        self.endpoint = endpoint
        self.edges: list[RunningEdge] = []

    async def ask_everywhere(self) -> list[tuple[str, Answer]]:
        """Every question at both edges at once, with its answer."""
        questions = QUESTIONS * len(self.edges)
        edges = [edge for edge in self.edges for _ in QUESTIONS]
        answers = await asyncio.gather(*map(ask, edges, questions))
        return list(zip(questions, answers, strict=True))

    async def settle(self) -> None:
        """What replies do not wait for is done."""
        await asyncio.gather(*(edge.settled() for edge in self.edges))

    async def stored(self) -> list[str]:
        """The question and the text of each answer in the table, past the way."""
        async with connect(REGIONS[0], endpoint_url=self.endpoint, timeouts=PATIENT, environ={}) as client:
            table = f"{self.name}-answers"
            items = (await client.call("Scan", {"TableName": table}, dict[str, Any]))["Items"]
            store = DynamoAnswerStore(client, table)
            values = [await store.get(item["pk"]["S"], now=time.time(), consistent=True) for item in items]
        answers = [from_bytes(value) for value in values if value]
        return sorted(f"{a.question} -> {a.body['choices'][0]['message']['content']}" for a in answers if a)


def revocations_of(edge: RunningEdge) -> Any:
    return edge.edge.pipeline.rooms.desk._revocations


async def ask(edge: RunningEdge, question: str) -> Answer:
    return await edge.chat(messages=[{"role": "user", "content": question}], headers=IN_TIME)


@asynccontextmanager
async def service(
    ministack: str, upstream: Upstream, folder: Path, *, starts_without: str = ""
) -> AsyncIterator[Service]:
    """Both edges are up."""
    upstream.scripts["m"] = by_question
    name = f"t{uuid4().hex[:12]}"
    facts = backend(upstream, "m")
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(way_to(ministack))
        own: dict[str, Any] = {"service": {"name": name}, "state": {"kind": "dynamodb", "endpoint_url": way.url}}
        client = await stack.enter_async_context(
            connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={})
        )
        await create_tables(client, settings_with(facts, **own), lambda line: None)
        if starts_without:
            way.begin(starts_without, gone)
        running = Service(name, way, ministack)
        for number in range(2):
            own["state"]["spool"] = str(folder / str(number))
            edge = await stack.enter_async_context(
                running_edge(facts, **own, deadlines={"first_token": 5.0, "total": 20.0})
            )
            running.edges.append(edge)
        try:
            yield running
        finally:
            way.end()


def assert_right(answers: list[tuple[str, Answer]]) -> None:
    assert [answer.status for _, answer in answers] == [200] * len(answers)
    assert [answer.text() for _, answer in answers] == [f"The answer to: {question}" for question, _ in answers]


EACH_ANSWER = [f"{question} -> The answer to: {question}" for question in QUESTIONS]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("table", ["answers", "fleet", "directory"])
async def test_requests_are_answered_while_a_table_is(
    near: Upstream, ministack: str, tmp_path: Path, table: str, trouble: str
) -> None:
    async with service(ministack, near, tmp_path) as running:
        running.way.begin(table, TROUBLES[trouble])
        assert_right(await running.ask_everywhere())
        assert len(QUESTIONS) <= len(near.requests) <= 2 * len(QUESTIONS)
        await running.settle()
        running.way.end()
        await known_again(running)
        stored = await running.stored()
        assert len(set(stored)) == len(stored)
        if table == "answers":  # what could not be stored is in the edges' memory
            assert set(stored) <= set(EACH_ANSWER)
        else:
            assert stored == EACH_ANSWER


async def known_again(running: Service) -> None:
    """Within the time for which an edge spares a table that was gone, everything is known as if nothing had been."""

    async def is_so() -> bool:
        answers = await running.ask_everywhere()
        assert_right(answers)
        await running.settle()
        return {answer.headers["x-isochrone-cache"] for _, answer in answers} == {"hit"}

    await eventually(is_so, within=60.0)


async def test_edge_that_starts_without_the_directory_answers_and_gives_nothing_known(
    near: Upstream, ministack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot know what was taken back."""
    monkeypatch.setattr(listening, "SPARED_SECONDS", 0.5)
    async with service(ministack, near, tmp_path, starts_without="directory") as running:
        for _ in range(2):
            answers = await running.ask_everywhere()
            assert_right(answers)
            assert {answer.headers["x-isochrone-cache"] for _, answer in answers} <= {"miss", "coalesced"}
            await running.settle()
        running.way.end()
        await known_again(running)
        assert await running.stored() == EACH_ANSWER


@pytest.mark.parametrize("table", ["answers", "fleet", "directory"])
async def test_known_answers_are_given_from_memory_while_a_table_hangs(
    near: Upstream, ministack: str, tmp_path: Path, table: str
) -> None:
    async with service(ministack, near, tmp_path) as running:
        await known_again(running)
        asked = len(near.requests)
        running.way.begin(table, hanging)
        for edge in running.edges:
            revocations_of(edge)._listening.heard_at = listening.Moment(0.0, 0.0)  # long ago
        answers = await running.ask_everywhere()
        assert_right(answers)
        assert {answer.headers["x-isochrone-cache"] for _, answer in answers} == {"hit"}
        assert len(near.requests) == asked


@pytest.mark.parametrize("trouble", ["slow", "hanging"])
async def test_table_that_keeps_silent_is_waited_for_by_the_first_request_and_not_by_all(
    near: Upstream, ministack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(library, "_SPARED_SECONDS", 60.0)
    async with service(ministack, near, tmp_path) as running:
        here = running.edges[0]
        assert (await ask(here, QUESTIONS[0])).status == 200
        await running.settle()
        running.way.begin("answers", TROUBLES[trouble])
        running.way.reads.clear()
        assert [(await ask(here, question)).status for question in QUESTIONS[1:]] == [200] * 3
        assert running.way.reads["answers"] == 1


async def test_answer_that_was_taken_back_does_not_return_while_the_directory_is_gone(
    near: Upstream, ministack: str, tmp_path: Path
) -> None:
    async with service(ministack, near, tmp_path) as running:
        await known_again(running)
        here = running.edges[0]
        await here.request("DELETE", "/v1/answers?pattern=*")
        running.way.begin("directory", gone)
        revocations_of(here)._listening.heard_at = listening.Moment(0.0, 0.0)
        only = {"x-isochrone-cache": "only"}
        answer = await here.chat(messages=[{"role": "user", "content": QUESTIONS[0]}], headers=only)
        assert answer.status == 404
