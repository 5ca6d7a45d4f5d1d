"""What was asked for, from the roll-ups and the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from isochrone.ledger.demand import Demand
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore
from isochrone.warming import history as module
from isochrone.warming.history import History, history

NOW = 1_795_392_000.0 + 30 * 3600  # the second day, 06:00 UTC
HOUR = int(NOW // 3600)


async def past(*entries: dict[str, Any], hits: tuple[tuple[str, float], ...] = ()) -> History:
    rollups, ledger = MemoryRollupStore(), MemoryLedgerStore()
    demand = Demand(rollups, wanted=True)
    for mark, at in hits:
        demand.asked("a", mark, at)
    await demand.flush()
    await ledger.append([{"attempt": 1, "tenant": "a", "outcome": "ok"} | entry for entry in entries])
    return await history(rollups, ledger, ["a"], now=NOW)


def generated(at: float, mark: str | None = "m", **more: Any) -> dict[str, Any]:
    return {"request_id": f"r{at}", "started_at": at, "answer": mark} | more


async def test_asks_are_those_that_were_answered_from_what_was_known_and_those_that_were_generated() -> None:
    found = await past(generated(NOW - 3600), generated(NOW), hits=(("m", NOW), ("n", NOW)))
    assert found.asks == {("a", "m"): {HOUR - 1: 1.0, HOUR: 2.0}, ("a", "n"): {HOUR: 1.0}}


@pytest.mark.parametrize(
    "entry",
    [
        generated(NOW, outcome="broken"),
        generated(NOW, request_id="warm-1"),
        generated(NOW, tenant="b"),
    ],
    ids=["failed", "its own", "another tenant's"],
)
async def test_attempts_that_are_no_demand_are_left_out(entry: dict[str, Any]) -> None:
    assert (await past(entry)).asks == {}


async def test_what_may_not_be_known_is_load_all_the_same() -> None:
    found = await past(generated(NOW, mark=None))
    assert found.asks == {}
    assert found.load[6] > found.load[7] > 0


async def test_entries_of_before_there_were_answers_in_the_ledger_are_read() -> None:
    old = generated(NOW)
    del old["answer"]
    assert (await past(old)).asks == {}


async def test_load_of_one_day_is_hardly_trusted_and_that_of_many_days_is() -> None:
    one = await past(*(generated(NOW + number) for number in range(24)))
    many = await past(*(generated(NOW + number - 86_400 * day) for number in range(2) for day in range(12)))
    assert one.load[6] / one.load[7] == pytest.approx(13.0)
    assert many.load[6] / many.load[7] == pytest.approx(145.0)


async def test_no_more_of_the_ledger_is_read_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    found = await past(*(generated(NOW - number) for number in range(9)))
    assert sum(found.asks["a", "m"].values()) == 3


async def test_nothing_asked_is_no_history() -> None:
    assert await past() == History({}, [0.0] * 24)
