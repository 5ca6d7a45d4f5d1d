from __future__ import annotations

import asyncio
from typing import Any

import pytest

DOCUMENT = {"pool-eu": {"ok": True, "rtt": 0.0125, "why": "réponse 慢"}, "list": [1, None, "x"]}


async def test_absent_document_has_version_zero(stores: Any) -> None:
    assert await stores.fleet.read("health", now=stores.clock.now) == (None, 0)


async def test_document_comes_back_with_its_version(stores: Any) -> None:
    now = stores.clock.now
    assert await stores.fleet.write("health", DOCUMENT, version=0, expires=now + 60) == 1
    assert await stores.fleet.read("health", now=now) == (DOCUMENT, 1)


async def test_write_with_the_current_version_replaces_and_counts_up(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("health", DOCUMENT, version=0, expires=now + 60)
    assert await stores.fleet.write("health", {"n": 2}, version=1, expires=now + 60) == 2
    assert await stores.fleet.read("health", now=now) == ({"n": 2}, 2)


@pytest.mark.parametrize("version", [0, 2])
async def test_write_with_another_version_changes_nothing(stores: Any, version: int) -> None:
    now = stores.clock.now
    await stores.fleet.write("health", DOCUMENT, version=0, expires=now + 60)
    assert await stores.fleet.write("health", {}, version=version, expires=now + 60) == 0
    assert await stores.fleet.read("health", now=now) == (DOCUMENT, 1)


async def test_document_cannot_be_renewed_when_it_was_never_there(stores: Any) -> None:
    assert await stores.fleet.write("lease", {}, version=1, expires=stores.clock.now + 60) == 0


async def test_documents_of_other_names_are_untouched(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("a", {"n": 1}, version=0, expires=now + 60)
    assert await stores.fleet.write("b", {"n": 2}, version=0, expires=now + 60) == 1
    assert await stores.fleet.read("a", now=now) == ({"n": 1}, 1)


async def test_document_at_its_expiry_reads_as_absent(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("lease", DOCUMENT, version=0, expires=now + 1.5)
    assert await stores.fleet.read("lease", now=now + 1.25) == (DOCUMENT, 1)
    assert await stores.fleet.read("lease", now=now + 1.5) == (None, 0)


async def test_holder_that_slept_past_its_deadline_cannot_renew(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("lease", {"holder": "a"}, version=0, expires=now + 10)
    stores.clock.now = now + 11
    assert await stores.fleet.write("lease", {"holder": "a"}, version=1, expires=now + 20) == 0


async def test_numbering_goes_on_after_an_expiry_so_the_old_holder_stays_out(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("lease", {"holder": "a"}, version=0, expires=now + 10)
    stores.clock.now = now + 11
    assert await stores.fleet.write("lease", {"holder": "b"}, version=0, expires=now + 30) == 2
    assert await stores.fleet.write("lease", {"holder": "a"}, version=1, expires=now + 30) == 0
    assert await stores.fleet.read("lease", now=now + 12) == ({"holder": "b"}, 2)


async def test_of_twenty_writers_exactly_one_wins_each_version(stores: Any) -> None:
    now = stores.clock.now
    for version in range(4):
        race = [stores.fleet.write("race", {"writer": i}, version=version, expires=now + 60) for i in range(20)]
        won = await asyncio.gather(*race)
        assert sorted(won) == [0] * 19 + [version + 1]
        assert await stores.fleet.read("race", now=now) == ({"writer": won.index(version + 1)}, version + 1)


async def test_of_twenty_writers_exactly_one_takes_over_an_expired_lease(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.write("lease", {}, version=0, expires=now + 1)
    stores.clock.now = now + 2
    race = [stores.fleet.write("lease", {"writer": i}, version=0, expires=now + 60) for i in range(20)]
    assert sorted(await asyncio.gather(*race)) == [0] * 19 + [2]


async def test_document_handed_in_or_out_can_be_changed_without_changing_the_store(stores: Any) -> None:
    now = stores.clock.now
    mine: dict[str, Any] = {"list": [1]}
    await stores.fleet.write("health", mine, version=0, expires=now + 60)
    mine["list"].append(2)
    (await stores.fleet.read("health", now=now))[0]["list"].append(3)
    assert (await stores.fleet.read("health", now=now))[0] == {"list": [1]}


async def test_largest_document_fits_and_a_larger_one_is_refused(stores: Any) -> None:
    now = stores.clock.now
    largest = {"t": "é" * ((399 * 1024 - len('{"t":""}')) // 2)}
    assert await stores.fleet.write("n" * 128, largest, version=0, expires=now + 60) == 1
    assert (await stores.fleet.read("n" * 128, now=now))[0] == largest
    with pytest.raises(ValueError, match="more than the store takes"):
        await stores.fleet.write("big", {"t": largest["t"] + "éé"}, version=0, expires=now + 60)


async def test_counters_add_up_and_every_caller_sees_the_sums_of_all(stores: Any) -> None:
    expires = stores.clock.now + 60
    assert await stores.fleet.add("budget/1", {"requests": 10, "retries": 1.5}, expires=expires) == {
        "requests": 10.0,
        "retries": 1.5,
    }
    sums = await stores.fleet.add("budget/1", {"requests": 5, "retries": 0}, expires=expires)
    assert sums == {"requests": 15.0, "retries": 1.5}


async def test_counter_that_was_not_added_to_comes_back_too(stores: Any) -> None:
    expires = stores.clock.now + 60
    await stores.fleet.add("budget/1", {"a": 1}, expires=expires)
    assert await stores.fleet.add("budget/1", {"b": -2}, expires=expires) == {"a": 1.0, "b": -2.0}


async def test_no_amount_is_lost_when_twenty_add_at_once(stores: Any) -> None:
    expires = stores.clock.now + 60
    await asyncio.gather(*(stores.fleet.add("budget/1", {"n": i}, expires=expires) for i in range(20)))
    assert await stores.fleet.add("budget/1", {"n": 0}, expires=expires) == {"n": 190.0}


async def test_counters_past_their_expiry_begin_at_zero_for_all_who_add_at_once(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.add("window", {"old": 5, "n": 7}, expires=now + 10)
    stores.clock.now = now + 10
    await asyncio.gather(*(stores.fleet.add("window", {"n": 1}, expires=now + 60) for _ in range(5)))
    assert await stores.fleet.add("window", {"n": 0}, expires=now + 60) == {"n": 5.0}


async def test_counters_live_as_long_as_the_latest_caller_says(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.add("window", {"n": 1}, expires=now + 10)
    await stores.fleet.add("window", {"n": 1}, expires=now + 20)
    stores.clock.now = now + 15
    assert await stores.fleet.add("window", {"n": 1}, expires=now + 20) == {"n": 3.0}


async def test_counters_and_document_of_one_name_are_apart(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.add("health", {"version": 7, "expires": 8}, expires=now + 60)
    assert await stores.fleet.read("health", now=now) == (None, 0)
    assert await stores.fleet.write("health", DOCUMENT, version=0, expires=now + 60) == 1
    assert await stores.fleet.add("health", {"version": 1}, expires=now + 60) == {"version": 8.0, "expires": 8.0}


@pytest.mark.parametrize("amounts", [{}, {"n": float("nan")}, {"n": 1.0, "m": float("inf")}])
async def test_what_cannot_be_added_is_refused_and_changes_nothing(stores: Any, amounts: dict[str, float]) -> None:
    expires = stores.clock.now + 60
    with pytest.raises(ValueError, match="amounts must be finite numbers"):
        await stores.fleet.add("budget/1", amounts, expires=expires)
    assert await stores.fleet.add("budget/1", {"n": 0}, expires=expires) == {"n": 0.0}


async def test_take_adds_while_no_counter_exceeds_its_bound_and_tells_the_sums(stores: Any) -> None:
    expires = stores.clock.now + 60
    first = await stores.fleet.take("limit/a", {"r/1": 6, "t/1": 10}, most={"r/1": 10, "t/1": 100}, expires=expires)
    assert first == (True, {"r/1": 6.0, "t/1": 10.0})
    assert await stores.fleet.take("limit/a", {"r/1": 4}, most={"r/1": 10}, expires=expires) == (
        True,
        {"r/1": 10.0, "t/1": 10.0},
    )


async def test_take_that_would_exceed_one_bound_adds_nothing_at_all_and_tells_what_stands_there(stores: Any) -> None:
    expires = stores.clock.now + 60
    await stores.fleet.take("limit/a", {"r/1": 6, "t/1": 10}, most={}, expires=expires)
    refused = await stores.fleet.take("limit/a", {"r/1": 1, "t/1": 91}, most={"r/1": 10, "t/1": 100}, expires=expires)
    assert refused == (False, {"r/1": 6.0, "t/1": 10.0})
    assert await stores.fleet.add("limit/a", {"r/1": 0}, expires=expires) == {"r/1": 6.0, "t/1": 10.0}


async def test_take_is_refused_where_nothing_was_counted_yet_and_the_amount_alone_is_too_much(stores: Any) -> None:
    refused = await stores.fleet.take("limit/a", {"r/1": 11}, most={"r/1": 10}, expires=stores.clock.now + 60)
    assert refused == (False, {})


async def test_take_forgets_the_counters_that_it_drops(stores: Any) -> None:
    expires = stores.clock.now + 60
    await stores.fleet.take("limit/a", {"r/1": 5, "r/2": 1}, most={}, expires=expires)
    taken = await stores.fleet.take("limit/a", {"r/2": 1}, most={"r/2": 9}, drop=["r/1"], expires=expires)
    assert taken == (True, {"r/2": 2.0})


async def test_take_begins_at_zero_when_the_time_of_the_counters_is_over(stores: Any) -> None:
    now = stores.clock.now
    await stores.fleet.take("limit/a", {"n": 10}, most={"n": 10}, expires=now + 10)
    stores.clock.now = now + 11
    assert await stores.fleet.take("limit/a", {"n": 7}, most={"n": 10}, expires=now + 60) == (True, {"n": 7.0})


async def test_twenty_who_take_at_once_never_get_more_than_there_is(stores: Any) -> None:
    expires = stores.clock.now + 60
    race = [stores.fleet.take("limit/a", {"n": 3}, most={"n": 40}, expires=expires) for _ in range(20)]
    assert sum(taken.done for taken in await asyncio.gather(*race)) == 13
