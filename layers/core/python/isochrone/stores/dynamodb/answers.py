"""Answers on DynamoDB: one item per fingerprint, read eventually consistent, because a miss is always right."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.items import Binary, Done, Item, Number
from isochrone.stores.dynamodb.similar import Similar, attributes_of
from isochrone.stores.entries import Entry, Neighbour
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
        self._similar = Similar(client, table)

    async def get(self, fingerprint: str, *, now: float) -> bytes | None:
        found = await self._client.call("GetItem", self._key(fingerprint), _Found)
        if found.Item is None or int(found.Item.expires.N) <= now:
            return None
        return found.Item.value.B

    async def put(
        self, fingerprint: str, value: bytes, *, tenant: str, expires: float, entry: Entry | None = None
    ) -> None:
        check_size("answer", len(value))
        item: Item = {
            "pk": {"S": fingerprint},
            "value": {"B": value},
            "tenant": {"S": tenant},
            "expires": {"N": str(int(expires))},
        }
        if entry:
            item |= attributes_of(entry)
        await self._client.call("PutItem", {"TableName": self._table, "Item": item}, Done)

    async def delete(self, fingerprint: str) -> None:
        await self._client.call("DeleteItem", self._key(fingerprint), Done)

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        return await self._similar.search(scope, vector, limit=limit, now=now)

    async def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes = b"") -> bool:
        return await self._similar.learn(fingerprint, lessons, before=before, embedding=embedding)

    def _key(self, fingerprint: str) -> dict[str, object]:
        return {"TableName": self._table, "Key": {"pk": {"S": fingerprint}}}
