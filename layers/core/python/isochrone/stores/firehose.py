"""Lines into an Amazon Data Firehose stream, which gathers them and writes them to S3.

Several lines travel in one record: Firehose bills every record as if it had a multiple of 5 KB. Delivery is at least
once, and nothing says in which order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient, Service
from isochrone.stores.protocols import StoreUnavailable

FIREHOSE = Service("Firehose", "firehose", "Firehose_20150804", "application/x-amz-json-1.1")

RECORD_BYTES = 5 * 1024
# What one call takes.
_CALL_RECORDS = 500
_CALL_BYTES = 4 * 1024 * 1024
_TRIES = 3
_PAUSE_SECONDS = 0.1


class _Fate(Struct):
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


class _Reply(Struct):
    FailedPutCount: int = 0
    RequestResponses: list[_Fate] = field(default_factory=list)


class FirehoseSink:
    """Puts lines into the stream `stream`. `client` is one of FIREHOSE, and closed with this."""

    to = "firehose"

    def __init__(self, client: DynamoClient, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def put(self, lines: Sequence[bytes]) -> None:
        """Hand over all lines. Raises StoreUnavailable; some may have been taken then."""
        for records in calls(list(packed(lines))):
            await self._put(records)

    async def _put(self, records: list[bytes]) -> None:
        why = ""
        for number in range(_TRIES):
            await asyncio.sleep(number * _PAUSE_SECONDS)
            request = {"DeliveryStreamName": self._stream, "Records": [{"Data": record} for record in records]}
            reply = await self._client.call("PutRecordBatch", request, _Reply)
            if not reply.FailedPutCount:
                return
            refused = [i for i, fate in enumerate(reply.RequestResponses) if fate.ErrorCode]
            why = str(reply.RequestResponses[refused[0]].ErrorCode) if refused else "it does not say which"
            records = [records[i] for i in refused] or records
        raise StoreUnavailable(f"Firehose PutRecordBatch: {len(records)} records were not taken: {why}")

    async def close(self) -> None:
        """Close the client."""
        await self._client.aclose()


def packed(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Records of whole lines with their ends: as many in one as make one unit of the bill, at least one."""
    record = b""
    for line in lines:
        if record and len(record) + len(line) + 1 > RECORD_BYTES:
            yield record
            record = b""
        record += line + b"\n"
    if record:
        yield record


def calls(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Records as they fit into one call each."""
    call: list[bytes] = []
    size = 0
    for record in records:
        if call and (len(call) == _CALL_RECORDS or size + len(record) > _CALL_BYTES):
            yield call
            call, size = [], 0
        call.append(record)
        size += len(record)
    if call:
        yield call
