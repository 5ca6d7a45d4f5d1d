"""One limit as one process has it; the counter is played by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.admission.limits.quota import (
    DOLLARS_PER_MONTH,
    REQUESTS_PER_DAY,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    Kind,
    Quota,
)
from isochrone.admission.limits.sheet import Need, Sheet
from isochrone.admission.limits.windows import Period

START = 1_800_000_000.0 // 60 * 60


class Counter:
    """A sheet of one limit with the counter behind it."""

    def __init__(self, limit: float, kind: Kind = REQUESTS_PER_MINUTE, *, at: float = START) -> None:
        self.sheet = Sheet({kind: limit}, at)
        self.sums: dict[str, float] = {}
        self.now = at
        self.calls = 0

    @property
    def quota(self) -> Quota:
        return self.sheet.quotas[0]

    def take(self, amount: float = 1.0) -> bool:
        """From what is at hand, or from the counter."""
        self.sheet.turn_to(self.now)
        if self.quota.at_hand(self.now) < amount:
            self.exchange(amount)
        if self.quota.at_hand(self.now) < amount:
            return False
        self.quota.spend(amount, self.now)
        return True

    def exchange(self, amount: float) -> None:
        while asking := self.sheet.asking([Need(self.quota, amount)], self.now):
            self.calls += 1
            after = {name: self.sums.get(name, 0.0) + more for name, more in asking.amounts.items()}
            done = all(after[name] <= bound for name, bound in asking.most.items())
            if done:
                self.sums |= after
            self.sheet.heard(asking, done, self.sums, self.now)
            if done or not self.quota.has_room(amount, self.now):
                return

    def taken(self, most: int) -> int:
        """How many requests of so many are admitted just now."""
        return sum(self.take() for _ in range(most))


def test_a_new_minute_has_the_whole_limit_and_no_more() -> None:
    assert Counter(10).taken(30) == 10


def test_the_minute_before_counts_by_what_is_left_of_it() -> None:
    counter = Counter(60)
    assert counter.taken(60) == 60
    counter.now += 60
    assert counter.taken(60) == 0
    counter.now += 15
    assert counter.taken(60) == 15
    counter.now += 30
    assert counter.taken(60) == 30


def test_after_two_minutes_nothing_counts_any_more() -> None:
    counter = Counter(10)
    counter.taken(10)
    counter.now += 120
    assert counter.taken(30) == 10


def test_a_day_begins_anew_at_midnight_and_a_month_on_its_first_day() -> None:
    counter = Counter(5, REQUESTS_PER_DAY)
    assert counter.taken(9) == 5
    counter.now = counter.quota.window.end - 0.001
    assert not counter.take()
    assert counter.quota.opens_in(1, counter.now) == pytest.approx(0.001, abs=1e-6)
    counter.now += 0.001
    assert counter.taken(9) == 5
    assert Period.MONTH.window(START).seconds in (28 * 86_400, 29 * 86_400, 30 * 86_400, 31 * 86_400)
    assert Period.MONTH.before(Period.MONTH.window(START)).end == Period.MONTH.window(START).start


def test_a_busy_process_asks_seldom() -> None:
    counter = Counter(6000)
    admitted = 0
    for _ in range(600):
        counter.now += 0.1
        admitted += counter.taken(10)
    assert admitted == 6000
    assert counter.calls <= 100


def test_a_quiet_process_takes_one_at_a_time_and_leaves_the_rest_to_others() -> None:
    counter = Counter(100)
    for _ in range(3):
        counter.now += 30
        assert counter.take()
        assert counter.quota.at_hand(counter.now) == 0


def test_what_was_used_of_the_last_minute_and_given_back_counts_no_more() -> None:
    counter = Counter(100, TOKENS_PER_MINUTE)
    counter.take(100)
    window = counter.quota.window.number
    counter.now += 60
    counter.sheet.turn_to(counter.now)
    counter.quota.refund(100, window)
    assert counter.take(100)
    assert counter.sums[f"tm/{window}"] == 0.0


def test_a_reply_that_grew_longer_is_owed_and_told_with_the_next_call() -> None:
    counter = Counter(100, TOKENS_PER_MINUTE)
    counter.take(10)
    counter.quota.spend(150, counter.now)
    assert not counter.take(1)
    assert sum(counter.sums.values()) == 160.0


def test_what_was_taken_under_a_wrong_belief_of_the_last_minute_is_not_used() -> None:
    counter = Counter(10)
    counter.sums[f"rm/{int(START // 60) - 1}"] = 10.0
    counter.now += 15
    assert counter.taken(10) == 2


@pytest.mark.parametrize("kind", [REQUESTS_PER_DAY, DOLLARS_PER_MONTH])
def test_a_process_that_counts_alone_never_goes_beyond_what_the_table_said_last(kind: Kind) -> None:
    counter = Counter(100, kind)
    counter.sums[f"{kind.code}/{counter.quota.window.number}"] = 90.0
    counter.take(1)
    assert counter.quota.alone(counter.now, 1.0) == pytest.approx(9)


def test_a_process_that_counts_alone_has_its_share_of_the_limit() -> None:
    quota = Quota(REQUESTS_PER_MINUTE, 100, START)
    assert quota.alone(START, 0.25) == 25
    quota.spend(25, START)
    assert quota.alone(START, 0.25) == 0
    assert quota.opens_alone_in(1, START, 0.25) == pytest.approx(62.4, abs=0.002)


requests = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), max_size=8)


@given(limit=st.integers(1, 30), requests=requests, amount=st.integers(1, 30), kind=st.sampled_from((0, 1)))
def test_a_request_is_admitted_when_it_was_told_to_come_back_and_not_sooner(
    limit: int, requests: list[tuple[float, int]], amount: int, kind: int
) -> None:
    counter = Counter(limit, (REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE)[kind])
    for pause, wanted in requests:
        counter.now += pause
        counter.take(wanted)
    if counter.take(amount):
        return
    told = counter.now
    wait = counter.quota.opens_in(amount, told)
    assert (wait is None) == (amount > limit)
    if wait is not None:
        counter.now = told + wait - 0.01
        assert wait < 0.01 or not counter.take(amount)
        counter.now = told + wait
        assert counter.take(amount)


@given(limit=st.integers(1, 30), requests=requests)
def test_all_is_free_again_at_the_reset_and_not_sooner(limit: int, requests: list[tuple[float, int]]) -> None:
    counter = Counter(limit)
    for pause, wanted in requests:
        counter.now += pause
        counter.take(wanted)
    counter.sheet.turn_to(counter.now)
    reset = counter.quota.reset_in(counter.now)
    if reset:
        assert counter.quota.remaining(counter.now) < limit
    counter.now += reset + 1e-6
    assert counter.taken(limit) == limit


def test_a_full_counter_is_not_asked_again_at_once() -> None:
    counter = Counter(10)
    counter.taken(10)
    quota = counter.quota
    quota.close(3, START)
    assert quota.is_closed(3, START + 0.2)
    assert not quota.is_closed(2, START + 0.2)
    assert not quota.is_closed(3, START + 5)


def test_a_clock_that_is_set_back_gives_nothing_twice() -> None:
    counter = Counter(10)
    counter.now += 30
    counter.taken(10)
    counter.now -= 90
    counter.sheet.turn_to(counter.now)
    assert counter.quota.at_hand(counter.now) == 0
    counter.now += 90
    assert not counter.take()
