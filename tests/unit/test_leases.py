"""Leases: one holder at a time, taken over when its holder is gone, and each process alone without the store."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from isochrone.routing.leases import SKEW_SECONDS, Leases
from isochrone.stores.memory import MemoryFleetStore


class Process:
    """One process: its clock runs with the others' but may be set apart from theirs."""

    def __init__(self, region: Region, name: str, ahead: float) -> None:
        self._region = region
        self._ahead = ahead
        self.leases = Leases(region.store, name, self.clock)

    def clock(self) -> float:
        """As this process reads it; the store goes by whose call it is serving."""
        self._region.reading = self._region.now + self._ahead
        return self._region.reading


class Region:
    """A fleet store and the processes around it."""

    def __init__(self) -> None:
        self.now = self.reading = 1_000_000.0
        self.store = MemoryFleetStore(clock=lambda: self.reading)

    def process(self, name: str, *, ahead: float = 0.0) -> Process:
        return Process(self, name, ahead)


@pytest.fixture
def region() -> Region:
    return Region()


async def test_lease_is_held_by_one_and_free_again_when_it_is_released(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    lease = await a.take("duty/probe", 10)
    assert lease is not None
    assert (lease.version, lease.until) == (1, region.now + 10)
    assert await b.take("duty/probe", 10) is None
    assert await a.take("duty/probe", 10) is None
    await a.release(lease)
    taken = await b.take("duty/probe", 10)
    assert taken is not None
    assert taken.version > lease.version


async def test_lease_whose_holder_is_gone_is_taken_over_after_one_term_of_watching(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    await a.take("duty/probe", 10)
    assert await b.take("duty/probe", 10) is None
    region.now += 9
    assert await b.take("duty/probe", 10) is None
    region.now += 1
    taken = await b.take("duty/probe", 10)
    assert taken is not None
    assert taken.version == 2


async def test_lease_that_nobody_watched_is_free_when_no_clock_can_hold_it_for_alive(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    await a.take("duty/probe", 10)
    region.now += 10 + SKEW_SECONDS
    assert await b.take("duty/probe", 10) is not None


async def test_lease_in_another_form_is_waited_for_as_long_as_clocks_may_differ(region: Region) -> None:
    """While versions change, two of them run side by side."""
    await region.store.write("duty/probe", {"owner": "newer"}, version=0, expires=region.now + 3 * SKEW_SECONDS)
    leases = region.process("a").leases
    assert await leases.take("duty/probe", 10) is None
    region.now += SKEW_SECONDS
    assert await leases.take("duty/probe", 10) is not None


@pytest.mark.parametrize("ahead", [-90.0, 90.0])
async def test_clock_that_is_wrong_by_a_minute_and_a_half_takes_nothing_from_a_living_holder(
    region: Region, ahead: float
) -> None:
    a, b = region.process("a", ahead=-ahead).leases, region.process("b", ahead=ahead).leases
    lease = await a.take("duty/probe", 10)
    for _ in range(60):
        region.now += 5
        assert await b.take("duty/probe", 10) is None
        assert lease is not None
        lease = await a.renew(lease, 10)
    assert lease is not None


async def test_woken_holder_cannot_renew_what_somebody_else_has_taken_over(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    lease = await a.take("trial", 10)
    await b.take("trial", 10)
    region.now += 10
    assert lease is not None
    assert await b.take("trial", 10) is not None
    assert await a.renew(lease, 10) is None
    await a.release(lease)
    assert await a.take("trial", 10) is None


async def test_without_a_store_a_process_grants_to_itself_once_at_a_time() -> None:
    now = [0.0]
    leases = Leases(None, "a", lambda: now[0])
    lease = await leases.take("trial", 10)
    assert lease is not None
    assert lease.version == 0
    assert await leases.take("trial", 10) is None
    assert await leases.take("another", 10) is not None
    renewed = await leases.renew(lease, 20)
    assert renewed is not None
    await leases.release(renewed)
    assert await leases.take("trial", 10) is not None
    now[0] = 10.0
    assert await leases.take("trial", 10) is not None


async def test_while_the_store_is_gone_each_process_grants_to_itself_and_says_so_once(
    region: Region, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    region.store.failing = True
    lease = await a.take("trial", 10)
    assert lease is not None
    assert await a.take("trial", 10) is None
    assert await b.take("trial", 10) is not None
    await a.take("another", 10)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # one a process
    region.store.failing = False
    renewed = await a.renew(lease, 10)
    assert renewed is not None
    assert renewed.version == 1


async def test_outage_of_the_store_ends_no_lease_and_the_next_one_is_logged_again(
    region: Region, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="isochrone")
    leases = region.process("a").leases
    lease = await leases.take("duty/probe", 10)
    for outage in (1, 2):
        region.store.failing = True
        region.now += 5
        assert lease is not None
        lease = await leases.renew(lease, 10)
        assert lease is not None
        assert lease.until == region.now + 10
        region.store.failing = False
        lease = await leases.renew(lease, 10)
        assert len(caplog.records) == outage


async def test_release_that_the_store_does_not_hear_leaves_the_lease_to_run_out(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    lease = await a.take("trial", 10)
    assert lease is not None
    region.store.fail_next = 1
    await a.release(lease)
    assert await b.take("trial", 10) is None


async def test_duty_stays_with_who_has_it_and_goes_to_the_next_when_it_lets_go(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    for _ in range(5):
        assert await a.hold("duty/probe", 15) is True
        assert await b.hold("duty/probe", 15) is False
        region.now += 5
    await a.let_go()
    assert await b.hold("duty/probe", 15) is True
    assert await a.hold("duty/probe", 15) is False


async def test_duty_is_let_go_also_when_its_renewal_was_called_off_after_it_was_written(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends cancels what it is doing."""
    a, b = region.process("a").leases, region.process("b").leases
    assert await a.hold("duty/probe", 15)
    write = region.store.write

    async def write_and_hang(*args: Any, **options: Any) -> int:
        await write(*args, **options)
        await asyncio.Event().wait()
        raise AssertionError("nobody sets that event")

    monkeypatch.setattr(region.store, "write", write_and_hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await a.hold("duty/probe", 15)
    monkeypatch.undo()
    await a.let_go()
    assert await b.hold("duty/probe", 15)


async def test_duty_that_was_lost_is_not_taken_from_its_next_holder_by_letting_go(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    assert await a.hold("duty/probe", 15)
    assert not await b.hold("duty/probe", 15)
    region.now += 15
    assert await b.hold("duty/probe", 15)
    await a.let_go()
    assert not await a.hold("duty/probe", 15)


async def test_duty_that_was_lost_in_a_long_sleep_is_not_taken_back(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    assert await a.hold("duty/probe", 15)
    assert not await b.hold("duty/probe", 15)
    region.now += 15
    assert await b.hold("duty/probe", 15)
    assert not await a.hold("duty/probe", 15)


async def test_leases_that_are_watched_are_bounded(region: Region) -> None:
    a, b = region.process("a").leases, region.process("b").leases
    for number in range(1100):
        await a.take(f"lease/{number}", 10)
        await b.take(f"lease/{number}", 10)
    region.now += 10
    assert await b.take("lease/1099", 10) is not None
    assert await b.take("lease/0", 10) is None  # its watch was forgotten and begins again
