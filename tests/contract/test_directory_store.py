from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec import structs

from isochrone.settings import Region, Settings, State
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import open_directory
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.limits import VALUE_BYTES
from tests.contract.conftest import PATIENT

DATA = {"pattern": "*天气*", "count": 3, "share": 0.5, "on": True, "until": None}


async def test_item_comes_back_as_it_was_put(stores: Any) -> None:
    await stores.directory.put("revoked", "a", DATA)
    assert await stores.directory.items("revoked", consistent=True) == {"a": DATA}


async def test_partition_that_nobody_wrote_to_is_empty(stores: Any) -> None:
    assert await stores.directory.items("nobody") == {}


async def test_items_come_in_the_order_of_their_keys_and_other_partitions_are_not_seen(stores: Any) -> None:
    for partition, key in (("one", "b"), ("other", "x"), ("one", "a"), ("one/more", "y"), ("one", "c")):
        await stores.directory.put(partition, key, {"said": f"{partition} {key}"})
    found = await stores.directory.items("one", consistent=True)
    assert list(found.items()) == [(key, {"said": f"one {key}"}) for key in "abc"]


async def test_prefix_narrows_a_partition_to_the_items_whose_keys_begin_with_it(stores: Any) -> None:
    for key in ("ab", "abc#revoked", "abd", "b", "xab"):
        await stores.directory.put("key", key, {"said": key})
    found = await stores.directory.items("key", prefix="ab", consistent=True)
    assert list(found) == ["ab", "abc#revoked", "abd"]
    assert await stores.directory.items("key", prefix="nobody", consistent=True) == {}


async def test_later_put_replaces_the_whole_item(stores: Any) -> None:
    await stores.directory.put("p", "k", {"old": 1})
    await stores.directory.put("p", "k", {"new": 2})
    assert await stores.directory.items("p", consistent=True) == {"k": {"new": 2}}


async def test_deleted_item_is_gone_and_deleting_again_is_no_error(stores: Any) -> None:
    await stores.directory.put("p", "k", {})
    await stores.directory.delete("p", "k")
    await stores.directory.delete("p", "k")
    assert await stores.directory.items("p", consistent=True) == {}


async def test_partition_larger_than_one_page_comes_whole(stores: Any) -> None:
    """A page of DynamoDB holds at most 1 MB."""
    part = "x" * 300_000
    for number in range(5):
        await stores.directory.put("book", f"{number:04}", {"part": part + str(number)})
    found = await stores.directory.items("book", consistent=True)
    assert [found[key]["part"][-1] for key in found] == list("01234")


@pytest.mark.parametrize(
    "data", [{"list": []}, {"nan": float("nan")}, {"pk": "mine"}, {"large": "x" * (VALUE_BYTES + 1)}]
)
async def test_item_that_can_never_be_stored_is_refused_before_it_is_sent(stores: Any, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="directory item p/k"):
        await stores.directory.put("p", "k", data)
    assert await stores.directory.items("p", consistent=True) == {}


@pytest.mark.parametrize(("partition", "key"), [("", "k"), ("p", "")])
async def test_item_without_a_name_is_refused(stores: Any, partition: str, key: str) -> None:
    with pytest.raises(ValueError, match="it needs both names"):
        await stores.directory.put(partition, key, {})


async def test_emulated_directory_is_written_in_every_region_that_is_there(ministack: str, settings: Settings) -> None:
    """On AWS a global table does that; an emulator keeps a table for each region."""
    regions = ("eu-west-1", "us-east-1", "ap-southeast-1")
    settings = structs.replace(
        settings, region=tuple(map(Region, regions)), state=State(kind="dynamodb", endpoint_url=ministack)
    )
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(connect(name, endpoint_url=ministack, timeouts=PATIENT, environ={}))
            for name in regions
        }
        for name in regions[:2]:
            await create_tables(clients[name], settings, lambda line: None)
        here, there = (open_directory(clients.__getitem__, settings, name) for name in regions[:2])
        await here.put("p", "k", {"said": 1})
        await there.put("p", "l", {"said": 2})
        assert await there.items("p", consistent=True) == await here.items("p", consistent=True)
        await there.delete("p", "k")
        assert list(await here.items("p", consistent=True)) == ["l"]
        assert await here.items("p", prefix="k", consistent=True) == {}


def test_directory_of_aws_is_replicated_by_aws(settings: Settings) -> None:
    opened: list[str] = []
    open_directory(opened.append, settings, "eu-west-1")  # type: ignore[arg-type]
    assert opened == ["eu-west-1"]
