"""The ledger on DynamoDB: partition = tenant, sort key = start time, request and attempt (see `ledger_sort_key`).

Each entry is a conditional put of its own. BatchWriteItem would need fewer calls, but it replaces what is there, and a
ledger whose entries can be rewritten is not one; a transaction with a marker would cost four times as much to refuse
only what the key refuses already.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import ConditionFailed, InvalidCall
from isochrone.stores.dynamodb.items import Done, Item, from_item, to_item
from isochrone.stores.dynamodb.rollups import ROLLUP
from isochrone.stores.limits import ledger_sort_key, moment_key

_AT_ONCE = 8


class _Page(Struct):
    Items: list[Item]
    LastEvaluatedKey: Item = field(default_factory=dict)


class DynamoLedgerStore:
    """LedgerStore on the table `table`. One tenant can append about 1,000 entries/s: the limit of one partition."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def append(self, entries: list[dict[str, Any]]) -> None:
        items = [_item_of(entry) for entry in entries]
        for start in range(0, len(items), _AT_ONCE):
            puts = [self._put(item) for item in items[start : start + _AT_ONCE]]
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
            for failure in filter(None, outcomes):
                raise failure

    async def recent(self, tenant: str, *, limit: int = 100) -> list[dict[str, Any]]:
        query = {
            "KeyConditionExpression": "pk = :tenant",
            "ExpressionAttributeValues": {":tenant": {"S": tenant}},
            "ScanIndexForward": False,
            "Limit": limit,
        }
        return [_entry_of(item) for item in await self._pages("Query", query, limit)]

    async def all(self, *, tenant: str | None = None, since: float | None = None) -> list[dict[str, Any]]:
        values = {":since": {"S": moment_key(since or 0.0)}}
        if tenant is None:
            values[":rollup"] = {"S": ROLLUP}
            entries = "sk >= :since AND NOT begins_with(pk, :rollup)"
            items = await self._pages("Scan", {"FilterExpression": entries, "ExpressionAttributeValues": values})
        else:
            values[":tenant"] = {"S": tenant}
            condition = "pk = :tenant AND sk >= :since"
            query = {"KeyConditionExpression": condition, "ExpressionAttributeValues": values}
            items = await self._pages("Query", query)
        return [_entry_of(item) for item in sorted(items, key=lambda item: (item["sk"]["S"], item["pk"]["S"]))]

    async def _put(self, item: Item) -> None:
        put = {"TableName": self._table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
        try:
            await self._client.call("PutItem", put, Done)
        except ConditionFailed:
            return
        except InvalidCall as error:
            raise ValueError(str(error)) from None

    async def _pages(self, operation: str, request: dict[str, Any], limit: int | None = None) -> list[Item]:
        """The items of all pages, or of as many as `limit` needs."""
        items: list[Item] = []
        position: dict[str, Any] = {}
        while True:
            page = await self._client.call(operation, {"TableName": self._table} | request | position, _Page)
            items += page.Items
            if not page.LastEvaluatedKey or (limit is not None and len(items) >= limit):
                return items[:limit]
            position = {"ExclusiveStartKey": page.LastEvaluatedKey}


def _item_of(entry: dict[str, Any]) -> Item:
    return to_item(entry) | {"sk": {"S": ledger_sort_key(entry)}, "pk": {"S": entry["tenant"]}}


def _entry_of(item: Item) -> dict[str, Any]:
    return {name: value for name, value in from_item(item).items() if name not in ("pk", "sk")}
