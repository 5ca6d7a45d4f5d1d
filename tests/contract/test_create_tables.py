from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.client import DynamoClient, connect
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.protocols import StoreUnavailable
from isochrone.stores.tables import TABLES, Table


async def described(client: DynamoClient, name: str) -> dict[str, Any]:
    table: dict[str, Any] = (await client.call("DescribeTable", {"TableName": name}, dict[str, Any]))["Table"]
    return table


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_table_has_the_keys_billing_and_ttl_of_its_definition(
    client: DynamoClient, settings: Settings, table: Table
) -> None:
    await create_tables(client, settings, lambda line: None)
    name = table_name(settings, table.name)
    keys = [(key["AttributeName"], key["KeyType"]) for key in (await described(client, name))["KeySchema"]]
    assert keys == [(table.partition_key, "HASH")] + ([(table.sort_key, "RANGE")] if table.sort_key else [])
    assert (await described(client, name))["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    ttl = await client.call("DescribeTimeToLive", {"TableName": name}, dict[str, Any])
    assert ttl["TimeToLiveDescription"].get("AttributeName") == table.ttl


async def test_creating_tables_again_leaves_them_and_what_is_in_them(client: DynamoClient, settings: Settings) -> None:
    first: list[str] = []
    again: list[str] = []
    await create_tables(client, settings, first.append)
    name = table_name(settings, "answers")
    await client.call("PutItem", {"TableName": name, "Item": {"pk": {"S": "kept"}}}, dict[str, Any])
    await create_tables(client, settings, again.append)
    assert [line.rpartition(": ")[2] for line in first + again] == ["created"] * len(TABLES) + ["was there"] * len(
        TABLES
    )
    found = await client.call("GetItem", {"TableName": name, "Key": {"pk": {"S": "kept"}}}, dict[str, Any])
    assert found["Item"] == {"pk": {"S": "kept"}}


async def test_table_that_is_still_being_created_is_waited_for(endpoint: Any, settings: Settings) -> None:
    looks: list[str] = []

    async def act(request: web.Request) -> web.StreamResponse:
        operation = request.headers["x-amz-target"].rpartition(".")[2]
        looks.append(operation)
        status = "CREATING" if looks.count("DescribeTable") == 1 else "ACTIVE"
        reply = {"Table": {"TableStatus": status}, "TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return web.json_response(reply)

    endpoint.script = [act]
    async with connect("eu-west-1", endpoint_url=endpoint.url, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
    assert looks[:3] == ["CreateTable", "DescribeTable", "DescribeTable"]


async def test_emulator_that_is_not_there_is_one_clear_error(settings: Settings) -> None:
    async with connect("eu-west-1", endpoint_url="http://127.0.0.1:1", environ={}) as client:
        with pytest.raises(StoreUnavailable, match=r"CreateTable: cannot connect to 127\.0\.0\.1:1: "):
            await create_tables(client, settings, lambda line: None)
