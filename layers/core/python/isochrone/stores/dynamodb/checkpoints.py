"""How far the chains of the audit log had come, on the ledger's table, in partitions of their own for each day.

The table keeps every change for 35 days and nothing in it is ever replaced by this program. Who wants to rewrite an
audit log must be able to write to two services, and leaves traces in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import ConditionFailed
from isochrone.stores.dynamodb.items import Done, Item
from isochrone.stores.dynamodb.rollups import ROLLUP
from isochrone.stores.entries import Checkpoint
from isochrone.stores.limits import moment_key

_DAY_MS = 86_400_000
# They outlive the entries that they speak of, so that a check near their end finds both.
_DAYS_MORE = 7


class _Page(Struct):
    Items: list[Item]
    LastEvaluatedKey: Item = field(default_factory=dict)


class DynamoCheckpoints:
    """Checkpoints on the table `table`, the ledger's, for entries that are kept for `days` days."""

    def __init__(self, client: DynamoClient, table: str, *, days: int) -> None:
        self._client = client
        self._table = table
        self._seconds = (days + _DAYS_MORE) * _DAY_MS // 1000

    async def note(self, checkpoint: Checkpoint) -> None:
        """Keep it; one that is there already stays. Raises StoreUnavailable."""
        item = {
            "pk": {"S": _partition(checkpoint.time)},
            "sk": {"S": f"{checkpoint.writer}#{checkpoint.seq:012}"},
            "hash": {"S": checkpoint.hash},
            "at": {"N": str(checkpoint.time)},
            "expires": {"N": str(ceil(checkpoint.time / 1000) + self._seconds)},
        }
        put = {"TableName": self._table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            await self._client.call("PutItem", put, Done)
        except ConditionFailed:
            return

    async def all(self, *, since: int, until: int) -> list[Checkpoint]:
        """Those noted between two moments (epoch milliseconds), by day and writer. Raises StoreUnavailable."""
        found = []
        for partition in _partitions(since, until):
            found += [_checkpoint(item) for item in await self._items(partition)]
        return [point for point in found if since <= point.time <= until]

    async def _items(self, partition: str) -> list[Item]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :partition",
            "ExpressionAttributeValues": {":partition": {"S": partition}},
            "ConsistentRead": True,
        }
        items: list[Item] = []
        while True:
            page = await self._client.call("Query", query, _Page)
            items += page.Items
            if not page.LastEvaluatedKey:
                return items
            query["ExclusiveStartKey"] = page.LastEvaluatedKey


def _partition(time_ms: int) -> str:
    return f"{ROLLUP}audit#{moment_key(time_ms / 1000)[:10]}"


def _partitions(since: int, until: int) -> Iterator[str]:
    for day in range(since // _DAY_MS, until // _DAY_MS + 1):
        yield _partition(day * _DAY_MS)


def _checkpoint(item: Item) -> Checkpoint:
    writer, _, seq = item["sk"]["S"].rpartition("#")
    return Checkpoint(writer, int(seq), item["hash"]["S"], int(item["at"]["N"]))
