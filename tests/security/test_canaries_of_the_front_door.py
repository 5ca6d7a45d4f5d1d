"""What the front door learns of a caller, and of whom a prompt speaks, stands where the pages say and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from isochrone.cli import main
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.tables import TABLES
from tests.contract.conftest import PATIENT
from tests.faults.harness import ENVIRON, REGIONS, RunningEdge, backend, eventually, running_edge, settings_with
from tests.issuers import AUDIENCE, LocalIssuer
from tests.security.canaries import files_in, items_of, reports_to
from tests.upstream import Exchange, Upstream, chunk, completion, ending

pytestmark = pytest.mark.anyio

SUBJECT = "canary.subject@people.example"
CLAIM, UNASKED = "canaryclaim", "canarynobodyasked"
JANE, PHONE = "jane.canary@example.com", "13812345678"
PROMPT, ANSWER = "canaryprompt7f3a", "canaryanswer91bc"
PERSONAL = {"an address": JANE, "a number": PHONE}
SAID = {"the prompt": PROMPT, "the answer": ANSWER}
BACKENDS_KEY = ENVIRON["LONG_KEY"]
TEXT = f"{PROMPT}: write to {JANE} or call {PHONE}"


class World(NamedTuple):
    """An edge with all that can be switched on, what it told the operator's address, and what each of its tables
    holds."""

    edge: RunningEdge
    token: str
    upstream: Upstream
    notices: list[bytes]
    folder: Path
    endpoint: str
    name: str

    async def ask(self, **fields: Any) -> Any:
        """In the name of the token."""
        fields = {"messages": [{"role": "user", "content": TEXT}], **fields}
        return await self.edge.chat(headers={"authorization": f"Bearer {self.token}"}, **fields)

    async def tables(self) -> dict[str, str]:
        """Every item of every table, as JSON."""
        async with connect(REGIONS[0], endpoint_url=self.endpoint, timeouts=PATIENT, environ={}) as client:
            return {one.name: json.dumps(await items_of(client, f"{self.name}-{one.name}")) for one in TABLES}

    def found_in(self, text: str | bytes) -> set[str]:
        """What of it all stands there."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        secrets = {"the token": self.token.rpartition(".")[2], "the backend's key": BACKENDS_KEY}
        claims = {"the subject": SUBJECT, "a claim": CLAIM, "a claim that nobody asked for": UNASKED}
        return {name for name, canary in (secrets | claims | PERSONAL | SAID).items() if canary in text}


async def repeats(exchange: Exchange) -> None:
    """Says the question again, and a word of its own."""
    text = f"{ANSWER} {exchange.received.fields['messages'][-1]['content']}"
    if exchange.wants_stream:
        pieces = [chunk({"role": "assistant", "content": text[:25]}), chunk({"content": text[25:]})]
        await exchange.stream([*pieces, *ending(exchange)])
    else:
        await exchange.json(completion({"content": text}))


async def flags_all_answers(exchange: Exchange) -> None:
    texts = exchange.received.fields["input"]
    await exchange.json({"results": [{"flagged": ANSWER in text, "categories": {"hate": True}} for text in texts]})


@asynccontextmanager
async def operators_address(heard: list[bytes]) -> AsyncIterator[str]:
    async def hear(request: web.Request) -> web.Response:
        heard.append(f"{request.path_qs} {dict(request.headers)} ".encode() + await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", hear)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("/hooks"))


@pytest.fixture
async def world(ministack: str, tmp_path: Path) -> AsyncIterator[World]:
    name, notices = f"t{uuid4().hex[:12]}", list[bytes]()
    async with Upstream() as upstream, LocalIssuer() as issuer, operators_address(notices) as url:
        upstream.scripts |= {"repeats": repeats, "omni": flags_all_answers}
        served = [
            backend(upstream, models={"m": "repeats", "dead": "dead", "secret": "ok"}, api_key_env="LONG_KEY"),
            backend(upstream, place=1, models={"omni": "omni"}, api_key_env="LONG_KEY"),
        ]
        sections: dict[str, Any] = {
            "service": {"name": name},
            "state": {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path / "spool")},
            "auth": {"required": True},
            "issuer": [
                {
                    "name": "idp",
                    "url": issuer.url,
                    "audience": AUDIENCE,
                    "tenant_claim": "tenant",
                    "attributes": {"team": "team"},
                    "limits": {"requests_per_day": 4, "requests_per_minute": 1000, "concurrency": 50},
                }
            ],
            "policy": [
                {"id": "all", "effect": "allow"},
                {
                    "id": "not-them",
                    "effect": "deny",
                    "resource": {"model": ["secret"]},
                    "principal": {"subject": [SUBJECT]},
                },
            ],
            "limits": {"notify_url": url},
            "answers": {"warm": True},
            "audit": {"to": "file", "folder": str(tmp_path / "audit"), "prompts": True},
            "pii": {"mode": "upstream"},
            "content": {"moderation": "pool-1", "moderation_model": "omni", "after": 1.0},
            "deadlines": {"connect": 5.0, "first_token": 5.0, "stall": 5.0, "total": 30.0},
        }
        async with connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
            await create_tables(client, settings_with(*served, **sections), lambda line: None)
        now = int(time.time())
        token = issuer.token(sub=SUBJECT, iat=now, exp=now + 600, team=CLAIM, email=UNASKED)
        async with running_edge(*served, **sections) as edge:
            yield World(edge, token, upstream, notices, tmp_path, ministack, name)


async def test_what_is_known_of_a_caller_and_what_he_said_stand_only_where_the_pages_say(
    world: World, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    told = await asyncio.gather(world.ask(), world.ask(), world.ask(stream=True, seed=1))
    assert [answer.text() for answer in told] == [f"{ANSWER} {TEXT}"] * 3
    failed = await world.ask(model="dead")
    refused = await world.ask()
    denied = await world.ask(model="secret")
    assert (failed.status, refused.status, denied.status) == (503, 429, 403)
    await world.edge.settled()
    await eventually(lambda: len(world.notices) >= 2, within=10.0)
    reported = await reports_to(world.edge, {"authorization": f"Bearer {world.token}"})
    tables, audit = await world.tables(), files_in(world.folder / "audit")
    commands = [CliRunner().invoke(main, ["audit", word, str(world.folder / "audit")]) for word in ("show", "verify")]
    assert [done.exit_code for done in commands] == [0, 0]
    assert '"question":"' + PROMPT in audit and '"record":"flag"' in audit
    asked = [json.dumps([one.headers, one.body.decode()]) for one in world.upstream.requests]
    assert any(path.endswith("/moderations") for path in (one.path for one in world.upstream.requests))
    sinks = {
        "logs": logged.getvalue(),
        "output": "".join(capfd.readouterr()),
        "reports": reported,
        "errors": failed.body + refused.body + denied.body,
        "headers of replies": str([answer.headers for answer in (*told, failed, refused, denied)]),
        "notices": b"".join(world.notices),
        "audit": audit,
        "audit show": commands[0].output,
        "audit verify": commands[1].output,
        "backends": "".join(asked),
        **{f"table {name}": text for name, text in tables.items()},
    }
    assert {sink: found for sink, text in sinks.items() if (found := world.found_in(text))} == {
        "errors": {"the subject"},  # he is told whose limit is reached: his own
        "logs": {"the subject"},  # whose budget is used up, as the operator's address hears it, too
        "notices": {"the subject"},
        "audit": {"the subject", "the prompt"},
        "audit show": {"the subject"},
        "backends": {"the prompt", "the answer", "the backend's key"},
        "table answers": {"the prompt", "the answer"},
    }


async def test_what_edges_share_of_a_stream_while_it_is_told_holds_nobodys_personal_data(
    ministack: str, tmp_path: Path
) -> None:
    """Two ask two edges the same, but for whom they speak of: one generation, which each hears in his own words."""
    name, tom = f"t{uuid4().hex[:12]}", "tom.canary@example.org"

    async def repeats_slowly(exchange: Exchange) -> None:
        await exchange.begin_stream()
        text = f"{ANSWER} {exchange.received.fields['messages'][-1]['content']}"
        await exchange.send(chunk({"role": "assistant", "content": text}))
        await exchange.backend.gate.wait()
        await exchange.send(*ending(exchange))
        await exchange.end()

    async with Upstream() as upstream:
        upstream.scripts["slow"] = repeats_slowly
        served = backend(upstream, "slow")
        sections: dict[str, Any] = {
            "service": {"name": name},
            "state": {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)},
            "pii": {"mode": "upstream"},
            "deadlines": {"connect": 5.0, "first_token": 20.0, "stall": 20.0, "total": 60.0},
        }
        async with connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
            await create_tables(client, settings_with(served, **sections), lambda line: None)
            async with running_edge(served, **sections) as one, running_edge(served, **sections) as other:
                heard = asyncio.Event()
                first = asyncio.create_task(ask_of(one, JANE))
                await eventually(lambda: len(upstream.requests) == 1, within=10.0)
                second = asyncio.create_task(ask_of(other, tom, heard))
                async with asyncio.timeout(20.0):
                    await heard.wait()
                shared = json.dumps(await items_of(client, f"{name}-fleet"))
                upstream.gate.set()
                told = await asyncio.gather(first, second)
            left = json.dumps([await items_of(client, f"{name}-{table.name}") for table in TABLES])
    assert [answer.text() for answer in told] == [f"{ANSWER} Greet {JANE}", f"{ANSWER} Greet {tom}"]
    assert len(upstream.requests) == 1
    assert ANSWER in shared and "[EMAIL_1]" in shared
    assert [canary for canary in (JANE, tom) if canary in shared + left] == []


async def ask_of(edge: RunningEdge, address: str, heard: asyncio.Event | None = None) -> Any:
    messages = [{"role": "user", "content": f"Greet {address}"}]
    return await edge.chat(messages=messages, stream=True, on_first=heard.set if heard else None)
