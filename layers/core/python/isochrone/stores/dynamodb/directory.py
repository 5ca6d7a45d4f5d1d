"""The directory on DynamoDB: a global table, so what one region writes is soon in all of them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.items import Done, Item, from_item, to_item
from isochrone.stores.limits import check_item


class _Page(Struct):
    Items: list[Item]
    LastEvaluatedKey: Item = field(default_factory=dict)


class DynamoDirectoryStore:
    """DirectoryStore on the table `table` of the client's region."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def items(self, partition: str, *, consistent: bool = False) -> dict[str, dict[str, Any]]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :partition",
            "ExpressionAttributeValues": {":partition": {"S": partition}},
            "ConsistentRead": consistent,
        }
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


def _names(partition: str, key: str) -> Item:
    return {"pk": {"S": partition}, "sk": {"S": key}}


def _data_of(item: Item) -> dict[str, Any]:
    return {name: value for name, value in from_item(item).items() if name not in ("pk", "sk")}
