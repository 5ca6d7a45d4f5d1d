from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from isochrone.admission import key_directory
from isochrone.admission.key_directory import Bucket, KeyDirectory
from isochrone.admission.key_record import all_revoked, item_of, made, new_key, retired, revoked
from isochrone.admission.keys import digest_of
from isochrone.api.errors import KeysUnavailable, LimitReached
from isochrone.background import Background
from isochrone.settings import Key
from isochrone.stores.memory import MemoryDirectoryStore

NOW = 1_800_000_000.0
KEY = new_key(bytes(range(32)))
DIGEST = digest_of(KEY)
MAX_AGE = 3600


class Table(MemoryDirectoryStore):
    """Counts its reads, and answers none of them while `hanging`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.hanging = False

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        self.reads.append(prefix)
        if self.hanging:
            await asyncio.Event().wait()
        return await super().items(partition, prefix=prefix, consistent=consistent)

    async def lay_down(self, key: str = KEY, *, replaces: tuple[str, ...] = (), **said: Any) -> None:
        record = made(key, Key(**{"id": "k", "tenant": "t", "sha256": "", **said}), now=NOW, by="", replaces=replaces)
        await self.put("key", record.key.sha256, item_of(record))


@pytest.fixture
async def table() -> Table:
    table = Table()
    await table.lay_down()
    return table


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.finish()


@pytest.fixture
def keys(table: Table, background: Background, monkeypatch: pytest.MonkeyPatch) -> KeyDirectory:
    for name in ("_PATIENCE", "_STRANGER_PATIENCE", "_READ_SECONDS"):
        monkeypatch.setattr(key_directory, name, 0.02)
    return KeyDirectory(table, background, max_age=MAX_AGE)


async def id_of(keys: KeyDirectory, now: float, digest: str = DIGEST) -> str | None:
    found = await keys.find(digest, now)
    return found.key_id if found else None


async def test_key_is_read_once_and_believed_for_four_seconds(keys: KeyDirectory, table: Table) -> None:
    for after in (0, 1, 3.9):
        assert await id_of(keys, NOW + after) == "k"
    assert table.reads == [DIGEST]


async def test_key_in_use_is_read_anew_in_the_background(
    keys: KeyDirectory, table: Table, background: Background
) -> None:
    await id_of(keys, NOW)
    await table.put("key", revoked(DIGEST), {"at": NOW})
    assert await id_of(keys, NOW + 4) == "k"
    await background.finish()
    assert await id_of(keys, NOW + 4) is None


async def test_key_that_was_not_used_for_a_while_is_read_before_it_is_believed(
    keys: KeyDirectory, table: Table
) -> None:
    await id_of(keys, NOW)
    await table.put("key", revoked(DIGEST), {"at": NOW})
    assert await id_of(keys, NOW + 8) is None


async def test_key_ends_when_it_was_replaced_and_not_before(keys: KeyDirectory, table: Table) -> None:
    await table.put("key", retired(DIGEST, NOW + 60), {"at": NOW + 60})
    found = await keys.find(DIGEST, NOW)
    assert found is not None
    assert found.expires == NOW + 60


async def test_key_that_replaced_another_is_refused_when_its_id_was_revoked(keys: KeyDirectory, table: Table) -> None:
    await table.lay_down(replaces=("digest",))
    await table.put("key", all_revoked("k2"), {"at": NOW})
    assert await id_of(keys, NOW) == "k"
    await table.put("key", all_revoked("k"), {"at": NOW})
    assert await id_of(keys, NOW + 8) is None
    assert table.reads == [DIGEST, "revoked#k"] * 2


async def test_clock_that_was_set_back_makes_nothing_young(keys: KeyDirectory, table: Table) -> None:
    await id_of(keys, NOW)
    await table.put("key", revoked(DIGEST), {"at": NOW})
    assert await id_of(keys, NOW - 3600) is None


@pytest.mark.parametrize("trouble", ["failing", "hanging"])
async def test_known_key_is_believed_without_the_table_for_as_long_as_it_is_said(
    keys: KeyDirectory, table: Table, trouble: str
) -> None:
    await id_of(keys, NOW)
    setattr(table, trouble, True)
    for after in (5, 60, MAX_AGE):
        assert await id_of(keys, NOW + after) == "k"
    with pytest.raises(KeysUnavailable):
        await keys.find(DIGEST, NOW + MAX_AGE + 1)


@pytest.mark.parametrize("trouble", ["failing", "hanging"])
async def test_key_that_was_never_seen_is_refused_without_the_table_and_known_when_it_is_back(
    keys: KeyDirectory, table: Table, background: Background, trouble: str
) -> None:
    setattr(table, trouble, True)
    with pytest.raises(KeysUnavailable) as caught:
        await keys.find(DIGEST, NOW)
    assert caught.value.retry_after == 1.0
    setattr(table, trouble, False)
    await background.finish()
    assert await id_of(keys, NOW + 1) == "k"


async def test_item_that_cannot_be_read_leaves_a_known_key_as_it_was_and_lets_no_new_one_in(
    keys: KeyDirectory, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    await id_of(keys, NOW)
    other = digest_of("other")
    for digest in (DIGEST, other):
        await table.put("key", digest, {"id": "k", "tenant": "t", "may_only_dance": True})
    assert await id_of(keys, NOW + 8) == "k"
    with pytest.raises(KeysUnavailable):
        await keys.find(other, NOW)
    assert keys.failures == 2
    assert DIGEST not in caplog.text


async def test_table_that_failed_is_spared_a_second_and_nobody_waits_for_it_again_at_once(
    keys: KeyDirectory, table: Table, background: Background
) -> None:
    await id_of(keys, NOW)
    table.hanging = True
    assert await id_of(keys, NOW + 10) == "k"
    await background.finish()
    for after in (10.1, 10.5, 10.9):
        assert await id_of(keys, NOW + after) == "k"
    assert len(table.reads) == 2
    finding = keys.find(DIGEST, NOW + 11.5)
    with pytest.raises(StopIteration) as done:  # it does not wait, so it ends at its first step
        finding.send(None)
    assert done.value.value.key_id == "k"
    await background.finish()
    assert len(table.reads) == 3


async def test_revocation_during_an_outage_is_obeyed_when_the_table_is_back(
    keys: KeyDirectory, table: Table, background: Background
) -> None:
    await id_of(keys, NOW)
    table.failing = True
    assert await id_of(keys, NOW + 20) == "k"
    table.failing = False
    await table.put("key", revoked(DIGEST), {"at": NOW})
    assert await id_of(keys, NOW + 21) == "k"
    await background.finish()
    assert await id_of(keys, NOW + 21) is None


async def test_outage_is_logged_once_and_counted(
    keys: KeyDirectory, table: Table, background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await id_of(keys, NOW)
    table.failing = True
    for after in range(10, 20):
        await id_of(keys, NOW + after)
        await background.finish()
    assert len(caplog.records) == 1
    assert keys.failures == 10


async def test_unknown_key_is_looked_for_once_in_five_seconds(keys: KeyDirectory, table: Table) -> None:
    for after in (0, 1, 4.9):
        assert await id_of(keys, NOW + after, digest_of("x")) is None
    assert len(table.reads) == 1
    assert await id_of(keys, NOW + 5, digest_of("x")) is None
    assert len(table.reads) == 2


async def test_flood_of_different_keys_costs_neither_memory_nor_a_read_for_each(
    table: Table, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_directory, "MOST_KEPT", 50)
    keys = KeyDirectory(table, background, max_age=MAX_AGE, strangers=Bucket(10, 100))
    assert await id_of(keys, NOW) == "k"
    refused = 0
    for number in range(1000):
        try:
            await keys.find(digest_of(f"guess {number}"), NOW + 1)
        except LimitReached as error:
            refused += 1
            assert (error.status, error.retry_after) == (429, 1.0)
    assert len(table.reads) == 1 + 100
    assert refused == 900
    assert len(keys._refused) == 50
    assert await id_of(keys, NOW + 2) == "k"


async def test_keys_that_are_good_do_not_count_as_strangers(table: Table, background: Background) -> None:
    keys = KeyDirectory(table, background, max_age=MAX_AGE, strangers=Bucket(0, 2))
    for number in range(10):
        await table.lay_down(f"key {number}", id=f"k{number}")
        assert await id_of(keys, NOW, digest_of(f"key {number}")) == f"k{number}"


async def test_least_used_key_is_forgotten_first_and_read_again(
    keys: KeyDirectory, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_directory, "MOST_KEPT", 2)
    for name in ("a", "b", "c"):
        await table.lay_down(name, id=name)
    for name in ("a", "b", "a", "c"):
        await id_of(keys, NOW, digest_of(name))
    table.reads.clear()
    assert [await id_of(keys, NOW + 1, digest_of(name)) for name in ("a", "c", "b")] == ["a", "c", "b"]
    assert table.reads == [digest_of("b")]


async def test_who_leaves_does_not_take_the_read_of_the_others_along(keys: KeyDirectory, table: Table) -> None:
    first, second = (asyncio.create_task(keys.find(DIGEST, NOW)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    found = await second
    assert found is not None
    assert len(table.reads) == 1


async def test_listing_is_read_at_most_twice_a_minute(keys: KeyDirectory, table: Table) -> None:
    await table.lay_down("other", id="other")
    await table.put("key", digest_of("broken"), {"id": "broken"})
    for after in (0, 29, 31):
        assert {record.key.id for record in await keys.records(NOW + after)} == {"k", "other"}
    assert table.reads == ["", ""]


def test_bucket_fills_with_time_up_to_its_burst_and_not_when_the_clock_is_set_back() -> None:
    bucket = Bucket(2, 3)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(50), bucket.take(50.4), bucket.take(50.5), bucket.take(50.6)] == [False, False, True, False]
    assert [bucket.take(1000) for _ in range(4)] == [True, True, True, False]
    bucket.give_back()
    assert [bucket.take(1000), bucket.take(1000)] == [True, False]
