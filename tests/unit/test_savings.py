"""What known answers saved: counted, told to the roll-ups, shown to their own tenant."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest

from isochrone.ledger.demand import asked_since
from isochrone.ledger.figures import figures, interval
from isochrone.ledger.rollups import Teller
from isochrone.ledger.savings import Savings, saved_since
from isochrone.life import Life, Stores
from isochrone.settings import Answers, Backend, Region, Settings
from isochrone.stores.memory import MemoryAnswerStore, MemoryFleetStore, MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore

NOW = 1_795_392_000.0 + 3600  # 01:00 UTC
DAY = 86_400
BODY = {"usage": {"prompt_tokens": 9, "completion_tokens": 250}}


class Generated(NamedTuple):
    seconds: float = 4.0
    cost: float = 0.002
    body: dict[str, Any] = BODY


def savings_on(store: MemoryRollupStore | None = None) -> Savings:
    return Savings(store or MemoryRollupStore(), chance=lambda: 0.5)


def test_a_hit_saves_what_its_generation_took_less_what_the_hit_took() -> None:
    savings = savings_on()
    savings.hit("a", "memory", Generated(), took=0.5, now=NOW)
    savings.hit("a", "store", Generated(seconds=1.0), took=0.25, now=NOW)
    found = savings.status("a")
    assert found["tiers"]["memory"] == {
        "hits": 1,
        "ratio": 0.5,
        "seconds_saved": 3.5,
        "dollars_saved": 0.002,
        "tokens_saved": 250.0,
    }
    assert (found["seconds_saved"], found["dollars_saved"], found["tokens_saved"]) == (4.25, 0.004, 500.0)


def test_a_hit_that_took_longer_than_its_generation_saved_no_time() -> None:
    savings = savings_on()
    savings.hit("a", "coalesced", Generated(seconds=1.0), took=3.0, now=NOW)
    assert savings.status("a")["seconds_saved"] == 0.0


def test_an_answer_without_usage_saves_no_tokens_that_anybody_knows_of() -> None:
    savings = savings_on()
    savings.hit("a", "curated", Generated(0.0, 0.0, {}), took=0.001, now=NOW)
    assert savings.status("a")["tokens_saved"] == 0.0


def test_the_hit_ratio_is_of_requests_whose_answer_might_have_been_known() -> None:
    savings = savings_on()
    for _ in range(3):
        savings.miss("a", now=NOW)
    savings.hit("a", "semantic", Generated(), took=0.0, now=NOW)
    found = savings.status("a")
    assert (found["requests"], found["hits"], found["hit_ratio"]) == (4, 1, 0.25)


def test_nothing_asked_has_no_ratio() -> None:
    found = savings_on().status("nobody")
    assert (found["requests"], found["hit_ratio"], found["tiers"]) == (0, None, {})


def test_a_tenant_sees_nothing_of_another_ones() -> None:
    savings = savings_on()
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    savings.checked("a", "different", now=NOW)
    assert savings.status("b") == savings_on().status("b")
    assert savings.status(None)["hits"] == 1


async def test_sums_are_told_by_tenant_and_day_and_only_once() -> None:
    store = MemoryRollupStore()
    savings = savings_on(store)
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW + DAY)
    savings.miss("b", now=NOW)
    await savings.flush()
    await savings.flush()
    found = await saved_since(store, NOW, now=NOW + DAY)
    assert {tenant: (sums["memory.hits"], sums["misses"]) for tenant, sums in found.items()} == {
        "a": (3, 0),
        "b": (0, 1),
    }
    only_a = await saved_since(store, NOW + DAY, now=NOW + DAY, tenant="a")
    assert only_a["a"]["memory.hits"] == 1
    assert savings.status("a")["hits"] == 3, "what was told is still this process's"


async def test_sums_of_several_processes_add_up() -> None:
    store = MemoryRollupStore()
    for chance in (0.0, 0.4, 0.999):
        savings = Savings(store, chance=lambda chance=chance: chance)  # type: ignore[misc]
        savings.hit("a", "store", Generated(), took=0.0, now=NOW)
        await savings.flush()
    assert (await saved_since(store, NOW, now=NOW))["a"]["store.hits"] == 3
    assert len(await store.sums("answers#2026-11-23", now=NOW)) == 3, "each process had an item of its own"


async def test_a_store_that_is_gone_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryRollupStore()
    savings = savings_on(store)
    store.failing = True
    for _ in range(3):
        savings.miss("a", now=NOW)
        await savings.flush()
    assert caplog.text.count("roll-ups wait, the ledger's table is unavailable") == 1


async def test_what_can_never_be_stored_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryRollupStore()
    savings = savings_on(store)
    savings.hit("a", "memory", Generated(seconds=float("inf")), took=0.0, now=NOW)
    savings.miss("b", now=NOW)
    await savings.flush()
    assert list(await saved_since(store, NOW, now=NOW)) == ["b"]
    assert "cannot be stored and is lost" in caplog.text


async def test_what_a_store_that_is_gone_does_not_take_is_told_later() -> None:
    store = MemoryRollupStore()
    savings = savings_on(store)
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    store.failing = True
    await savings.flush()
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    store.failing = False
    await savings.flush()
    assert (await saved_since(store, NOW, now=NOW))["a"]["memory.hits"] == 2


async def test_a_flush_that_is_called_off_loses_nothing() -> None:
    class Slow(MemoryRollupStore):
        async def add(self, *args: Any, **more: Any) -> None:
            await asyncio.Event().wait()

    savings = savings_on(Slow())
    savings.miss("a", now=NOW)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await savings.flush()
    store = MemoryRollupStore()
    savings._teller = Teller(store)
    await savings.flush()
    assert (await saved_since(store, NOW, now=NOW))["a"]["misses"] == 1


def test_false_hits_are_a_share_of_what_could_be_judged() -> None:
    savings = savings_on()
    for verdict, times in (("same", 98), ("different", 2), ("unclear", 7)):
        for _ in range(times):
            savings.checked("a", verdict, now=NOW)  # type: ignore[arg-type]
    found = savings.status("a")["false_hits"]
    assert (found["checked"], found["judged"], found["different"], found["rate"]) == (107, 100, 2, 0.02)
    assert (found["low"], found["high"]) == (pytest.approx(0.0055, abs=1e-4), pytest.approx(0.0700, abs=1e-4))


def test_no_verdict_is_no_rate() -> None:
    found = savings_on().status(None)["false_hits"]
    assert (found["rate"], found["low"], found["high"]) == (None, None, None)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.27753),
        (5, 10, 0.23659, 0.76341),
        (10, 10, 0.72247, 1.0),
        (1, 1000, 0.000177, 0.005639),
    ],
)
def test_the_interval_is_wilsons(part: int, whole: int, low: float, high: float) -> None:
    assert interval(part, whole) == pytest.approx((low, high), abs=1e-5)


def test_metrics_have_every_tier_and_the_false_hit_rate_with_its_bounds() -> None:
    savings = savings_on()
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    savings.hit("b", "memory", Generated(), took=0.0, now=NOW)
    savings.checked("a", "same", now=NOW)
    lines = savings.exposition().splitlines()
    assert 'isochrone_answers_total{tier="memory"} 2' in lines
    assert 'isochrone_answers_total{tier="semantic"} 0' in lines
    assert 'isochrone_answers_saved_seconds_total{tier="memory"} 8' in lines
    assert 'isochrone_answers_saved_dollars_total{tier="memory"} 0.004' in lines
    assert 'isochrone_answers_false_hit_rate{bound="rate"} 0' in lines
    assert not [line for line in lines if "team" in line or '"a"' in line], "no tenant's name is in a metric"


def test_news_is_what_was_added_since_it_was_last_told() -> None:
    savings = savings_on()
    savings.hit("a", "memory", Generated(), took=0.0, now=NOW)
    savings.miss("a", now=NOW)
    assert savings.news() == {
        "HitsMemory": 1.0,
        "SecondsSaved": 4.0,
        "DollarsSaved": 0.002,
        "TokensSaved": 250.0,
        "Misses": 1.0,
    }
    assert savings.news() == {}


def test_a_verdict_of_false_is_news_beside_how_many_were_judged() -> None:
    savings = savings_on()
    savings.checked("a", "different", now=NOW)
    savings.checked("a", "same", now=NOW)
    assert savings.news() == {"FalseHits": 1.0, "JudgedHits": 2.0}


def test_figures_of_nothing_are_whole() -> None:
    assert set(figures({})) == {
        "requests",
        "hits",
        "hit_ratio",
        "seconds_saved",
        "dollars_saved",
        "tokens_saved",
        "tiers",
        "false_hits",
    }


async def test_a_function_tells_its_sums_before_it_may_be_frozen_and_the_last_ones_when_it_ends() -> None:
    region, facts = Region(name="eu-west-1"), Backend(name="pool", base_url="http://127.0.0.1:1/v1", models={"m": "m"})
    settings = Settings(region=(region,), backend=(facts,), answers=Answers(warm=True))
    rollups, fleet = MemoryRollupStore(), MemoryFleetStore()
    stores = Stores(MemoryAnswerStore(), MemoryLedgerStore(), rollups, fleet)
    life = Life(settings, "eu-west-1", {}, stores, resident=False)
    for _ in range(2):
        life.savings.miss("a", now=NOW)
        life.demand.asked("a", "m1", NOW)
        await life.catch_up()
    assert (await saved_since(rollups, NOW, now=NOW))["a"]["misses"] == 2
    assert sum((await asked_since(rollups, NOW, now=NOW))["a", "m1"].values()) == 2
    life.savings.miss("a", now=NOW)
    await life.close()
    assert (await saved_since(rollups, NOW, now=NOW))["a"]["misses"] == 3


async def test_demand_is_not_counted_where_no_other_process_could_warm() -> None:
    region, facts = Region(name="eu-west-1"), Backend(name="pool", base_url="http://127.0.0.1:1/v1", models={"m": "m"})
    settings = Settings(region=(region,), backend=(facts,), answers=Answers(warm=True))
    rollups = MemoryRollupStore()
    life = Life(settings, "eu-west-1", {}, Stores(MemoryAnswerStore(), MemoryLedgerStore(), rollups), resident=False)
    life.demand.asked("a", "m1", NOW)
    await life.close()
    assert await asked_since(rollups, NOW, now=NOW) == {}


def test_nobody_knows_what_a_curated_answer_would_have_cost_so_it_saves_nothing() -> None:
    savings = savings_on()
    savings.hit("a", "curated", Generated(seconds=0.0, cost=0.0), took=0.001, now=NOW)
    saved = savings.status("a")["tiers"]["curated"]
    assert saved["hits"] == 1
    assert {name: saved[name] for name in saved if name.endswith("_saved")} == {
        "seconds_saved": 0.0,
        "dollars_saved": 0.0,
        "tokens_saved": 0.0,
    }
