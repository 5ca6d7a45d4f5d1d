"""The audit log of an edge that is killed, and of one whose disk refuses it: all that was answered is in it."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from isochrone.audit.entry import AuditEntry
from isochrone.audit.log import REPLIES, AuditLog
from isochrone.audit.reading import entries_of, files_in, lines_of
from isochrone.audit.verification import Report, verify
from isochrone.durable.spool import Spool
from tests.audits import NOW, MemorySink
from tests.faults.harness import eventually
from tests.faults.test_ledger_survives import Edge, kill, serving
from tests.upstream import Upstream

# A process that records until it is killed, in small segments, with files that sometimes refuse it. It says of each
# request that it is over only when its entry is recorded: what it said must be found.
MORTAL = """
import asyncio, os, random, sys
from pathlib import Path
from isochrone.audit.files import FileSink
from isochrone.audit.log import REPLIES, AuditLog
from isochrone.durable import outbox
from isochrone.durable.spool import Spool
from isochrone.stores.protocols import StoreUnavailable
from tests.audits import NOW, entry

spool, folder, life = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
chance = random.Random(life)
outbox.MAX_BUFFERED = 40

class Refusing(FileSink):
    async def put(self, lines):
        if chance.random() < 0.1:
            raise StoreUnavailable("gone")
        await super().put(lines)

async def live():
    sink = Refusing(folder, edge="e", days=30, clock=lambda: NOW + life)
    notes = Spool(spool, REPLIES, segment_bytes=6000)
    log = AuditLog(sink, notes, edge="e", clock=lambda: NOW, new_id=lambda: f"w{life}")
    await log.adopt()
    going_out, number = [], life * 1000000
    while True:
        step = chance.random()
        number += 1
        if step < 0.3:
            log.begin(entry(number))
            going_out.append(number)
            print("begun", f"r{number}", flush=True)
        elif step < 0.5 and going_out:
            ended = going_out.pop(chance.randrange(len(going_out)))
            log.record(entry(ended))
            print("over", f"r{ended}", flush=True)
        elif step < 0.95:
            log.record(entry(number))
            print("over", f"r{number}", flush=True)
        else:
            await log.flush()

asyncio.run(live())
"""


def live_and_be_killed(spool: Path, folder: Path, life: int, lines: int) -> list[list[str]]:
    """What the process said before SIGKILL; it is killed some time after it said so many lines."""
    argv = [sys.executable, "-c", MORTAL, str(spool), str(folder), str(life)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


def checked(folder: Path) -> Report:
    return verify(lines_of(files_in([folder])))


def requests(folder: Path) -> list[AuditEntry]:
    entries = entries_of(lines_of(files_in([folder])))
    return [entry for entry in entries if isinstance(entry, AuditEntry)]


def test_fifteen_deaths_lose_no_request_and_leave_the_log_intact(tmp_path: Path) -> None:
    spool, folder = tmp_path / "spool" / "audit", tmp_path / "audit"
    folder.mkdir()
    said: list[list[str]] = []
    for life in range(15):
        said += live_and_be_killed(spool, folder, life, lines=40 + 53 * life)
    sink = MemorySink()
    survivor = AuditLog(sink, Spool(spool, REPLIES), edge="e", clock=lambda: NOW, new_id=lambda: "survivor")
    asyncio.run(_take_over(survivor))
    (folder / "9999-survivor.jsonl").write_bytes(b"\n".join(sink.lines))
    report = checked(folder)
    assert report.findings == []
    outcomes = {entry.request_id: entry.outcome for entry in requests(folder)}
    over = {request for word, request in said if word == "over"}
    begun = {request for word, request in said if word == "begun"}
    assert over | begun <= {*outcomes}
    assert [request for request in over if outcomes[request] == "lost"] == []
    assert len(over) > 3000


async def _take_over(log: AuditLog) -> None:
    await log.adopt()
    await log.close()


CONFIG = """
[service]
name = "{service}"

[state]
kind = "memory"
spool = "{folder}/spool"

[[region]]
name = "us-east-1"

[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{base_url}"
models = {{ m = "ok", endless = "endless" }}

[auth]
required = {required}

[audit]
to = "file"
folder = "{folder}/audit"
"""


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


def configured(folder: Path, upstream: Upstream, *, required: str = "false") -> Path:
    path = folder / "isochrone.toml"
    service = f"t{uuid4().hex[:12]}"
    path.write_text(CONFIG.format(service=service, folder=folder, base_url=upstream.base_url, required=required))
    return path


async def ask(edge: Edge, answered: list[str], *, stream: bool) -> None:
    """Ask until the edge is gone; `answered` gets the id of every reply that came to its end."""
    with suppress(aiohttp.ClientError, ConnectionError):
        while True:
            asked = {"model": "m", "messages": [{"role": "user", "content": uuid4().hex}], "stream": stream}
            async with edge._session.post(edge.url + "/v1/chat/completions", json=asked) as response:
                body = await response.read()
                if response.status == 200 and (not stream or b"[DONE]" in body):
                    answered.append(response.headers["x-request-id"])


async def test_every_answered_request_of_an_edge_that_is_killed_again_and_again_is_in_the_log(
    tmp_path: Path, upstream: Upstream
) -> None:
    config, answered, chance = configured(tmp_path, upstream), list[str](), random.Random(7)
    for _ in range(3):
        async with serving(config) as edge:
            asking = [asyncio.create_task(ask(edge, answered, stream=number % 2 > 0)) for number in range(6)]
            many = len(answered) + chance.randrange(20, 80)

            async def enough(many: int = many) -> bool:
                return len(answered) >= many

            await eventually(enough, within=30)
            await kill(edge)
            await asyncio.gather(*asking)
    async with serving(config):

        async def delivered() -> bool:
            return {*answered} <= {entry.request_id for entry in requests(tmp_path / "audit")}

        await eventually(delivered, within=30)
    report = await asyncio.to_thread(checked, tmp_path / "audit")
    assert report.findings == []
    told = {entry.request_id: entry for entry in requests(tmp_path / "audit")}
    assert {told[request].decision for request in answered} == {"allowed"}


async def test_stream_that_was_going_out_when_the_edge_was_killed_is_told_as_lost(
    tmp_path: Path, upstream: Upstream
) -> None:
    config = configured(tmp_path, upstream)
    async with serving(config) as edge:
        await edge.chat("endless")
        await kill(edge)
    async with serving(config):

        async def delivered() -> bool:
            return (tmp_path / "audit").is_dir() and len(requests(tmp_path / "audit")) == 1

        await eventually(delivered, within=30)
    (entry,) = requests(tmp_path / "audit")
    assert (entry.outcome, entry.status, entry.model, entry.backend) == ("lost", 200, "endless", "pool")


async def test_denied_attempts_are_recorded_and_no_key_is(tmp_path: Path, upstream: Upstream) -> None:
    key = "sk-canary-4711-0815"
    async with serving(configured(tmp_path, upstream, required="true")) as edge:
        for header in ({"authorization": f"Bearer {key}"}, {}):
            async with edge._session.get(edge.url + "/v1/models", headers=header) as response:
                assert response.status == 401
        async with edge._session.get(edge.url + "/v1/nothing") as response:
            assert response.status == 404
    found = requests(tmp_path / "audit")
    assert [(entry.decision, entry.status, entry.path) for entry in found] == [
        ("denied", 401, "/v1/models"),
        ("denied", 401, "/v1/models"),
        ("refused", 404, "/v1/nothing"),
    ]
    assert {entry.address for entry in found} == {"127.0.0.1"}
    assert key.encode() not in msgspec.json.encode(found)
    assert checked(tmp_path / "audit").is_intact


async def test_entries_wait_while_their_folder_is_not_there_and_requests_do_not(
    tmp_path: Path, upstream: Upstream
) -> None:
    config, folder = configured(tmp_path, upstream), tmp_path / "audit"
    async with serving(config) as edge:
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("a file stands in the way")
        for _ in range(3):
            await edge.chat()
        folder.unlink()

        async def delivered() -> bool:
            return folder.is_dir() and len(requests(folder)) == 3

        await eventually(delivered, within=30)
    assert checked(folder).is_intact


async def test_caller_who_leaves_before_the_reply_is_recorded(tmp_path: Path, upstream: Upstream) -> None:
    config = configured(tmp_path, upstream)
    async with serving(config) as edge:
        asked = {"model": "endless", "messages": [{"role": "user", "content": "x"}]}
        with pytest.raises(TimeoutError):
            await edge._session.post(
                edge.url + "/v1/chat/completions", json=asked, timeout=aiohttp.ClientTimeout(total=1)
            )

        async def recorded() -> bool:
            return (tmp_path / "audit").is_dir() and [e.outcome for e in requests(tmp_path / "audit")] == ["left"]

        await eventually(recorded, within=30)
