"""How edges learn of each other's revocations, and what one does that cannot."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest

from isochrone import settings
from isochrone.answers.completion import Answer
from isochrone.answers.revocations import PARTITION, Revocations, TooManyRevocations, longest_life
from isochrone.answers.rulebook import EVERYTHING, SKEW_SECONDS
from isochrone.listening import FRESH_SECONDS, SPARED_SECONDS
from isochrone.stores.memory import MemoryDirectoryStore
from isochrone.stores.protocols import StoreUnavailable

OLD = Answer("chat", "pool", 0.0, {}, model="m", question="How far?")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class CountingStore(MemoryDirectoryStore):
    reads = 0
    seconds = 0.0

    async def items(self, partition: str, *, prefix: str = "", consistent: bool = False) -> dict[str, dict[str, Any]]:
        self.reads += 1
        await asyncio.sleep(self.seconds)
        return await super().items(partition, consistent=consistent)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def edge(store: MemoryDirectoryStore, clock: Clock, *, life: float = inf) -> Revocations:
    return Revocations(store, life=life, clock=clock, monotonic=clock)


async def test_edge_obeys_at_once_and_another_one_within_ten_seconds(store: CountingStore, clock: Clock) -> None:
    here, there = edge(store, clock), edge(store, clock)
    await there.refresh()
    await here.revoke("a", answer="f")
    assert not here.allows("a", "f", OLD)
    assert there.allows("a", "f", OLD)
    clock.now += FRESH_SECONDS
    await there.refresh()
    assert not there.allows("a", "f", OLD)


async def test_pattern_and_model_travel_with_the_rule(store: CountingStore, clock: Clock) -> None:
    await edge(store, clock).revoke("a", pattern="*FAR*", model="m")
    there = edge(store, clock)
    await there.refresh()
    assert not there.allows("a", "f", OLD)
    assert there.allows("a", "f", Answer("chat", "pool", 0.0, {}, model="n", question="How far?"))


async def test_many_who_wait_for_the_rules_read_them_once(store: CountingStore, clock: Clock) -> None:
    store.seconds = 0.01
    here = edge(store, clock)
    await asyncio.gather(*(here.refresh() for _ in range(50)))
    assert store.reads == 1


async def test_rules_are_read_again_only_when_they_are_old(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    for seconds in (0, FRESH_SECONDS - 0.1, 0.1):
        clock.now += seconds
        await here.refresh()
    assert store.reads == 2


@pytest.mark.parametrize("frozen", ["wall", "monotonic"])
async def test_rules_are_old_when_either_clock_says_so(store: CountingStore, frozen: str) -> None:
    """A function that was frozen for an hour may find one of its clocks where it was."""
    clocks = {"wall": Clock(), "monotonic": Clock()}
    here = Revocations(store, life=inf, clock=clocks["wall"], monotonic=clocks["monotonic"])
    await here.refresh()
    for name, clock in clocks.items():
        clock.now += 0.0 if name == frozen else 3600.0
    await here.refresh()
    assert store.reads == 2


async def test_edge_that_never_could_read_the_rules_gives_no_known_answer(store: CountingStore, clock: Clock) -> None:
    store.failing = True
    here = edge(store, clock)
    await here.refresh()
    assert not here.allows("a", "f", OLD)
    assert not here.covers("a", "f", OLD)  # so what is new can be kept, and given later
    assert here.status("a") == {"rules": 0, "unread": 1, "unreadable": 0}


async def test_edge_goes_on_with_the_rules_it_knows_while_the_table_is_gone(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    await here.revoke("a", answer="f")
    store.failing = True
    clock.now += 3600
    await here.refresh()
    assert not here.allows("a", "f", OLD)
    assert here.allows("a", "g", OLD)


async def test_table_that_does_not_answer_is_spared_for_a_while(
    store: CountingStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.listening.READ_SECONDS", 0.01)
    store.seconds = 60.0
    here = edge(store, clock)
    for _ in range(5):
        await here.refresh()
    assert store.reads == 1
    store.seconds = 0.0
    clock.now += SPARED_SECONDS
    await here.refresh()
    assert here.allows("a", "f", OLD)


async def test_a_chore_finds_the_table_as_soon_as_it_is_back(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    await here.refresh()
    store.failing = True
    clock.now += FRESH_SECONDS
    await here.refresh()
    store.failing = False
    await edge(store, clock).revoke("a", answer="f")
    await here.refresh()
    assert here.allows("a", "f", OLD)
    await here.refresh(max_age=0)
    assert not here.allows("a", "f", OLD)


async def test_outage_is_said_once(store: CountingStore, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    store.failing = True
    here = edge(store, clock)
    for _ in range(3):
        await here.refresh()
        clock.now += SPARED_SECONDS
    assert [record.getMessage() for record in caplog.records] == [
        "what was revoked elsewhere is not known while the directory table is gone: CountingStore is switched off"
    ]


async def test_revocation_that_cannot_be_written_is_said_and_obeyed_here(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    await here.refresh()
    store.failing = True
    with pytest.raises(StoreUnavailable):
        await here.revoke("a", answer="f")
    store.failing = False
    clock.now += 3600
    await here.refresh()
    assert not here.allows("a", "f", OLD)


async def test_own_revocation_is_obeyed_although_the_table_does_not_show_it_yet(clock: Clock) -> None:
    class Late(MemoryDirectoryStore):
        async def items(
            self, partition: str, *, prefix: str = "", consistent: bool = False
        ) -> dict[str, dict[str, Any]]:
            return {}

    here = edge(Late(), clock)
    await here.revoke("a", answer="f")
    clock.now += 60
    await here.refresh()
    assert not here.allows("a", "f", OLD)


async def test_what_somebody_else_tidied_away_is_forgotten_here(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    rule = await here.revoke("a", answer="f")
    clock.now += 60
    await here.refresh()
    await store.delete(PARTITION, rule.key)
    clock.now += 60
    await here.refresh()
    assert here.status(None) == {"rules": 0, "unread": 0, "unreadable": 0}


async def test_what_is_no_rule_in_the_table_does_no_harm_and_is_said_once(
    store: CountingStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await store.put(PARTITION, "nonsense", {"tenant": 7})
    await edge(store, clock).revoke("a", answer="g")
    here = edge(store, clock)
    caplog.clear()
    for _ in range(2):
        await here.refresh(max_age=0)
    assert here.allows("a", "f", OLD)
    assert not here.allows("a", "g", OLD)
    assert here.status(None) == {"rules": 1, "unread": 0, "unreadable": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "revocations that cannot be read are not obeyed: nonsense"
    ]


async def test_rules_that_say_nothing_more_are_deleted_with_a_later_one(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    for answer in ("f", "g"):
        await here.revoke("a", answer=answer)
    await here.revoke("b", answer="h")
    clock.now += 60
    last = await here.revoke("a", pattern=EVERYTHING)
    assert len(await store.items(PARTITION)) == 4
    clock.now += 3600
    another = await here.revoke("a", pattern="*moon*")
    left = await store.items(PARTITION)
    assert {key for key, data in left.items() if data["tenant"] == "a"} == {last.key, another.key}
    assert here.status(None)["rules"] == len(left) == 3


async def test_rules_that_all_answers_have_outlived_become_one(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock, life=600.0)
    for answer in ("f", "g", "h"):
        await here.revoke("a", answer=answer)
        clock.now += 3600
    await here.revoke("a", answer="i")
    clock.now += 3600
    await here.revoke("a", answer="j")
    there = edge(store, clock)
    await there.refresh()
    assert not any(there.allows("a", answer, OLD) for answer in "fghij")
    assert there.status("a")["rules"] < 5


async def test_table_that_fails_while_rules_are_tidied_is_no_failure_of_the_revocation(
    store: CountingStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = edge(store, clock)
    await here.revoke("a", answer="f")
    await here.revoke("a", pattern=EVERYTHING)
    clock.now += 3600

    async def gone(*_: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "delete", gone)
    await here.revoke("a", answer="g")
    assert not here.allows("a", "f", OLD)


async def test_tenant_with_too_many_rules_is_told_so(
    store: CountingStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isochrone.answers.revocations.MOST_KEPT", 2)
    here = edge(store, clock)
    for answer in ("f", "g"):
        await here.revoke("a", answer=answer)
    with pytest.raises(TooManyRevocations):
        await here.revoke("a", answer="h")
    await here.revoke("b", answer="h")


async def test_answer_that_is_begun_later_is_known_again(store: CountingStore, clock: Clock) -> None:
    here = edge(store, clock)
    await here.revoke("a", pattern=EVERYTHING)
    new = Answer("chat", "pool", clock.now + SKEW_SECONDS + 3, {}, question="How far?", seconds=2.0)
    assert here.allows("a", "f", new)


@pytest.mark.parametrize(
    ("more", "life"),
    [
        ("", 86_400 * 1.1),
        ("[answers]\nttl = 100", 110.0),
        ("[answers]\nttl = 100\nstale_if_error = 1000", 1110.0),
        ('[answers]\n[[answers.rule]]\nname = "static"\npattern = "."\nttl = "forever"', inf),
        ("[answers]\nttl = 100\n[[model]]\nname = 'm'\nanswers = { ttl = 200, stale_while_revalidate = 5 }", 225.0),
    ],
)
def test_longest_life_is_that_of_the_most_generous_term(more: str, life: float) -> None:
    text = '[[region]]\nname = "r"\n[[backend]]\nname = "p"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = { m = "m" }\n'
    assert longest_life(settings.parse(text + more)) == pytest.approx(life)


async def test_table_that_always_takes_longer_than_a_request_waits_is_heard_all_the_same(
    store: CountingStore, clock: Clock
) -> None:
    store.seconds = 0.4
    here = edge(store, clock)
    await here.refresh()
    assert not here.allows("a", "f", OLD)
    await asyncio.sleep(0.4)
    assert here.allows("a", "f", OLD)
