"""What every RollupStore promises, in memory and on the ledger's table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from isochrone.settings import Settings, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.dynamodb.rollups import DynamoRollupStore
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore
from isochrone.stores.protocols import LedgerStore, RollupStore
from tests.contract.conftest import PATIENT

NOW = 1_900_000_000.0
LATER = NOW + 86_400


class Table(NamedTuple):
    rollups: RollupStore
    ledger: LedgerStore


@pytest.fixture(params=["memory", "dynamodb"])
async def table(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Table]:
    if request.param == "memory":
        yield Table(MemoryRollupStore(), MemoryLedgerStore())
        return
    endpoint = request.getfixturevalue("ministack")
    async with connect("eu-west-1", endpoint_url=endpoint, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
        name = table_name(settings, "ledger")
        yield Table(DynamoRollupStore(client, name), DynamoLedgerStore(client, name))


async def test_amounts_of_many_add_up(table: Table) -> None:
    adds = [table.rollups.add("asked#2030-03-17", "a#1", {"09": 1, "10": 0.5}, expires=LATER) for _ in range(8)]
    await asyncio.gather(*adds)
    await table.rollups.add("asked#2030-03-17", "a#1", {"11": 2}, expires=LATER)
    assert await table.rollups.sums("asked#2030-03-17", now=NOW) == {"a#1": {"09": 8.0, "10": 4.0, "11": 2.0}}


async def test_partitions_and_keys_are_apart(table: Table) -> None:
    await table.rollups.add("p", "a", {"n": 1}, expires=LATER)
    await table.rollups.add("p", "b", {"n": 2}, expires=LATER)
    await table.rollups.add("q", "a", {"n": 3}, expires=LATER)
    assert await table.rollups.sums("p", now=NOW) == {"a": {"n": 1.0}, "b": {"n": 2.0}}
    assert await table.rollups.sums("q", now=NOW) == {"a": {"n": 3.0}}
    assert await table.rollups.sums("r", now=NOW) == {}


async def test_sums_whose_time_is_over_are_not_there(table: Table) -> None:
    await table.rollups.add("p", "old", {"n": 1}, expires=NOW)
    await table.rollups.add("p", "new", {"n": 1}, expires=NOW + 2)
    assert list(await table.rollups.sums("p", now=NOW + 1)) == ["new"]


async def test_names_may_be_any_text(table: Table) -> None:
    amounts = {"memory.hits": 3, "expires": 1, "pk": 2, "09": 4}
    await table.rollups.add("p", "team/a.b#7", amounts, expires=LATER)
    assert await table.rollups.sums("p", now=NOW) == {"team/a.b#7": amounts}


async def test_more_than_one_page_of_sums_is_read_to_its_end(table: Table) -> None:
    names = {f"{'n' * 900}{i}": 1.0 for i in range(80)}  # DynamoDB gives at most 1 MB a page
    for i in range(16):
        await table.rollups.add("p", f"key-{i:02}", names, expires=LATER)
    found = await table.rollups.sums("p", now=NOW)
    assert (len(found), found["key-15"]) == (16, names)


@pytest.mark.parametrize("amounts", [{}, {"n": float("nan")}, {"n": float("inf")}])
async def test_what_is_no_finite_number_is_refused(table: Table, amounts: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        await table.rollups.add("p", "k", amounts, expires=LATER)


async def test_ledger_of_the_same_table_has_no_sums_among_its_entries(table: Table) -> None:
    await table.rollups.add("asked#2030-03-17", "team-a#1", {"09": 1}, expires=LATER)
    entry = {"tenant": "team-a", "request_id": "r", "attempt": 1, "started_at": NOW}
    await table.ledger.append([entry])
    assert await table.ledger.all() == [entry]
    assert await table.ledger.recent("team-a") == [entry]
