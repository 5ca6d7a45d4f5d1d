"""Creates the tables of `isochrone.stores.tables` on an emulator; in AWS the CDK app does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import StoreRefused
from isochrone.stores.dynamodb.items import Done
from isochrone.stores.protocols import StoreUnavailable
from isochrone.stores.tables import TABLES, Table

_ACTIVE_WITHIN_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.25


class _TableStatus(Struct):
    TableStatus: str


class _Described(Struct):
    Table: _TableStatus


class _TtlStatus(Struct):
    TimeToLiveStatus: str


class _DescribedTtl(Struct):
    TimeToLiveDescription: _TtlStatus


async def create_tables(client: DynamoClient, settings: Settings, progress: Callable[[str], None]) -> None:
    """Create what is missing and leave the rest alone; `progress` gets one line per table.

    Raises StoreUnavailable when the emulator is not there or a table does not become active within a minute.
    """
    for table in TABLES:
        name = table_name(settings, table.name)
        created = await _create(client, name, table)
        await _wait_until_active(client, name)
        if table.ttl:
            await _enable_ttl(client, name, table.ttl)
        progress(f"table {name}: {'created' if created else 'was there'}")


async def _create(client: DynamoClient, name: str, table: Table) -> bool:
    keys = {table.partition_key: "HASH"} | ({table.sort_key: "RANGE"} if table.sort_key else {})
    searched = [table.vectors.partition] if table.vectors else []
    request: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in [*keys, *searched]],
        "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
    }
    if table.vectors:
        request["VectorIndexes"] = table.vector_indexes
    try:
        await client.call("CreateTable", request, Done)
    except StoreRefused as refusal:
        if refusal.code == "ResourceInUseException":
            return False
        raise
    return True


async def _wait_until_active(client: DynamoClient, name: str) -> None:
    try:
        async with asyncio.timeout(_ACTIVE_WITHIN_SECONDS):
            while await _status(client, name) != "ACTIVE":  # noqa: ASYNC110 (DynamoDB tells only who asks)
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        raise StoreUnavailable(f"table {name} did not become active in {_ACTIVE_WITHIN_SECONDS:g} s") from None


async def _status(client: DynamoClient, name: str) -> str:
    return (await client.call("DescribeTable", {"TableName": name}, _Described)).Table.TableStatus


async def _enable_ttl(client: DynamoClient, name: str, attribute: str) -> None:
    described = await client.call("DescribeTimeToLive", {"TableName": name}, _DescribedTtl)
    if described.TimeToLiveDescription.TimeToLiveStatus in ("ENABLED", "ENABLING"):
        return
    setting = {"Enabled": True, "AttributeName": attribute}
    await client.call("UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": setting}, Done)
