"""The audit log's stores on the emulator: what an edge hands to Firehose lies in S3, and is found intact there."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from isochrone.audit.chain import Chain
from isochrone.audit.log import REPLIES, AuditLog
from isochrone.audit.reading import files_in, lines_of
from isochrone.audit.verification import verify
from isochrone.durable.spool import Spool
from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.checkpoints import DynamoCheckpoints
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.entries import Checkpoint
from isochrone.stores.firehose import FIREHOSE, FirehoseSink, calls, packed
from isochrone.stores.protocols import StoreUnavailable
from tests.audits import NOW, entry, written
from tests.contract.conftest import PATIENT, Endpoint

DAY_MS = 86_400_000
AT = int(NOW * 1000)


@pytest.fixture
async def checkpoints(client: DynamoClient, settings: Settings) -> DynamoCheckpoints:
    await create_tables(client, settings, lambda line: None)
    return DynamoCheckpoints(client, table_name(settings, "ledger"), days=30)


def point(writer: str, seq: int, *, hash_: str = "a" * 64, time: int = AT) -> Checkpoint:
    return Checkpoint(writer, seq, hash_, time)


async def test_checkpoints_come_back_by_day_and_writer(checkpoints: DynamoCheckpoints) -> None:
    points = [point("w1", 3), point("w1", 20), point("w2", 1), point("w1", 30, time=AT + DAY_MS)]
    for one in reversed(points):
        await checkpoints.note(one)
    assert await checkpoints.all(since=AT - DAY_MS, until=AT + DAY_MS) == points
    assert await checkpoints.all(since=AT, until=AT) == points[:3]


async def test_a_checkpoint_is_never_replaced(checkpoints: DynamoCheckpoints) -> None:
    await checkpoints.note(point("w1", 3))
    await checkpoints.note(point("w1", 3, hash_="b" * 64))
    assert await checkpoints.all(since=AT, until=AT) == [point("w1", 3)]


async def test_checkpoints_are_never_among_the_entries_of_the_ledger(
    checkpoints: DynamoCheckpoints, client: DynamoClient, settings: Settings
) -> None:
    await checkpoints.note(point("w1", 3))
    assert await DynamoLedgerStore(client, table_name(settings, "ledger")).all() == []


class Cloud:
    """A delivery stream of the emulator, and the bucket that it writes to."""

    def __init__(self, url: str, client: DynamoClient, stream: str) -> None:
        self.url, self.client, self.stream = url, client, stream

    async def create(self, session: aiohttp.ClientSession) -> None:
        async with session.put(f"{self.url}/{self.stream}") as reply:
            assert reply.status == 200
        target = {
            "RoleARN": "arn:aws:iam::000000000000:role/r",
            "BucketARN": f"arn:aws:s3:::{self.stream}",
            "Prefix": "requests/day=!{timestamp:yyyy-MM-dd}/hour=!{timestamp:HH}/",
            "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
            "CompressionFormat": "GZIP",
        }
        request = {"DeliveryStreamName": self.stream, "ExtendedS3DestinationConfiguration": target}
        await self.client.call("CreateDeliveryStream", request, dict[str, Any])

    async def fetch(self, session: aiohttp.ClientSession, folder: Path) -> None:
        """What `aws s3 sync` would bring."""
        async with session.get(f"{self.url}/{self.stream}?list-type=2") as reply:
            listed = await reply.text()
        keys = [part.split("</Key>")[0] for part in listed.split("<Key>")[1:]]
        for number, key in enumerate(keys):
            async with session.get(f"{self.url}/{self.stream}/{key}") as reply:
                (folder / f"{number:04}-{key.rpartition('/')[2]}.gz").write_bytes(await reply.read())


@pytest.fixture
async def cloud(ministack: str, settings: Settings) -> AsyncIterator[Cloud]:
    async with connect("eu-west-1", service=FIREHOSE, endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        yield Cloud(ministack, client, f"{settings.service.name}-audit")


async def test_what_an_edge_records_lies_in_the_bucket_and_is_intact(
    cloud: Cloud, checkpoints: DynamoCheckpoints, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        await cloud.create(session)
        log = AuditLog(
            FirehoseSink(cloud.client, cloud.stream),
            Spool(tmp_path / "spool" / "audit", REPLIES),
            edge="eu-west-1",
            clock=lambda: NOW,
            new_id=lambda: "w1",
            checkpoints=checkpoints,
        )
        for number in range(40):
            log.record(entry(number))
        await log.close()
        fetched = tmp_path / "fetched"
        fetched.mkdir()
        await cloud.fetch(session, fetched)
    known = await checkpoints.all(since=AT, until=AT)
    report = verify(lines_of(files_in([fetched])), known)
    assert (report.findings, report.entries, report.writers, report.open_ended) == ([], 41, 1, 0)
    assert len(known) == 1


@pytest.fixture
async def sink_at(endpoint: Endpoint) -> AsyncIterator[Callable[[], FirehoseSink]]:
    client = connect(
        "eu-west-1", service=FIREHOSE, endpoint_url=endpoint.url, timeouts=Timeouts(connect=1, total=2), environ={}
    )
    yield lambda: FirehoseSink(client, "iso-audit")
    await client.aclose()


def reply(*codes: str | None) -> str:
    fates = [{"ErrorCode": code, "ErrorMessage": "later"} if code else {"RecordId": "1"} for code in codes]
    return json.dumps({"FailedPutCount": sum(map(bool, codes)), "RequestResponses": fates})


def sent(endpoint: Endpoint) -> list[list[str]]:
    return [[record["Data"] for record in json.loads(body)["Records"]] for body in endpoint.bodies]


async def test_only_records_that_were_not_taken_are_put_again(
    endpoint: Endpoint, sink_at: Callable[[], FirehoseSink]
) -> None:
    endpoint.script = [
        Endpoint.replying(200, reply(None, "ServiceUnavailableException", None)),
        Endpoint.replying(200, reply(None)),
    ]
    await sink_at().put([b"x" * 5000, b"y" * 5000, b"z" * 5000])
    first, second = sent(endpoint)
    assert (len(first), second) == (3, [first[1]])


async def test_a_stream_that_keeps_refusing_is_unavailable(
    endpoint: Endpoint, sink_at: Callable[[], FirehoseSink]
) -> None:
    endpoint.script = [Endpoint.replying(200, reply("ServiceUnavailableException"))]
    with pytest.raises(StoreUnavailable, match="1 records were not taken: ServiceUnavailableException"):
        await sink_at().put([b"x"])
    assert len(endpoint.bodies) == 3


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "InvalidArgumentException"])
async def test_a_stream_that_is_not_there_is_unavailable_and_loses_nothing(
    endpoint: Endpoint, sink_at: Callable[[], FirehoseSink], tmp_path: Path, code: str
) -> None:
    endpoint.script = [Endpoint.fault(code)]
    log = AuditLog(
        sink_at(),
        Spool(tmp_path / "spool", REPLIES),
        edge="eu-west-1",
        clock=lambda: NOW,
        new_id=lambda: "w1",
    )
    log.record(entry(1))
    await log.flush()
    assert (len(log), log.lost) == (2, 0)


def test_lines_travel_together_up_to_what_is_billed_as_one_and_never_more_than_a_call_takes() -> None:
    lines = written(3000)
    records = list(packed(lines))
    assert b"".join(records) == b"".join(line + b"\n" for line in lines)
    assert max(map(len, records)) <= 5 * 1024
    made = list(calls(records))
    assert [record for call in made for record in call] == records
    assert all(len(call) <= 500 for call in made)
    assert list(packed([b"x" * 9000])) == [b"x" * 9000 + b"\n"]


def test_objects_are_read_packed_or_not_and_without_line_ends_between_entries(tmp_path: Path) -> None:
    lines = written(4)
    (tmp_path / "1.gz").write_bytes(gzip.compress(b"\n".join(lines[:2]) + b"\n"))
    (tmp_path / "2.jsonl").write_bytes(b"".join(lines[2:]))
    (tmp_path / "notes.txt").write_bytes(b"not a log")
    report = verify(lines_of(files_in([tmp_path])))
    assert (report.findings, report.entries) == ([], 5)


def test_two_chains_in_one_line_are_told_apart_whatever_a_question_says(tmp_path: Path) -> None:
    chain = Chain("w1")
    tricky = '"}{"writer":"w1","seq":7} \\"}{\\" \n \u2028'
    lines = [written(0)[0], chain.link(entry(1, question=tricky))]
    (tmp_path / "log.jsonl").write_bytes(b"".join([lines[0], lines[1]]))
    assert [line.raw for line in lines_of(files_in([tmp_path]))] == lines
