"""Secrets and what people say stay where they belong: canaries are put into everything that comes in, every error path
is caused, and then they are looked for in everything that goes out and stays.

The sinks: logs of all levels, standard output, metrics, EMF, the routes that report, the errors that callers get, the
audit, the ledger, spools, every item of every table, the texts of exceptions and every repr(). Only an answer's own
item, and the parts of one that others follow while it is told, may hold the question and the answer.

Other sinks: test_canaries_of_the_front_door, of_functions, of_operators, and tests/infra/test_sinks.
"""

from __future__ import annotations

import asyncio
import io
import json
import traceback
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from isochrone import pipeline as pipeline_module
from isochrone.answers.completion import Answer
from isochrone.answers.fingerprint import fingerprint
from isochrone.api.errors import UpstreamRefused
from isochrone.api.exchange import Reply, Request
from isochrone.api.requests import CHAT, Ask
from isochrone.pii.vault import Vault
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.tables import TABLES
from tests.conftest import free_port
from tests.contract.conftest import PATIENT
from tests.faults.harness import ENVIRON, REGIONS, backend, running_edge, settings_with
from tests.security.canaries import (
    ANSWER,
    BEARER,
    JWT,
    KEY,
    KEYS,
    PROMPT,
    UPSTREAM_KEY,
    edge_over,
    files_in,
    items_of,
    leaks,
    question,
    reports,
)
from tests.upstream import SCRIPTS, Exchange, Upstream, chunk, completion, ending

pytestmark = pytest.mark.anyio

ERRORS = tuple(name for name in SCRIPTS if name not in ("endless", "gated", "mebibyte"))


async def says(exchange: Exchange) -> None:
    """A sound answer with a canary in it."""
    if exchange.wants_stream:
        await exchange.stream([chunk({"role": "assistant", "content": ANSWER}), *ending(exchange)])
    else:
        await exchange.json(completion({"content": ANSWER}))


async def says_and_dies(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send(chunk({"role": "assistant", "content": ANSWER}))
    exchange.reset()


def tells_all(status: int) -> Any:
    """An engine that is in the way of debugging: its error holds all that it was sent, its own key too."""

    async def script(exchange: Exchange) -> None:
        said = f"{exchange.received.headers} {exchange.received.body.decode()}"
        await exchange.json({"error": {"message": said, "type": "x", "code": "x"}}, status)

    return script


async def tells_all_in_band(exchange: Exchange) -> None:
    said = f"{exchange.received.headers} {exchange.received.body.decode()}"
    await exchange.begin_stream()
    await exchange.send(b"data: " + json.dumps({"error": {"message": said}}).encode() + b"\n\n")
    await exchange.end()


OWN = {"says": says, "says-and-dies": says_and_dies, "in-band": tells_all_in_band} | {
    f"tells-{status}": tells_all(status) for status in (401, 403, 404, 429, 500, 503)
}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.scripts |= OWN
        yield upstream


# -- what comes from upstreams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])
async def test_no_fault_of_an_upstream_brings_a_canary_into_a_report_a_log_or_a_file(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO, capfd: pytest.CaptureFixture[str], stream: bool
) -> None:
    names = (*ERRORS, *OWN)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # so that the loop logs every one of its steps
    patient = {"connect": 5.0, "first_token": 1.0, "stall": 0.7, "total": 10.0}
    async with edge_over(upstream, tmp_path, *names, deadlines=patient) as edge:
        answers = await asyncio.gather(
            *(edge.chat(model=name, headers=BEARER, stream=stream, **question()) for name in names)
        )
        await edge.settled()
        reported = await reports(edge)
    assert {200, 503} <= {answer.status for answer in answers}
    written = files_in(tmp_path)
    assert written.count('"record":"request"') >= len(names)
    assert logged.getvalue().count("Executing") > len(names)
    sinks = {"reports": reported, "logs": logged.getvalue(), "files": written, "output": "".join(capfd.readouterr())}
    assert {sink: leaks(text) for sink, text in sinks.items() if leaks(text)} == {}


@pytest.mark.parametrize("stream", [False, True], ids=["body", "stream"])
@pytest.mark.parametrize("name", [*OWN, *ERRORS])
async def test_no_error_that_a_caller_gets_holds_a_canary(
    upstream: Upstream, tmp_path: Path, name: str, stream: bool
) -> None:
    async with edge_over(upstream, tmp_path, name) as edge:
        answer = await edge.chat(model=name, headers=BEARER, stream=stream, **question())
    errors = [answer.body] if answer.status != 200 else [data for data in answer.events if b'"error"' in data]
    assert [leaks(error) for error in errors if leaks(error)] == []
    assert leaks(str(answer.headers)) == []


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_backend_that_tells_its_key_in_a_refusal_tells_it_to_nobody(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO, status: int
) -> None:
    """Its words are passed on, for they say what is wrong; they may hold what the caller said, and never our key."""
    upstream.scripts["refuses"] = tells_all(status)
    async with edge_over(upstream, tmp_path, "refuses") as edge:
        for stream in (False, True):
            answer = await edge.chat(model="refuses", headers=BEARER, stream=stream, **question())
            assert answer.status == status
            assert leaks(answer.body, but="prompt") == []
        reported = await reports(edge)
    assert leaks(reported + logged.getvalue() + files_in(tmp_path)) == []


@pytest.mark.parametrize("key", ["POOL_KEY", "LONG_KEY"])
async def test_a_backend_that_tells_its_key_in_the_middle_of_a_stream_tells_it_to_nobody(
    upstream: Upstream, key: str
) -> None:
    """A filter's words are passed on in band."""

    async def filters(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.send(chunk({"role": "assistant", "content": "Well"}))
        await exchange.backend.gate.wait()
        error = {"error": {"message": f"content_filter: {exchange.received.headers}", "code": "content_filter"}}
        await exchange.send(b"data: " + json.dumps(error).encode() + b"\n\n")
        await exchange.end()

    upstream.scripts["filters"] = filters
    served = backend(upstream, "filters", api_key_env=key)
    async with running_edge(served) as edge:
        answer = await edge.chat(stream=True, on_first=upstream.gate.set)
    assert b"content_filter" in answer.events[-1]
    assert ENVIRON[key].encode() not in answer.body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_holds_the_key_with_which_we_asked_is_told_and_kept_without_it(
    upstream: Upstream, stream: bool
) -> None:
    """Some proxies show in their replies what they were sent."""

    async def shows(exchange: Exchange) -> None:
        debug = {"debug": {"headers": dict(exchange.received.headers)}}
        if exchange.wants_stream:
            shown = b": " + str(exchange.received.headers).encode() + b"\n\n"
            said = b"data: " + json.dumps(debug).encode() + b"\n\n"
            await exchange.stream([shown, said, chunk({"role": "assistant", "content": "Well"}), *ending(exchange)])
        else:
            await exchange.json({**completion({"content": "Well"}), **debug})

    upstream.scripts["shows"] = shows
    async with running_edge(backend(upstream, "shows", api_key_env="LONG_KEY")) as edge:
        told = [await edge.chat(stream=stream)]
        await edge.settled()
        told += [await edge.chat(stream=stream), await edge.chat(stream=not stream)]
    assert b"Bearer [key]" in told[0].body
    assert [answer.text() for answer in told] == ["Well"] * 3
    assert [ENVIRON["LONG_KEY"].encode() in answer.body for answer in told] == [False] * 3


# -- what comes from callers -------------------------------------------------------------------------------------------

BAD_BODIES = {
    "no JSON": f'{{"messages": "{PROMPT}',
    "cut text": f'{{"model":"says","messages":[{{"role":"user","content":"{PROMPT}\\ud800"}}]}}',
    "a wrong type": json.dumps({"model": "says", "messages": [{"role": "user", "content": {"x": PROMPT}}]}),
    "a wrong role": json.dumps({"model": "says", "messages": [{"role": [PROMPT], "content": "x"}]}),
    "no messages": json.dumps({"model": "says", "messages": PROMPT}),
    "a wrong number": json.dumps({"model": "says", "temperature": PROMPT, **question()}),
    "a wrong stop": json.dumps({"model": "says", "stop": {"x": PROMPT}, **question()}),
    "too many choices": json.dumps({"model": "says", "n": 10**6, **question()}),
    "too deep": '{"a":' * 100_000 + f'"{PROMPT}"',
    "the same field twice": f'{{"model":"says","model":"{PROMPT}","messages":[{{"role":"user","content":"x"}}]}}',
    "no number": f'{{"model":"says","temperature":NaN,"user":"{PROMPT}"}}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_that_is_refused_is_repeated_nowhere(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO, body: str
) -> None:
    headers = {**BEARER, "content-type": "application/json"}
    async with edge_over(upstream, tmp_path, "says") as edge:
        answer = await edge.request("POST", "/v1/chat/completions", data=body.encode(), headers=headers)
        reported = await reports(edge)
    assert 400 <= answer.status < 500
    assert leaks(answer.body + reported.encode() + logged.getvalue().encode() + files_in(tmp_path).encode()) == []


@pytest.mark.parametrize(
    "authorization", [f"Bearer {JWT}", f"Bearer {KEY}x", f"Basic {KEY}", KEY, f"Bearer  {KEY},{KEY}"]
)
async def test_a_credential_that_is_refused_is_repeated_nowhere(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO, authorization: str
) -> None:
    async with edge_over(upstream, tmp_path, "says") as edge:
        answer = await edge.chat(model="says", headers={"authorization": authorization}, **question())
        reported = await reports(edge)
    assert answer.status in (400, 401)
    assert leaks(answer.body + reported.encode() + logged.getvalue().encode() + files_in(tmp_path).encode()) == []


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/chat/completions"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_key_in_a_query_opens_nothing_and_is_repeated_nowhere(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO, path: str, method: str
) -> None:
    async with edge_over(upstream, tmp_path, "says") as edge:
        body = {"model": "says", **question()} if method == "POST" else None
        answer = await edge.request(method, f"{path}?api_key={KEY}&q={PROMPT}", json=body)
        reported = await reports(edge)
    assert answer.status in (401, 404, 405)
    sinks = [answer.body.decode(), str(answer.headers), reported, logged.getvalue(), files_in(tmp_path)]
    assert [leaks(sink) for sink in sinks if leaks(sink)] == []


async def test_a_callers_credentials_never_reach_a_backend(upstream: Upstream, tmp_path: Path) -> None:
    names = {"x-api-key": KEY, "cookie": f"k={KEY}", "proxy-authorization": f"Bearer {KEY}", "openai-organization": KEY}
    async with edge_over(upstream, tmp_path, "says") as edge:
        await edge.chat(model="says", headers={**BEARER, **names}, **question())
    (received,) = upstream.requests
    assert leaks(f"{received.headers} {received.body!r}", but="prompt,upstream key") == []
    assert received.header("authorization") == [f"Bearer {UPSTREAM_KEY}"]


# -- what goes wrong inside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "status"),
    [("_look_up", 500), ("_plan", 500), ("_relay", 500), ("_keep", 200)],
)
async def test_a_fault_inside_the_edge_dumps_nothing_of_the_request(
    upstream: Upstream,
    tmp_path: Path,
    logged: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    status: int,
) -> None:
    """The worst that a bug can do is to put all that it has at hand into its exception."""

    def fail(self: Any, errand: Any, *_: Any) -> Any:
        try:
            raise KeyError(KEY)
        except KeyError as error:
            raise RuntimeError(f"{errand.ask.fields} {errand!r} {self.settings!r} {self.rooms!r}") from error

    async with edge_over(upstream, tmp_path, "says") as edge:
        with monkeypatch.context() as broken:
            broken.setattr(pipeline_module.Pipeline, where, fail)
            answer = await edge.chat(model="says", headers=BEARER, **question())
            await edge.settled()
    assert answer.status == status
    assert [told in logged.getvalue() for told in ("Fault: RuntimeError", "Fault: KeyError", "in fail")] == [True] * 3
    error = answer.body if status == 500 else b""
    assert leaks(error + logged.getvalue().encode() + files_in(tmp_path).encode()) == []


def ask_with_canaries() -> Ask:
    return Ask(CHAT, "m", False, False, {"model": "m", **question()})


def vault_with_canaries() -> Vault:
    vault = Vault()
    vault.take(PROMPT, "EMAIL")
    return vault


REQUEST = Request(
    method="POST",
    path="/v1/chat/completions",
    headers=BEARER,
    body=PROMPT.encode(),
    peer="127.0.0.1",
    query={"pattern": PROMPT},
)


@pytest.mark.parametrize(
    "thing",
    [
        REQUEST,
        Reply(status=200, headers={}, body=ANSWER.encode()),
        ask_with_canaries(),
        Answer("chat", "b", 0.0, {"choices": [{"text": ANSWER}]}, question=PROMPT, request={"fields": question()}),
        vault_with_canaries(),
        UpstreamRefused(400, PROMPT.encode()),
        settings_with({"name": "b", "base_url": "http://127.0.0.1:9", "models": {"m": "m"}}, key=KEYS),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_no_repr_and_no_text_of_an_exception_holds_a_canary(thing: Any) -> None:
    shown = f"{thing!r} {thing} {[thing]} {thing!a}"
    if isinstance(thing, Exception):
        shown += "".join(traceback.format_exception(thing))
    assert leaks(shown) == []


async def test_what_an_edge_is_made_of_shows_no_key(upstream: Upstream, tmp_path: Path) -> None:
    async with edge_over(upstream, tmp_path, "says") as edge:
        rooms = edge.edge.pipeline.rooms
        assert leaks(f"{edge.edge!r} {rooms!r} {rooms.means!r} {rooms.front!r} {vars(rooms.front)!r}") == []


# -- what stays --------------------------------------------------------------------------------------------------------


def test_a_cache_key_is_a_digest() -> None:
    mark = fingerprint("a", ask_with_canaries())
    assert leaks(mark) == []
    assert set(mark) <= set("0123456789abcdef")


async def test_no_item_of_a_table_but_an_answers_own_holds_a_canary(
    ministack: str, upstream: Upstream, tmp_path: Path, logged: io.StringIO
) -> None:
    name = f"t{sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    sections = {
        "service": {"name": name},
        "state": {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path / "spool")},
        "answers": {"warm": True, "stale_if_error": 60},
        "deadlines": {"connect": 5.0, "first_token": 5.0, "stall": 5.0, "total": 30.0},
    }
    settings = settings_with(backend(upstream), **sections)
    async with connect(REGIONS[0], endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
        async with edge_over(upstream, tmp_path, "says", "says-and-dies", "dead", **sections) as edge:
            for model in ("says", "says", "says-and-dies", "dead"):
                await edge.chat(model=model, headers=BEARER, stream=model == "says-and-dies", **question())
            await asyncio.gather(*(edge.chat(model="says", headers=BEARER, seed=1, **question()) for _ in range(3)))
            await edge.settled()
            spooled = files_in(tmp_path)
        tables = {table: await items_of(client, f"{name}-{table.name}") for table in TABLES}
    found = {table.name: leaks(json.dumps(items)) for table, items in tables.items()}
    assert any(items for items in tables.values())
    assert {table: names for table, names in found.items() if names and table != "answers"} == {}
    keys = [item.get(field) for items in tables.values() for item in items for field in ("pk", "sk")]
    assert leaks(json.dumps(keys)) == []
    assert leaks(spooled + logged.getvalue()) == []


async def test_while_every_table_is_gone_the_spools_and_the_logs_hold_no_canary(
    upstream: Upstream, tmp_path: Path, logged: io.StringIO
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    state = {"kind": "dynamodb", "endpoint_url": nobody, "spool": str(tmp_path / "spool")}
    async with edge_over(upstream, tmp_path, "says", "dead", state=state) as edge:
        statuses = [(await edge.chat(model=name, headers=BEARER, **question())).status for name in ("says", "dead")]
        refused = await edge.chat(model="says", headers={"authorization": f"Bearer {JWT}"}, **question())
        spooled = files_in(tmp_path / "spool")
    assert statuses == [200, 503]
    assert refused.status in (401, 503)
    assert '"backend":"pool-0"' in spooled
    assert leaks(refused.body + spooled.encode() + files_in(tmp_path).encode() + logged.getvalue().encode()) == []
