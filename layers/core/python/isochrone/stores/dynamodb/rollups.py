"""Sums on the ledger's table, in partitions of their own: `rollup#...`, which is no tenant's name.

One ADD for each key and flush: one write unit. A partition takes 1,000 of them a second; who is throttled keeps its
amounts and adds them with its next ones, so the rate adapts itself and nothing is lost but the order.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import InvalidCall
from isochrone.stores.dynamodb.items import Done, Item
from isochrone.stores.limits import check_amounts

# No tenant has such a name: theirs begin with a letter or a digit and hold no `#`.
ROLLUP = "rollup#"
# Sums are attributes beside those of the item itself, so their names have a mark of their own.
_SUM = "n:"


class _Page(Struct):
    Items: list[Item]
    LastEvaluatedKey: Item = field(default_factory=dict)


class DynamoRollupStore:
    """RollupStore on the table `table`, the ledger's."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def add(self, partition: str, key: str, amounts: Mapping[str, float], *, expires: float) -> None:
        check_amounts(f"{partition} {key}", amounts)
        terms = ", ".join(f"#{i} :{i}" for i in range(len(amounts)))
        values = {f":{i}": {"N": repr(amount)} for i, amount in enumerate(amounts.values())}
        update = {
            "TableName": self._table,
            "Key": {"pk": {"S": ROLLUP + partition}, "sk": {"S": key}},
            "UpdateExpression": f"ADD {terms} SET expires = :expires",
            "ExpressionAttributeNames": {f"#{i}": _SUM + name for i, name in enumerate(amounts)},
            "ExpressionAttributeValues": values | {":expires": {"N": str(ceil(expires))}},
        }
        try:
            await self._client.call("UpdateItem", update, Done)
        except InvalidCall as error:
            raise ValueError(str(error)) from None

    async def sums(self, partition: str, *, now: float) -> dict[str, dict[str, float]]:
        query: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :partition",
            "FilterExpression": "expires > :now",
            "ExpressionAttributeValues": {":partition": {"S": ROLLUP + partition}, ":now": {"N": repr(now)}},
        }
        found: dict[str, dict[str, float]] = {}
        while True:
            page = await self._client.call("Query", query, _Page)
            found |= {item["sk"]["S"]: _sums_of(item) for item in page.Items}
            if not page.LastEvaluatedKey:
                return found
            query["ExclusiveStartKey"] = page.LastEvaluatedKey


def _sums_of(item: Item) -> dict[str, float]:
    return {name.removeprefix(_SUM): float(value["N"]) for name, value in item.items() if name.startswith(_SUM)}
