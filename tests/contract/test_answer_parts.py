"""Answers larger than an item on DynamoDB: never half of one, never two mixed, and nothing left behind."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from random import randbytes
from typing import Any

import pytest

from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.answers import PART_BYTES, DynamoAnswerStore
from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.items import ITEM_BYTES, Done, item_bytes
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.entries import DIMENSIONS, Entry
from isochrone.stores.protocols import StoreUnavailable

FINGERPRINT = "ab" * 32
NOW = 1_800_000_000.0
LARGE = randbytes(2 * PART_BYTES + 7)


class Shelf:
    """The store with its table, which tests look into and damage."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self.client = client
        self.table = table
        self.store = DynamoAnswerStore(client, table, clock=lambda: NOW)

    async def put(self, value: bytes, **more: Any) -> bool:
        options = {"tenant": "t", "expires": NOW + 60, "fresh_until": NOW + 60, **more}
        return await self.store.put(FINGERPRINT, value, **options)

    async def get(self) -> bytes | None:
        return await self.store.get(FINGERPRINT, now=NOW)

    async def items(self) -> dict[str, dict[str, Any]]:
        """All items of the table as they lie there, by key; bytes as DynamoDB tells them."""
        found = await self.client.call("Scan", {"TableName": self.table, "ConsistentRead": True}, dict[str, Any])
        return {item["pk"]["S"]: item for item in found["Items"]}

    async def overwrite(self, name: str, value: bytes) -> None:
        item = {"pk": {"S": name}, "value": {"B": value}}
        await self.client.call("PutItem", {"TableName": self.table, "Item": item}, Done)


@pytest.fixture
async def shelf(client: DynamoClient, settings: Settings) -> AsyncIterator[Shelf]:
    await create_tables(client, settings, lambda line: None)
    yield Shelf(client, table_name(settings, "answers"))


async def test_parts_expire_with_their_head(shelf: Shelf) -> None:
    await shelf.put(LARGE)
    assert [item["expires"]["N"] for item in (await shelf.items()).values()] == [str(int(NOW + 60))] * 4


async def test_every_item_is_within_the_limit_of_dynamodb(shelf: Shelf) -> None:
    await shelf.put(LARGE, tenant="t" * 128)
    assert max(map(size_told, (await shelf.items()).values())) <= ITEM_BYTES


def size_told(item: dict[str, Any]) -> int:
    """DynamoDB tells bytes in base64, and counts them as they are."""
    return item_bytes({name: {"B": b64decode(one["B"])} if "B" in one else one for name, one in item.items()})


@pytest.mark.parametrize(("more", "items"), [(0, 1), (1, 3)])
@pytest.mark.parametrize("similar", [False, True], ids=["plain", "with an entry"])
async def test_answer_is_split_from_the_first_byte_that_does_not_fit_into_an_item(
    shelf: Shelf, more: int, items: int, similar: bool
) -> None:
    entry = Entry("scope", "How far?", [0.0625] * DIMENSIONS, b"e" * 384) if similar else None
    await shelf.put(b"", fence=3, entry=entry)
    (empty,) = (await shelf.items()).values()
    value = randbytes(ITEM_BYTES - size_told(empty) + more)
    await shelf.put(value, fence=3, entry=entry)
    assert len(await shelf.items()) == items
    assert await shelf.get() == value


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_answer_of_which_a_part_is_missing_is_a_miss(shelf: Shelf, place: int) -> None:
    await shelf.put(LARGE)
    parts = sorted(name for name in await shelf.items() if name != FINGERPRINT)
    await shelf.client.call("DeleteItem", {"TableName": shelf.table, "Key": {"pk": {"S": parts[place]}}}, Done)
    assert await shelf.get() is None


async def test_answer_of_which_a_part_is_damaged_is_a_miss(shelf: Shelf) -> None:
    await shelf.put(LARGE)
    await shelf.overwrite(next(name for name in await shelf.items() if name != FINGERPRINT), b"another")
    assert await shelf.get() is None


async def test_parts_without_a_head_are_a_miss(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between the two."""
    call = shelf.client.call

    async def die_at_the_head(operation: str, request: Any, reply: Any) -> Any:
        if "parts" in request.get("Item", {}):
            raise StoreUnavailable("killed")
        return await call(operation, request, reply)

    monkeypatch.setattr(shelf.client, "call", die_at_the_head)
    with pytest.raises(StoreUnavailable):
        await shelf.put(LARGE)
    assert len(await shelf.items()) == 3
    assert await shelf.get() is None


async def test_deleting_an_answer_deletes_its_parts(shelf: Shelf) -> None:
    await shelf.put(LARGE)
    await shelf.store.delete(FINGERPRINT)
    assert await shelf.items() == {}


@pytest.mark.parametrize(("size", "items"), [(5, 1), (PART_BYTES + 20_000, 3)])
async def test_newer_answer_leaves_nothing_of_the_older(shelf: Shelf, size: int, items: int) -> None:
    newer = randbytes(size)
    await shelf.put(LARGE)
    await shelf.put(newer)
    assert len(await shelf.items()) == items
    assert await shelf.get() == newer


async def test_same_answer_put_again_stays_whole(shelf: Shelf) -> None:
    await shelf.put(LARGE)
    await shelf.put(LARGE)
    assert await shelf.get() == LARGE


async def test_large_answer_that_is_fenced_off_leaves_nothing_behind(shelf: Shelf) -> None:
    assert await shelf.put(b"newer", fence=2)
    assert not await shelf.put(LARGE, fence=1)
    assert list(await shelf.items()) == [FINGERPRINT]
    assert await shelf.get() == b"newer"


async def test_reading_an_answer_of_one_item_is_one_call(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.put(b"small")
    call, calls = shelf.client.call, []

    async def watch(operation: str, request: Any, reply: Any) -> Any:
        calls.append((operation, request["ConsistentRead"]))
        return await call(operation, request, reply)

    monkeypatch.setattr(shelf.client, "call", watch)
    await shelf.get()
    assert calls == [("GetItem", False)]
