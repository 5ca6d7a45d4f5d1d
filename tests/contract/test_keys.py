"""Keys through both stores: made, replaced and taken back by an operator, found by an edge."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec import structs

from isochrone.admin import Conflict, KeyAdmin
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.key_record import PARTITION
from isochrone.admission.keys import digest_of
from isochrone.api.errors import NotFound
from isochrone.background import Background
from isochrone.settings import Region, Settings, State
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import open_directory
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.protocols import DirectoryStore
from tests.contract.conftest import PATIENT

NOW = 1_800_000_000.0
WISH = {
    "id": "team-a-1",
    "tenant": "team-a",
    "models": ["m"],
    "tags": ["batch"],
    "dollars_per_month": 100.0,
    "expires": "2030-01-31T00:00:00Z",
}


def random() -> bytes:
    return os.urandom(32)


@pytest.fixture
def admin(stores: Any, settings: Settings) -> KeyAdmin:
    return KeyAdmin(settings, stores.directory)


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.finish()


@pytest.fixture
def edge(stores: Any, background: Background) -> KeyDirectory:
    return edge_of(stores.directory, background)


def edge_of(store: DirectoryStore, background: Background) -> KeyDirectory:
    return KeyDirectory(store, background, max_age=3600)


async def test_key_is_known_with_all_that_was_said_of_it(admin: KeyAdmin, edge: KeyDirectory) -> None:
    new = await admin.create(WISH, random=random(), now=NOW, by="ann")
    found = await edge.find(digest_of(new.key), NOW)
    assert found == new.record.principal
    assert found is not None
    assert (found.tenant, found.models, found.tags, found.limits.dollars_per_month) == (
        "team-a",
        ("m",),
        ("batch",),
        100.0,
    )
    assert (await admin.listing()).records == [new.record]


async def test_id_is_used_once_also_when_its_key_is_over(admin: KeyAdmin) -> None:
    await admin.create(WISH, random=random(), now=NOW)
    with pytest.raises(Conflict, match="there is a key 'team-a-1' already"):
        await admin.create(WISH, random=random(), now=NOW)
    await admin.revoke("team-a-1", now=NOW)
    with pytest.raises(Conflict, match="an id is never used again"):
        await admin.create(WISH, random=random(), now=NOW)


async def test_replaced_key_goes_on_for_its_grace_beside_the_new_one(admin: KeyAdmin, edge: KeyDirectory) -> None:
    old = await admin.create(WISH, random=random(), now=NOW)
    new = await admin.rotate("team-a-1", grace=60, random=random(), now=NOW)
    before, after = [await edge.find(digest_of(one.key), NOW) for one in (old, new)]
    assert before is not None
    assert before.expires == NOW + 60
    assert after is not None
    assert after == old.record.principal
    assert [record.state(NOW + 60) for record in (await admin.listing()).records] == ["expired", "active"]


async def test_revocation_of_an_id_takes_back_all_its_keys_and_no_other(admin: KeyAdmin, edge: KeyDirectory) -> None:
    old = await admin.create(WISH, random=random(), now=NOW)
    new = await admin.rotate("team-a-1", grace=60, random=random(), now=NOW)
    other = await admin.create({**WISH, "id": "team-a-10"}, random=random(), now=NOW)
    gone = await admin.revoke("team-a-1", now=NOW)
    assert {record.key.sha256 for record in gone} == {digest_of(old.key), digest_of(new.key)}
    assert [await edge.find(digest_of(one.key), NOW) for one in (old, new)] == [None, None]
    assert await edge.find(digest_of(other.key), NOW) is not None
    with pytest.raises(Conflict, match="is revoked: make a new one"):
        await admin.rotate("team-a-1", grace=60, random=random(), now=NOW)


async def test_the_first_revocation_is_the_one_that_counts(admin: KeyAdmin) -> None:
    new = await admin.create(WISH, random=random(), now=NOW)
    moments = [(await admin.revoke("team-a-1", now=NOW + later))[0].revoked for later in (1, 60)]
    moments += [(await admin.revoke_key(new.key, now=NOW + 90))[0].revoked]
    moments += [record.revoked for record in (await admin.listing()).records]
    assert moments == [NOW + 1] * 4


async def test_key_that_was_found_somewhere_is_taken_back_by_itself(admin: KeyAdmin, edge: KeyDirectory) -> None:
    old = await admin.create(WISH, random=random(), now=NOW)
    new = await admin.rotate("team-a-1", grace=60, random=random(), now=NOW)
    await admin.revoke_key(old.key, now=NOW)
    assert await edge.find(digest_of(old.key), NOW) is None
    assert await edge.find(digest_of(new.key), NOW) is not None
    with pytest.raises(NotFound, match=r"there is no key that begins with isk_"):
        await admin.revoke_key("isk_" + "x" * 43, now=NOW)
    with pytest.raises(NotFound, match="does not look like a key"):
        await admin.revoke_key("sk-other", now=NOW)


async def test_what_is_not_there_is_said(admin: KeyAdmin) -> None:
    with pytest.raises(NotFound, match="there is no key 'nobody'"):
        await admin.revoke("nobody", now=NOW)
    with pytest.raises(NotFound, match="there is no key 'nobody'"):
        await admin.rotate("nobody", grace=0, random=random(), now=NOW)


async def test_expired_key_is_not_replaced(admin: KeyAdmin) -> None:
    await admin.create({**WISH, "expires": "2027-01-16T00:00:00Z"}, random=random(), now=NOW)
    with pytest.raises(Conflict, match="is expired: make a new one"):
        await admin.rotate("team-a-1", grace=0, random=random(), now=NOW + 86_400)


async def test_item_that_nobody_can_read_is_told_and_hides_no_key(stores: Any, admin: KeyAdmin) -> None:
    new = await admin.create(WISH, random=random(), now=NOW)
    await stores.directory.put(PARTITION, digest_of("broken"), {"id": "broken", "tenant": "t"})
    listing = await admin.listing()
    assert listing.records == [new.record]
    assert len(listing.unreadable) == 1
    assert "'broken' cannot be read" in listing.unreadable[0]


async def test_revocation_wins_over_an_edit_of_another_region_that_comes_later(
    ministack: str, settings: Settings, background: Background
) -> None:
    regions = ("eu-west-1", "us-east-1")
    settings = structs.replace(
        settings, region=tuple(map(Region, regions)), state=State(kind="dynamodb", endpoint_url=ministack)
    )
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(connect(name, endpoint_url=ministack, timeouts=PATIENT, environ={}))
            for name in regions
        }
        for client in clients.values():
            await create_tables(client, settings, lambda line: None)
        here, there = (open_directory(clients.__getitem__, settings, name) for name in regions)
        new = await KeyAdmin(settings, here).create(WISH, random=random(), now=NOW)
        digest = digest_of(new.key)
        assert await edge_of(there, background).find(digest, NOW) == new.record.principal
        seen_before = (await there.items(PARTITION, prefix=digest))[digest]
        await KeyAdmin(settings, here).revoke("team-a-1", now=NOW)
        await there.put(PARTITION, digest, seen_before | {"owner": "edited"})
        for store in (here, there):
            assert await edge_of(store, background).find(digest, NOW) is None
        assert [record.state(NOW) for record in (await KeyAdmin(settings, there).listing()).records] == ["revoked"]
