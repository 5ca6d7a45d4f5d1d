"""Answers on DynamoDB: one item per fingerprint, read eventually consistent, because a miss is always right.

    <fingerprint>                  value, tenant, expires, fresh_until, stored_at [, fence] [, what similar ones find]
    <fingerprint>/<digest>/<n>     value, expires: a part of a value larger than an item; the head of such an answer has
                                   `parts` and `digest` in place of `value`

Parts are written before their head and have the digest of the whole in their key, so nobody ever puts parts of two
answers together; one that is missing makes a miss.

A put is one call, with a fence or without, and costs a write unit for each KB begun of the item, or of the one that it
replaces if that is larger; one that is fenced off costs those of the item that stands there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from math import ceil, inf, isfinite
from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import ConditionFailed
from isochrone.stores.dynamodb.items import ITEM_BYTES, Binary, Done, Item, Number, Text, item_bytes
from isochrone.stores.dynamodb.similar import Similar, attributes_of
from isochrone.stores.entries import Entry, Neighbour
from isochrone.stores.limits import ANSWER_BYTES, NUMBERING_SECONDS, check_size
from isochrone.stores.protocols import StoreUnavailable

# Leaves room in an item for the key of a part, the names and the expiry.
PART_BYTES = 400_000
_WANTED = {
    "ProjectionExpression": "#value, expires, parts, digest",
    "ExpressionAttributeNames": {"#value": "value"},
}
_NOT_FENCED_OFF = " OR ".join(
    (
        "attribute_not_exists(fence)",
        "fence <= :fence",
        "fresh_until <= :now",
        "expires <= :now",
        "stored_at <= :yesterday",
    )
)


class _AnswerItem(Struct):
    value: Binary | None = None
    expires: Number | None = None
    digest: Text | None = None
    parts: Number | None = None


class _Found(Struct):
    Item: _AnswerItem | None = None


class _Replaced(Struct):
    Attributes: Item = field(default_factory=dict)


class DynamoAnswerStore:
    """AnswerStore on the table `table`. Expiry is kept in whole seconds, as TTL wants it, and rounded down."""

    max_bytes = ANSWER_BYTES

    def __init__(self, client: DynamoClient, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._similar = Similar(client, table)

    async def get(self, fingerprint: str, *, now: float, consistent: bool = False) -> bytes | None:
        item = await self._read(fingerprint, consistent=consistent)
        if item is None or (item.expires and int(item.expires.N) <= now):
            return None
        if item.digest and item.parts:
            return await self._joined(fingerprint, item.digest.S, int(item.parts.N))
        return item.value.B if item.value else None

    async def put(
        self,
        fingerprint: str,
        value: bytes,
        *,
        tenant: str,
        expires: float,
        fresh_until: float = inf,
        fence: int | None = None,
        entry: Entry | None = None,
    ) -> bool:
        check_size("answer", len(value), self.max_bytes)
        item: Item = {"pk": {"S": fingerprint}, "tenant": {"S": tenant}, "stored_at": {"N": repr(self._clock())}}
        item |= _expiry(expires)
        if isfinite(fresh_until):
            item["fresh_until"] = {"N": repr(fresh_until)}
        if fence is not None:
            item["fence"] = {"N": str(fence)}
        if entry:
            item |= attributes_of(entry)
        whole = item | {"value": {"B": value}}
        if item_bytes(whole) <= ITEM_BYTES:
            return await self._put(whole, fence)
        item["digest"] = {"S": sha256(value).hexdigest()}
        item["parts"] = {"N": str(ceil(len(value) / PART_BYTES))}
        await self._put_parts(item, value, expires)
        return await self._put(item, fence)

    async def delete(self, fingerprint: str) -> None:
        deletion = self._key(fingerprint) | {"ReturnValues": "ALL_OLD"}
        old = (await self._client.call("DeleteItem", deletion, _Replaced)).Attributes
        await self._forget(_parts_of(old))

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        return await self._similar.search(scope, vector, limit=limit, now=now)

    async def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes = b"") -> bool:
        return await self._similar.learn(fingerprint, lessons, before=before, embedding=embedding)

    async def _read(self, name: str, *, consistent: bool) -> _AnswerItem | None:
        request = self._key(name) | _WANTED | {"ConsistentRead": consistent}
        return (await self._client.call("GetItem", request, _Found)).Item

    async def _joined(self, fingerprint: str, digest: str, count: int) -> bytes | None:
        """The value in parts. They are read consistently, since a head is seen earlier than what it needs otherwise."""
        parts = []
        for name in _part_names(fingerprint, digest, count):
            part = await self._read(name, consistent=True)
            if part is None or part.value is None:
                return None
            parts.append(part.value.B)
        value = b"".join(parts)
        return value if sha256(value).hexdigest() == digest else None

    async def _put(self, item: Item, fence: int | None) -> bool:
        """Write what readers start at. Parts that nothing names after that are deleted."""
        request: dict[str, Any] = {"TableName": self._table, "Item": item, "ReturnValues": "ALL_OLD"}
        if fence is not None:
            request |= self._unless_fenced_off(fence)
        try:
            old = (await self._client.call("PutItem", request, _Replaced)).Attributes
        except ConditionFailed:
            await self._forget(_parts_of(item))
            return False
        with suppress(StoreUnavailable):
            await self._forget([name for name in _parts_of(old) if name not in _parts_of(item)])
        return True

    def _unless_fenced_off(self, fence: int) -> dict[str, Any]:
        now = self._clock()
        values = {":fence": fence, ":now": now, ":yesterday": now - NUMBERING_SECONDS}
        return {
            "ConditionExpression": _NOT_FENCED_OFF,
            "ExpressionAttributeValues": {name: {"N": repr(value)} for name, value in values.items()},
        }

    async def _put_parts(self, head: Item, value: bytes, expires: float) -> None:
        for n, name in enumerate(_parts_of(head)):
            part = value[n * PART_BYTES : (n + 1) * PART_BYTES]
            item = {"pk": {"S": name}, "value": {"B": part}} | _expiry(expires)
            await self._client.call("PutItem", {"TableName": self._table, "Item": item}, Done)

    async def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            await self._client.call("DeleteItem", self._key(name), Done)

    def _key(self, name: str) -> dict[str, Any]:
        return {"TableName": self._table, "Key": {"pk": {"S": name}}}


def _expiry(expires: float) -> Item:
    """What is kept for ever has none."""
    return {"expires": {"N": str(int(expires))}} if isfinite(expires) else {}


def _parts_of(head: Item) -> list[str]:
    return _part_names(head["pk"]["S"], head["digest"]["S"], int(head["parts"]["N"])) if "digest" in head else []


def _part_names(fingerprint: str, digest: str, count: int) -> list[str]:
    return [f"{fingerprint}/{digest}/{n}" for n in range(count)]
