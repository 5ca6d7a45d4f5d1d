"""On real tables: another tenant's request makes the same calls whether or not somebody else has the answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from isochrone import listening
from isochrone.settings import Settings
from isochrone.stores.dynamodb.client import DynamoClient, connect
from isochrone.stores.dynamodb.tables import create_tables
from tests.contract.conftest import PATIENT
from tests.faults.harness import REGIONS, RunningEdge, backend, eventually, running_edge
from tests.upstream import Upstream

KEYS = [{"id": t, "tenant": t, "sha256": sha256(f"key-{t}".encode()).hexdigest()} for t in ("a", "b")]


@pytest.fixture
async def pool() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


@pytest.fixture
async def edge(
    ministack: str, settings: Settings, pool: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningEdge]:
    monkeypatch.setattr(listening, "PATIENCE_SECONDS", 5.0)
    monkeypatch.setattr(listening, "READ_SECONDS", 5.0)
    async with connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
    async with running_edge(
        backend(pool, models={"m": "ok", "slow": "gated"}),
        service={"name": settings.service.name},
        state={"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)},
        key=KEYS,
        auth={"required": True},
        deadlines={"first_token": 20.0},
    ) as edge:
        yield edge


async def ask(edge: RunningEdge, question: str, tenant: str, model: str = "m") -> str:
    """What the header says of where the answer came from."""
    messages = [{"role": "user", "content": question}]
    headers = {"authorization": f"Bearer key-{tenant}"}
    answer = await edge.chat(model=model, messages=messages, headers=headers)
    return answer.headers["x-isochrone-cache"]


@contextmanager
def calls_about_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every call about an answer or its lease, without the names of which; chores make other ones at any time."""
    made: list[str] = []
    call = DynamoClient.call

    async def noting(self: DynamoClient, operation: str, request: Mapping[str, Any], reply: Any) -> Any:
        text = json.dumps(request, default=repr, sort_keys=True)
        if "-answers" in request["TableName"] or "answer/" in text:
            made.append(f"{operation} {request['TableName'].rpartition('-')[2]} {_anonymous(text)}")
        return await call(self, operation, request, reply)

    with monkeypatch.context() as patch:
        patch.setattr(DynamoClient, "call", noting)
        yield made


def _anonymous(text: str) -> str:
    """The keys of a request by their kinds."""
    names = re.findall(r'"(?:pk|sk)": \{"S": "([^"]*)"\}', text)
    return " ".join(re.sub(r"[0-9a-f]{64}", "MARK", name) for name in names)


async def test_question_that_another_tenant_has_an_answer_to_makes_the_calls_of_a_new_one(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(edge, "How far?", "a")
    await edge.settled()
    made = []
    for question in ("How far?", "How old?"):
        with calls_about_answers(monkeypatch) as calls:
            assert await ask(edge, question, "b") == "miss"
            await edge.settled()
        made.append(calls)
    assert made[0] == made[1]
    assert len(made[0]) > 2


async def test_question_that_another_tenant_is_being_answered_makes_the_calls_of_a_new_one(
    edge: RunningEdge, pool: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = [asyncio.create_task(ask(edge, "How far?", "a", "slow"))]
    await reached(pool, 1)
    made = []
    for question in ("How far?", "How old?"):
        with calls_about_answers(monkeypatch) as calls:
            asking.append(asyncio.create_task(ask(edge, question, "b", "slow")))
            await reached(pool, len(asking))
            made.append(list(calls))
    pool.gate.set()
    assert await asyncio.gather(*asking) == ["miss"] * 3
    assert made[0] == made[1]
    assert len(made[0]) > 1


async def reached(pool: Upstream, requests: int) -> None:
    await eventually(lambda: len(pool.requests) == requests, within=20.0)
