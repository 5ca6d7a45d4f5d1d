"""What nobody here wrote, or not like that, stands in the directory: it is refused as a whole and said, and what was
known before goes on."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from isochrone.admin import KeyAdmin
from isochrone.admission import key_directory
from isochrone.admission.key_record import PARTITION as KEYS
from isochrone.admission.key_record import revoked
from isochrone.admission.keys import digest_of
from isochrone.admission.policies import directory as policies
from isochrone.admission.policies.reading import policy_of
from isochrone.answers.revocations import Revocations
from isochrone.settings import table_name
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.tables import create_tables
from tests.faults.harness import REGIONS, Answer, RunningEdge, backend, running_edge, settings_with
from tests.upstream import Upstream

# As DynamoDB has them: no store of ours can write all of these.
POISONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another form": {"text": {"N": "7"}, "tenant": {"N": "7"}, "entries": {"N": "7"}, "book": {"L": []}},
    "no JSON": {"text": {"S": "{"}, "tenant": {"S": "{"}, "models": {"S": "{"}, "book": {"S": "gone"}},
    "bytes": {name: {"B": "AA=="} for name in ("text", "tenant", "entries", "book", "at", "id")},
}
NAMES = ("current", "00000001-abcdef")
each_poison = pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)


class World:
    """An edge that goes by its directory, and what stands there."""

    edge: RunningEdge

    def __init__(self, client: DynamoClient, table: str, admin: KeyAdmin) -> None:
        self.admin = admin
        self.store = DynamoDirectoryStore(client, table)
        self._client = client
        self._table = table

    async def make(self, tenant: str = "t") -> str:
        return (await self.admin.create({"tenant": tenant}, random=os.urandom(32), now=time.time())).key

    async def poison(self, partition: str, key: str, item: dict[str, Any]) -> None:
        names = {"pk": {"S": partition}, "sk": {"S": key}}
        await self._client.call("PutItem", {"TableName": self._table, "Item": item | names}, dict[str, Any])

    async def poison_everything(self, item: dict[str, Any]) -> None:
        for partition in ("policy", "revoked", "curated", "curated/00000001-abcdef", KEYS):
            for name in NAMES:
                await self.poison(partition, name, item)

    async def ask(self, key: str) -> Answer:
        return await self.edge.chat(headers={"authorization": f"Bearer {key}"})

    async def status(self, key: str) -> dict[str, Any]:
        return (await self.edge.request("GET", "/v1/status", headers={"authorization": f"Bearer {key}"})).fields

    async def read_again(self) -> None:
        """What chores read from time to time."""
        rooms: Any = self.edge.edge.pipeline.rooms
        await rooms.front.refresh()
        await rooms.desk._revocations.refresh(max_age=0)
        await rooms.desk._curated.refresh(time.time())


@pytest.fixture
async def world(
    ministack: str, near: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(key_directory, "RENEW_SECONDS", 0.0)  # every key is old as soon as it was read
    monkeypatch.setattr(key_directory, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(key_directory, "_SPARED_SECONDS", 0.0)
    async with _world(ministack, near, tmp_path) as world:
        yield world


@asynccontextmanager
async def _world(
    ministack: str, upstream: Upstream, folder: Path, poison: dict[str, Any] | None = None
) -> AsyncIterator[World]:
    facts = backend(upstream)
    own: dict[str, Any] = {
        "service": {"name": f"t{uuid4().hex[:12]}"},
        "state": {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(folder)},
        "auth": {"required": True, "policies": True},
        "policy": [{"id": "all-but", "effect": "allow", "principal": {"tenant": ["t", "denied"]}}],
    }
    settings = settings_with(facts, **own)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            connect(REGIONS[0], endpoint_url=ministack, timeouts=Timeouts(10, 60), environ={})
        )
        await create_tables(client, settings, lambda line: None)
        table = table_name(settings, "directory")
        store = DynamoDirectoryStore(client, table)
        text = '{"id": "no", "effect": "deny", "principal": {"tenant": ["denied"]}}'
        await policies.put(store, policy_of(text))
        world = World(client, table, KeyAdmin(settings, store))
        if poison is not None:
            await world.poison_everything(poison)
        world.edge = await stack.enter_async_context(running_edge(facts, **own))
        yield world


@each_poison
async def test_poison_anywhere_in_the_directory_changes_nothing_for_anybody(
    world: World, poison: dict[str, Any]
) -> None:
    good, denied = await world.make(), await world.make("denied")
    before = [(await world.ask(key)).status for key in (good, denied)]
    await world.poison_everything(poison)
    await world.read_again()
    assert [(await world.ask(key)).status for key in (good, denied)] == before == [200, 403]


@each_poison
async def test_edge_starts_among_poison_and_lets_nobody_in_by_half_a_set_of_policies(
    ministack: str, near: Upstream, tmp_path: Path, poison: dict[str, Any]
) -> None:
    async with _world(ministack, near, tmp_path, poison) as world:
        good = await world.make()
        assert (await world.ask(good)).error["code"] == "policies_unavailable"
        for name in NAMES:
            await policies.remove(world.store, name)
        await world.read_again()
        assert (await world.ask(good)).status == 200


async def test_bad_policy_is_said_and_good_ones_beside_it_wait_until_it_is_mended(world: World) -> None:
    good, denied = await world.make(), await world.make("denied")
    await policies.remove(world.store, "no")
    await world.poison("policy", "bad", {"text": {"S": "{"}})
    await world.read_again()
    assert [(await world.ask(key)).status for key in (good, denied)] == [200, 403]
    assert world.edge.edge.refused() == 1
    assert "policy 'bad': no JSON" in (await world.status(good))["policies"]["refused"]
    metrics = (await world.edge.request("GET", "/metrics")).body.decode()
    assert "isochrone_policies_refused_total 1" in metrics
    await policies.remove(world.store, "bad")
    await world.read_again()
    assert (await world.ask(denied)).status == 200
    assert (await world.status(good))["policies"]["refused"] is None
    assert world.edge.edge.refused() == 0


@each_poison
async def test_key_whose_item_is_poisoned_goes_on_where_it_is_known_and_is_refused_elsewhere(
    world: World, poison: dict[str, Any]
) -> None:
    known, other, unseen = await world.make(), await world.make(), await world.make()
    assert (await world.ask(known)).status == 200
    for key in (known, unseen):
        await world.poison(KEYS, digest_of(key), poison)
    assert [(await world.ask(key)).status for key in (known, other, unseen)] == [200, 200, 503]
    assert (await world.status(other))["keys"]["unread"] >= 2


@each_poison
async def test_revocation_takes_a_key_back_whatever_its_item_or_that_of_the_key_say(
    world: World, poison: dict[str, Any]
) -> None:
    poisoned, plain = await world.make(), await world.make()
    assert [(await world.ask(key)).status for key in (poisoned, plain)] == [200, 200]
    await world.poison(KEYS, digest_of(poisoned), poison)
    for key in (poisoned, plain):
        await world.poison(KEYS, revoked(digest_of(key)), poison)
    for key in (poisoned, plain):
        assert (await world.ask(key)).status == 401


async def test_key_whose_item_cannot_be_read_can_be_taken_back(world: World) -> None:
    key = await world.make()
    assert (await world.ask(key)).status == 200
    await world.poison(KEYS, digest_of(key), POISONS["another form"])
    await world.admin.revoke_key(key, now=time.time())
    assert (await world.ask(key)).status == 401


async def test_revocation_of_an_answer_that_cannot_be_read_is_said_and_hides_no_other(world: World) -> None:
    good = await world.make()
    assert (await world.ask(good)).status == 200
    await world.poison("revoked", "bad", POISONS["another form"])
    others = Revocations(world.store, life=60, clock=time.time, monotonic=time.monotonic)
    await others.revoke("t", pattern="*")
    await world.read_again()
    assert (await world.status(good))["answers"]["revoked"]["unreadable"] == 1
    assert world.edge.edge.refused() == 1
    assert (await world.ask(good)).headers["x-isochrone-cache"] == "miss"
