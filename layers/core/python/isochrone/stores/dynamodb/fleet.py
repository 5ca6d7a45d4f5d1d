"""Fleet documents on DynamoDB, compare-and-set in one conditional update, and counters that add up there.

    write v0->1        write v1->2               deadline                        TTL deletes (late)
    |------------------|-------------------------|-------------------------------|
      version 1          version 2                 reads as absent, version 0      gone
      write(version=0)   write(version=1)          write(version=0) takes over:
      fails              fails                     version 3, so the old holder's write(version=2) fails

The deadline that is checked and the TTL that deletes are two attributes a day apart: if numbering began at 1 again at
once, a holder that was frozen past its deadline (Lambda does that) could take the next holder's version for its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from math import ceil
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Struct

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import ConditionFailed
from isochrone.stores.dynamodb.items import Done, Number, Text
from isochrone.stores.limits import NUMBERING_SECONDS, check_amounts, encode_document
from isochrone.stores.protocols import StoreUnavailable, Taken

_UPDATE = (
    "SET document = :document, deadline = :deadline, expires = :expires, writer = :writer, "
    "version = if_not_exists(version, :zero) + :one"
)
_ABSENT = "attribute_not_exists(pk) OR deadline <= :now"
_UNCHANGED = "version = :version AND deadline > :now"
# Counters are attributes beside those of the item itself, so their names have a mark of their own.
_COUNTER = "n:"


class _FleetItem(Struct):
    document: Text
    version: Number
    deadline: Number


class _Found(Struct):
    Item: _FleetItem | None = None


class _Version(Struct):
    version: Number


class _Written(Struct):
    Attributes: _Version


class _Sums(Struct):
    Attributes: dict[str, dict[str, Any]]


class DynamoFleetStore:
    """FleetStore on the table `table`. Documents are JSON text, at most 399 KB."""

    def __init__(self, client: DynamoClient, table: str, *, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    async def read(self, name: str, *, now: float) -> tuple[dict[str, Any] | None, int]:
        found = (await self._client.call("GetItem", self._key(name) | {"ConsistentRead": True}, _Found)).Item
        if found is None or float(found.deadline.N) <= now:
            return None, 0
        return _document_in(name, found.document.S), int(found.version.N)

    async def write(self, name: str, document: dict[str, Any], *, version: int, expires: float) -> int:
        writer = uuid4().hex
        values = {
            ":document": {"S": encode_document(name, document).decode()},
            ":deadline": {"N": repr(expires)},
            ":expires": {"N": str(int(expires) + NUMBERING_SECONDS)},
            ":writer": {"S": writer},
            ":zero": {"N": "0"},
            ":one": {"N": "1"},
            ":now": {"N": repr(self._clock())},
        }
        if version:
            values[":version"] = {"N": str(version)}
        update = self._key(name) | {
            "UpdateExpression": _UPDATE,
            "ConditionExpression": _UNCHANGED if version else _ABSENT,
            "ExpressionAttributeValues": values,
            "ReturnValues": "UPDATED_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        try:
            written = await self._client.call("UpdateItem", update, _Written)
        except ConditionFailed as failed:
            return _version_if_ours(failed.item, writer)
        return int(written.Attributes.version.N)

    async def add(self, name: str, amounts: Mapping[str, float], *, expires: float) -> dict[str, float]:
        return (await self.take(name, amounts, most={}, expires=expires)).sums

    async def take(
        self,
        name: str,
        amounts: Mapping[str, float],
        *,
        most: Mapping[str, float],
        expires: float,
        drop: Collection[str] = (),
    ) -> Taken:
        check_amounts(name, amounts)
        update = _Addition(amounts, most, drop, expires).as_update(self._clock())
        is_gift = any(amount < 0 for amount in amounts.values())
        for _ in range(2):
            try:
                sums = await self._client.call("UpdateItem", self._key(name, "counters") | update, _Sums, once=is_gift)
                return Taken(True, _counters_in(name, sums.Attributes))
            except ConditionFailed as failed:
                counters = _counters_in(name, failed.item)
                if _is_alive(failed.item, self._clock()):
                    return Taken(False, counters)
                await self._forget_counters(name, failed.item)
        raise StoreUnavailable(f"fleet counters {name!r}: they end while they are begun anew")

    @property
    def offset(self) -> float:
        return self._client.offset

    async def _forget_counters(self, name: str, old: dict[str, Any]) -> None:
        """DynamoDB deletes late: take off sums whose time is over, unless somebody else has done so meanwhile."""
        fields = [field for field in old if field.startswith(_COUNTER)]
        removal = self._key(name, "counters") | {
            "UpdateExpression": f"REMOVE deadline, {', '.join(f'#{i}' for i in range(len(fields)))}",
            "ConditionExpression": "deadline = :old",
            "ExpressionAttributeNames": {f"#{i}": field for i, field in enumerate(fields)},
            "ExpressionAttributeValues": {":old": old["deadline"]},
        }
        with suppress(ConditionFailed):
            await self._client.call("UpdateItem", removal, Done)

    def _key(self, name: str, kind: str = "document") -> dict[str, Any]:
        return {"TableName": self._table, "Key": {"pk": {"S": name}, "sk": {"S": kind}}}


class _Addition(NamedTuple):
    """What is added to counters, under which bounds, and what is dropped with it."""

    amounts: Mapping[str, float]
    most: Mapping[str, float]
    drop: Collection[str]
    expires: float

    def as_update(self, now: float) -> dict[str, Any]:
        """The update of an item that is alive or not there."""
        names = {name: f"#{i}" for i, name in enumerate({**self.amounts, **self.most, **dict.fromkeys(self.drop)})}
        added = ", ".join(f"{names[name]} :{names[name][1:]}" for name in self.amounts)
        dropped = f" REMOVE {', '.join(names[name] for name in self.drop)}" if self.drop else ""
        bounds = {name: most - self.amounts.get(name, 0.0) for name, most in self.most.items()}
        holds = [_within(names[name], bound) for name, bound in bounds.items()]
        numbers = {names[name][1:]: amount for name, amount in self.amounts.items()}
        numbers |= {f"most{names[name][1:]}": bound for name, bound in bounds.items()}
        numbers |= {"deadline": self.expires, "expires": ceil(self.expires), "now": now}
        return {
            "UpdateExpression": f"ADD {added} SET deadline = :deadline, expires = :expires{dropped}",
            "ConditionExpression": " AND ".join(["(attribute_not_exists(deadline) OR deadline > :now)", *holds]),
            "ExpressionAttributeNames": {mark: _COUNTER + name for name, mark in names.items()},
            "ExpressionAttributeValues": {f":{name}": {"N": repr(number)} for name, number in numbers.items()},
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }


def _document_in(name: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"fleet document {name!r} is none that was written here: {error}") from None


def _within(mark: str, bound: float) -> str:
    """A counter that is not there stands at zero."""
    stored = f"{mark} <= :most{mark[1:]}"
    return f"(attribute_not_exists({mark}) OR {stored})" if bound >= 0 else stored


def _is_alive(item: dict[str, Any], now: float) -> bool:
    return "deadline" not in item or float(item["deadline"]["N"]) > now


def _counters_in(name: str, item: dict[str, Any]) -> dict[str, float]:
    if any("N" not in item[field] for field in item if field.startswith(_COUNTER) or field == "deadline"):
        raise StoreUnavailable(f"fleet counters {name!r}: not all of them are numbers")
    return {field.removeprefix(_COUNTER): float(item[field]["N"]) for field in item if field.startswith(_COUNTER)}


def _version_if_ours(item: dict[str, Any], writer: str) -> int:
    """When the reply to a write got lost, its retry meets its own work: that is a success."""
    ours = item.get("writer") == {"S": writer}
    return int(item["version"]["N"]) if ours else 0
