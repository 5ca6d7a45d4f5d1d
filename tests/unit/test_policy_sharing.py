"""How edges come to the directory's rules, and what one does that cannot."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from isochrone.admission.policies.directory import PARTITION, put, remove
from isochrone.admission.policies.examples import Request, asking
from isochrone.admission.policies.reading import policy_of
from isochrone.admission.policies.shared import SharedPolicies
from isochrone.background import Background
from isochrone.listening import FRESH_SECONDS, PATIENCE_SECONDS, READ_SECONDS, SPARED_SECONDS
from isochrone.settings import parse
from isochrone.stores.memory import MemoryDirectoryStore
from isochrone.stores.protocols import StoreUnavailable

CONFIG = """
[state]
kind = "dynamodb"
[auth]
required = false
policies = {shared}
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
"""
ALLOW_ALL = '{"id": "all", "effect": "allow"}'
DENY_B = '{"id": "not-b", "effect": "deny", "principal": {"tenant": ["b"]}}'


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Table(MemoryDirectoryStore):
    reads = 0
    seconds = 0.0
    gone = False

    def __init__(self) -> None:
        super().__init__()
        self.counted: list[str] = []

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        self.reads += 1
        await asyncio.sleep(self.seconds)
        if self.gone:
            raise StoreUnavailable("throttled")
        return await super().items(partition, prefix=prefix, consistent=consistent)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def table() -> Table:
    table = Table()
    for text in (ALLOW_ALL, DENY_B):
        await put(table, policy_of(text))
    return table


def edge(table: Table, clock: Clock, text: str = "", *, shared: bool = True) -> SharedPolicies:
    settings = parse(CONFIG.format(shared=str(shared).lower()) + text)
    return SharedPolicies(
        settings, table, clock=clock, monotonic=clock, background=Background(), count=table.counted.append
    )


def allows(one: SharedPolicies, tenant: str) -> bool:
    return one.decide(asking(Request(tenant=tenant)), "read").allowed


async def test_rules_of_the_directory_are_obeyed_beside_those_of_the_file(table: Table, clock: Clock) -> None:
    one = edge(table, clock, '[[policy]]\nid = "not-c"\neffect = "deny"\nprincipal.tenant = ["c*"]')
    await one.refresh()
    assert [allows(one, tenant) for tenant in "abc"] == [True, False, False]
    assert one.status() == {"rules": 3, "unread": 0, "refused": None}


async def test_without_auth_policies_the_directory_is_not_even_read(table: Table, clock: Clock) -> None:
    one = edge(table, clock, '[[policy]]\nid = "all"\neffect = "allow"', shared=False)
    await one.refresh()
    assert allows(one, "b")
    assert table.reads == 0


async def test_who_never_could_read_the_rules_allows_nothing(table: Table, clock: Clock) -> None:
    table.gone = True
    one = edge(table, clock, '[[policy]]\nid = "all"\neffect = "allow"')
    assert not allows(one, "a")
    await one.refresh()
    assert one.decide(asking(Request()), "read") == (False, None, "the rules could not be read yet", None)
    assert one.status()["unread"] == 1
    table.gone = False
    clock.now += READ_SECONDS
    await one.refresh()
    assert allows(one, "a")


async def test_a_change_is_obeyed_within_ten_seconds(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    await one.refresh()
    assert not allows(one, "b")
    await remove(table, "not-b")
    clock.now += FRESH_SECONDS
    await one.refresh()
    assert allows(one, "b")
    assert FRESH_SECONDS < 10


async def test_the_table_is_not_read_for_every_request(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    for _ in range(100):
        clock.now += FRESH_SECONDS / 101
        await one.refresh()
    assert table.reads == 1
    for _ in range(5):
        await one.refresh(max_age=0)
    assert table.reads == 6  # a chore reads whenever its time has come


async def test_many_that_come_at_once_wait_for_one_reading(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    table.seconds = 0.01
    await asyncio.gather(*(one.refresh() for _ in range(20)))
    assert table.reads == 1


async def test_without_the_table_the_rules_that_are_known_go_on(
    table: Table, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = edge(table, clock)
    await one.refresh()
    table.gone = True
    for _ in range(5):
        clock.now += SPARED_SECONDS
        await one.refresh()
        await one.refresh()
    assert [allows(one, tenant) for tenant in "ab"] == [True, False]
    assert one.status()["unread"] == 5
    assert table.counted == ["policies_unread"] * 5
    assert [record.message for record in caplog.records] == [
        "the directory's policies cannot be read, so going on with those that are known: throttled"
    ]


@pytest.mark.parametrize(("is_known", "patience"), [(True, PATIENCE_SECONDS), (False, READ_SECONDS)])
async def test_a_table_that_hangs_holds_nobody_for_long(
    table: Table, clock: Clock, monkeypatch: pytest.MonkeyPatch, is_known: bool, patience: float
) -> None:
    waited: list[float] = []
    wait = asyncio.wait

    async def briefly(tasks: set[asyncio.Task[None]], **limit: float) -> object:
        waited.append(limit["timeout"])
        return await wait(tasks, timeout=0)

    one = edge(table, clock)
    if is_known:
        await one.refresh()
    table.seconds = 60
    clock.now += FRESH_SECONDS
    monkeypatch.setattr(asyncio, "wait", briefly)
    await one.refresh()
    clock.now += patience / 2
    await one.refresh()
    clock.now += patience / 2
    await one.refresh()  # whoever comes now knows already that it takes long
    assert waited == [patience, patience / 2]
    assert (table.reads, allows(one, "a")) == (1 + is_known, is_known)


async def test_a_slow_table_is_heard_all_the_same(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    await one.refresh()
    await remove(table, "not-b")
    table.seconds = PATIENCE_SECONDS + 0.05
    clock.now += 3600  # a function that slept, or news that nobody had in time
    await one.refresh()
    assert not allows(one, "b")
    await one.refresh(max_age=0)
    assert allows(one, "b")
    assert (table.reads, one.status()["unread"]) == (2, 0)


async def test_who_leaves_does_not_stop_the_reading_for_the_others(table: Table, clock: Clock) -> None:
    table.seconds = 0.02
    one = edge(table, clock)
    first, second = (asyncio.create_task(one.refresh()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert (table.reads, allows(one, "a")) == (1, True)


async def test_what_was_read_is_as_old_as_the_beginning_of_its_reading(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    table.seconds = 0.01
    reading = asyncio.create_task(one.refresh())
    await asyncio.sleep(0)
    clock.now += 3600  # the process is frozen in the middle of it
    await reading
    await one.refresh()
    assert table.reads == 2


POISON = [
    ("all", {"text": "{"}, "policy 'all': no JSON: "),
    ("all", {"text": '{"id": "other", "effect": "allow"}'}, "policy 'all': id: is 'other' in its text"),
    ("bad", {"text": '{"id": "bad", "effect": "maybe"}'}, "policy 'bad': effect: 'maybe' is none of allow, deny"),
    ("bad", {"text": '{"id": "bad", "effect": "deny", "condition": {"ip": ["x"]}}'}, "policy 'bad': condition.ip: 'x'"),
    ("bad", {}, "policy 'bad': no JSON: "),
]


@pytest.mark.parametrize(("key", "data", "why"), POISON)
async def test_a_rule_that_no_edge_can_obey_refuses_all_and_the_last_good_ones_go_on(
    table: Table, clock: Clock, caplog: pytest.LogCaptureFixture, key: str, data: dict[str, Any], why: str
) -> None:
    one = edge(table, clock)
    await one.refresh()
    good = dict(await table.items(PARTITION))
    await remove(table, "not-b")
    await table.put(PARTITION, key, data)
    for _ in range(3):
        clock.now += FRESH_SECONDS
        await one.refresh()
    assert [allows(one, tenant) for tenant in "ab"] == [True, False]
    assert one.status()["refused"].startswith(why)
    assert table.counted == ["policies_refused"] * 3
    (alarm,) = caplog.records
    assert alarm.levelno == logging.ERROR
    assert "refused as a whole, so going on with the ones before: " + why in alarm.message
    await table.delete(PARTITION, "bad")
    for name, item in good.items():
        await table.put(PARTITION, name, item)
    clock.now += FRESH_SECONDS
    await one.refresh()
    assert one.status()["refused"] is None


async def test_who_finds_only_poison_allows_nothing(table: Table, clock: Clock) -> None:
    await table.put(PARTITION, "bad", {"text": "{"})
    one = edge(table, clock)
    await one.refresh()
    assert not allows(one, "a")
    await table.delete(PARTITION, "bad")
    clock.now += FRESH_SECONDS
    await one.refresh()
    assert allows(one, "a")


async def test_a_chore_finds_the_table_as_soon_as_it_is_back(table: Table, clock: Clock) -> None:
    one = edge(table, clock)
    await one.refresh()
    table.gone = True
    clock.now += FRESH_SECONDS
    await one.refresh()
    table.gone = False
    await put(table, policy_of('{"id": "not-a", "effect": "deny", "principal": {"tenant": ["a"]}}'))
    await one.refresh()
    assert allows(one, "a")
    await one.refresh(max_age=0)
    assert not allows(one, "a")
