"""Keys are made, replaced and taken back in two regions whose directory is replicated late and by last writer wins,
while either region's table comes and goes: who may come in, and who may not."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from isochrone.admin import Conflict, KeyAdmin
from isochrone.admission.identity import Identity
from isochrone.admission.key_directory import Bucket, KeyDirectory
from isochrone.admission.keys import KeyRing, digest_of
from isochrone.api.errors import KeysUnavailable, NotFound, Unauthorized
from isochrone.background import Background
from isochrone.settings import Backend, Network, Region, Settings
from isochrone.stores.memory import MemoryDirectoryStore
from isochrone.stores.protocols import StoreUnavailable

REGIONS = ("eu-west-1", "us-east-1")
REPLICATION_SECONDS = 1.0
OBEYED_SECONDS = 10.0
MAX_AGE = 60
SETTINGS = Settings(
    region=tuple(map(Region, REGIONS)), backend=(Backend(name="b", base_url="http://b/v1", models={"m": "m"}),)
)
WAITS = st.lists(st.sampled_from([0.5, 2.0, 3.0, 5.0, 7.5, 30.0]), min_size=1, max_size=4)

Name = tuple[str, str]


class Replica(MemoryDirectoryStore):
    """One region's copy of a global table: what is written here comes there a while later; the later write wins."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.others: list[Replica] = []
        self._world = world
        self._written: dict[Name, int] = {}
        self._under_way: list[tuple[float, int, Name, dict[str, Any]]] = []

    async def put(self, partition: str, key: str, data: dict[str, Any]) -> None:
        await super().put(partition, key, data)
        self._world.writes += 1
        self._written[partition, key] = self._world.writes
        for other in self.others:
            other._under_way.append(
                (self._world.now + self._world.delay, self._world.writes, (partition, key), dict(data))
            )

    def arrive(self) -> None:
        """Take in what is due; an item that was written here later stays."""
        for entry in [entry for entry in self._under_way if entry[0] <= self._world.now]:
            self._under_way.remove(entry)
            _, number, (partition, key), data = entry
            if self._written.get((partition, key), 0) < number:
                self._written[partition, key] = number
                self._partitions.setdefault(partition, {})[key] = data


class Made:
    """What became of one key, as those remember it who did it."""

    def __init__(self, key: str, key_id: str, now: float) -> None:
        self.key, self.key_id, self.made_at = key, key_id, now
        self.revoked_at: float | None = None
        self.ends_at = float("inf")
        self.told_at = now


class World(RuleBasedStateMachine):
    """`now` is the only clock. Each region has one edge."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now, self.delay, self.writes, self.numbers = 1_800_000_000.0, 0.0, 0, 0
        self.tables = {name: Replica(self) for name in REGIONS}
        for name, table in self.tables.items():
            table.others = [other for others, other in self.tables.items() if others != name]
        self.back_at = dict.fromkeys(REGIONS, float("-inf"))
        self.gone_at = dict.fromkeys(REGIONS, float("inf"))
        self.background = Background()
        self.edges = {name: self._edge(table) for name, table in self.tables.items()}
        self.keys: list[Made] = []
        self.make(REGIONS[0], None)

    def _edge(self, table: Replica) -> Identity:
        directory = KeyDirectory(table, self.background, max_age=MAX_AGE, strangers=Bucket(1e9, 1e9))
        return Identity(KeyRing([]), required=True, network=Network(), directory=directory)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.background.finish())
            self.loop.close()

    def _random(self) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(32, "big")

    def _admin(self, region: str) -> KeyAdmin:
        return KeyAdmin(SETTINGS, self.tables[region])

    def _do(self, work: Any) -> Any:
        try:
            return self.loop.run_until_complete(work)
        except (StoreUnavailable, NotFound, Conflict):
            return None

    @precondition(lambda self: len(self.keys) < 4)
    @rule(region=st.sampled_from(REGIONS), life=st.sampled_from([None, None, 5, 30]))
    def make(self, region: str, life: int | None) -> None:
        wish: dict[str, Any] = {"tenant": "t", "id": f"k{len(self.keys)}"}
        if life:
            wish["expires"] = _date(self.now + life)
        if new := self._do(self._admin(region).create(wish, random=self._random(), now=self.now)):
            made = Made(new.key, new.record.key.id, self.now)
            made.ends_at = self.now + life if life else float("inf")
            self.keys.append(made)

    @rule(region=st.sampled_from(REGIONS), grace=st.sampled_from([0, 3, 30]), data=st.data())
    def replace(self, region: str, grace: int, data: st.DataObject) -> None:
        self._replace(region, grace, data.draw(st.sampled_from(self.keys)).key_id)

    def _replace(self, region: str, grace: int, key_id: str) -> None:
        new = self._do(self._admin(region).rotate(key_id, grace=grace, random=self._random(), now=self.now))
        if new is None:
            return
        seen = self.tables[region]._partitions["key"]
        for made in self.keys:
            if made.key_id == key_id and digest_of(made.key) in seen and self.now + grace < made.ends_at:
                made.ends_at, made.told_at = self.now + grace, self.now
        made = Made(new.key, key_id, self.now)
        own = new.record.key.expires
        made.ends_at = own.timestamp() if own else float("inf")
        # An id that was taken back elsewhere takes the new key along as soon as that is heard here.
        made.revoked_at = self.now if any(one.revoked_at for one in self._of(key_id)) else None
        self.keys.append(made)

    def _of(self, key_id: str) -> list[Made]:
        return [made for made in self.keys if made.key_id == key_id]

    @rule(region=st.sampled_from(REGIONS), edge=st.sampled_from(REGIONS), waits=WAITS, data=st.data())
    def take_back(self, region: str, edge: str, waits: list[float], data: st.DataObject) -> None:
        """While it is in use."""
        made = data.draw(st.sampled_from(self.keys))
        self._use(edge, made)
        self._take_back(region, made.key_id)
        for seconds in waits:
            self._wait(seconds)
            self._use(edge, made)

    @rule(data=st.data())
    def take_back_here_what_is_replaced_there(self, data: st.DataObject) -> None:
        """Neither region has heard of the other yet."""
        key_id = data.draw(st.sampled_from(self.keys)).key_id
        self.delay = REPLICATION_SECONDS
        self._replace(REGIONS[0], 3, key_id)
        self._take_back(REGIONS[1], key_id)

    def _take_back(self, region: str, key_id: str) -> None:
        seen = self._do(self._admin(region).revoke(key_id, now=self.now))
        for made in self._of(key_id) if seen else ():
            made.revoked_at = made.revoked_at or self.now

    @rule(region=st.sampled_from(REGIONS), data=st.data())
    def write_the_key_again(self, region: str, data: st.DataObject) -> None:
        """As an edit would that knows nothing of what happened meanwhile."""
        digest = digest_of(data.draw(st.sampled_from(self.keys)).key)
        item = self.tables[region]._partitions.get("key", {}).get(digest)
        if item:
            self._do(self.tables[region].put("key", digest, {**item, "owner": "somebody"}))

    @rule(region=st.sampled_from(REGIONS), moment=st.sampled_from(["back", "back", "gone"]))
    def lose_or_find_the_table(self, region: str, moment: str) -> None:
        table = self.tables[region]
        if table.failing and moment == "back":
            table.failing, self.back_at[region] = False, self.now
        elif not table.failing and moment == "gone":
            table.failing, self.gone_at[region] = True, self.now

    def _wait(self, seconds: float) -> None:
        self.now += seconds
        for table in self.tables.values():
            table.arrive()

    @rule(region=st.sampled_from(REGIONS), number=st.integers(0, 3))
    def guess(self, region: str, number: int) -> None:
        key = "isk_" + str(number) * 43
        assert not self._is_let_in(region, key), "nobody ever made this key"

    @rule(region=st.sampled_from(REGIONS), waits=WAITS, delay=st.floats(0, REPLICATION_SECONDS), data=st.data())
    def use(self, region: str, waits: list[float], delay: float, data: st.DataObject) -> None:
        made = data.draw(st.sampled_from(self.keys))
        for seconds in waits:
            self.delay = delay
            self._wait(seconds)
            self._use(region, made)

    def _use(self, region: str, made: Made) -> None:
        is_in, is_gone = self._is_let_in(region, made.key), self.tables[region].failing
        back = self.back_at[region]
        if made.revoked_at is not None and not is_gone and self.now > max(made.revoked_at, back) + OBEYED_SECONDS:
            assert not is_in, "it was taken back, and that has been known for ten seconds"
        if not is_gone and self.now > max(made.ends_at, made.told_at + OBEYED_SECONDS, back + OBEYED_SECONDS):
            assert not is_in, "its time is over"
        if is_gone and self.now > self.gone_at[region] + MAX_AGE:
            assert not is_in, "nobody has read it for longer than it is believed"
        is_good = made.revoked_at is None and self.now < made.ends_at
        if is_good and not is_gone and self.now > made.made_at + REPLICATION_SECONDS + 5 and self.now > back + 1:
            assert is_in, "nothing speaks against it"

    def _is_let_in(self, region: str, key: str) -> bool:
        try:
            self.loop.run_until_complete(self._identify(region, key))
        except (Unauthorized, KeysUnavailable):
            return False
        return True

    async def _identify(self, region: str, key: str) -> None:
        try:
            await self.edges[region].identify(f"Bearer {key}", "", now=self.now)
        finally:
            await self.background.finish()


def _date(moment: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).isoformat()


TestKeysOfTwoRegions = World.TestCase
TestKeysOfTwoRegions.settings = hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None)
