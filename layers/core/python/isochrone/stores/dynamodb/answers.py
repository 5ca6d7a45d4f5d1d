"""Answers on DynamoDB: one item per fingerprint, read eventually consistent, because a miss is always right."""

from __future__ import annotations

from msgspec import Struct

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.items import Binary, Done, Number
from isochrone.stores.limits import VALUE_BYTES, check_size


class _AnswerItem(Struct):
    value: Binary
    expires: Number


class _Found(Struct):
    Item: _AnswerItem | None = None


class DynamoAnswerStore:
    """AnswerStore on the table `table`. Expiry is kept in whole seconds, as TTL wants it, and rounded down."""

    max_bytes = VALUE_BYTES

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def get(self, fingerprint: str, *, now: float) -> bytes | None:
        found = await self._client.call("GetItem", self._key(fingerprint), _Found)
        if found.Item is None or int(found.Item.expires.N) <= now:
            return None
        return found.Item.value.B

    async def put(self, fingerprint: str, value: bytes, *, tenant: str, expires: float) -> None:
        check_size("answer", len(value))
        item = {
            "pk": {"S": fingerprint},
            "value": {"B": value},
            "tenant": {"S": tenant},
            "expires": {"N": str(int(expires))},
        }
        await self._client.call("PutItem", {"TableName": self._table, "Item": item}, Done)

    async def delete(self, fingerprint: str) -> None:
        await self._client.call("DeleteItem", self._key(fingerprint), Done)

    def _key(self, fingerprint: str) -> dict[str, object]:
        return {"TableName": self._table, "Key": {"pk": {"S": fingerprint}}}
