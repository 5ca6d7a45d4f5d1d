"""The directory on DynamoDB: a global table, so what one region writes is soon in all of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct, field

from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.items import Done, Item, from_item, to_item
from isochrone.stores.limits import check_item
from isochrone.stores.protocols import DirectoryStore, StoreUnavailable

log = logging.getLogger("isochrone.stores")


class _Page(Struct):
    Items: list[Item]
    LastEvaluatedKey: Item = field(default_factory=dict)


class DynamoDirectoryStore:
    """DirectoryStore on the table `table` of the client's region."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :partition",
            "ExpressionAttributeValues": {":partition": {"S": partition}},
            "ConsistentRead": consistent,
        }
        if prefix:
            query["KeyConditionExpression"] += " AND begins_with(sk, :prefix)"
            query["ExpressionAttributeValues"][":prefix"] = {"S": prefix}
        found: dict[str, dict[str, Any]] = {}
        while True:
            page = await self._client.call("Query", query, _Page)
            found |= {item["sk"]["S"]: _data_of(item) for item in page.Items}
            if not page.LastEvaluatedKey:
                return found
            query["ExclusiveStartKey"] = page.LastEvaluatedKey

    async def put(self, partition: str, key: str, data: dict[str, Any]) -> None:
        check_item(partition, key, data)
        item = to_item(data) | _names(partition, key)
        await self._client.call("PutItem", {"TableName": self._table, "Item": item}, Done)

    async def delete(self, partition: str, key: str) -> None:
        await self._client.call("DeleteItem", {"TableName": self._table, "Key": _names(partition, key)}, Done)


class EmulatedReplicas:
    """What a global table does by itself, where an emulator keeps one for each region: writes go to all of them.

    Only the own region's counts: another one that is gone, or has no tables yet, is left out.
    """

    def __init__(self, own: DirectoryStore, others: Sequence[DirectoryStore]) -> None:
        self._own = own
        self._others = others

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        return await self._own.items(partition, prefix=prefix, consistent=consistent)

    async def put(self, partition: str, key: str, data: dict[str, Any]) -> None:
        await self._own.put(partition, key, data)
        await self._at_the_others(lambda other: other.put(partition, key, data))

    async def delete(self, partition: str, key: str) -> None:
        await self._own.delete(partition, key)
        await self._at_the_others(lambda other: other.delete(partition, key))

    async def _at_the_others(self, write: Callable[[DirectoryStore], Awaitable[None]]) -> None:
        for other in self._others:
            try:
                await write(other)
            except StoreUnavailable as error:
                log.info("emulated directory: another region has not heard of a write: %s", error)


def open_directory(client_of: Callable[[str], DynamoClient], settings: Settings, region: str) -> DirectoryStore:
    """The directory as the edges of `region` see it; `client_of` gives the client of a region."""
    table = table_name(settings, "directory")
    own = DynamoDirectoryStore(client_of(region), table)
    if not settings.state.endpoint_url:
        return own
    elsewhere = [known.name for known in settings.region if known.name != region]
    return EmulatedReplicas(own, [DynamoDirectoryStore(client_of(name), table) for name in elsewhere])


def _names(partition: str, key: str) -> Item:
    return {"pk": {"S": partition}, "sk": {"S": key}}


def _data_of(item: Item) -> dict[str, Any]:
    return {name: value for name, value in from_item(item).items() if name not in ("pk", "sk")}
