"""What the pipeline is told: admitted or not, when to come back, and how much is left."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress

import pytest

from isochrone.admission.limits.account import Account
from isochrone.admission.limits.bucket import Addresses, one_caller
from isochrone.admission.limits.forecast import Forecast, cheapest
from isochrone.admission.limits.headers import duration
from isochrone.admission.limits.quota import Keep
from isochrone.admission.principal import ANONYMOUS
from isochrone.api.errors import LimitReached
from isochrone.settings import OwnLimits, PerAddress, Price
from isochrone.stores.protocols import StoreUnavailable, Taken
from tests.limits import Bench, Clock, CountedStore, key

MODEL = "m"


async def refusal_of(bench: Bench, principal: object, address: str = "") -> LimitReached:
    with pytest.raises(LimitReached) as refused:
        await bench.limiter.admit(principal, address, MODEL)  # type: ignore[arg-type]
    return refused.value


async def test_who_has_no_limits_costs_no_call_and_gets_no_headers() -> None:
    bench = Bench()
    admitted = await bench.limiter.admit(key(), "192.0.2.1", MODEL)
    await admitted.reserve(1000, 1.0)
    admitted.charge(1000, 1.0)
    admitted.close()
    assert admitted.headers() == {}
    assert bench.own.calls == 0


async def test_a_request_too_many_is_told_which_limit_whose_and_when_to_come_back() -> None:
    bench, principal = Bench(), key("team-a-1", requests_per_minute=3)
    for _ in range(3):
        (await bench.limiter.admit(principal, "", MODEL)).close()
    refused = await refusal_of(bench, principal)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert "requests_per_minute = 3 of key 'team-a-1'" in refused.message
    assert refused.also["x-ratelimit-remaining-requests"] == "0"
    assert refused.retry_after == pytest.approx(80, abs=0.01)
    bench.clock.now += refused.retry_after or 0
    await bench.limiter.admit(principal, "", MODEL)


async def test_who_is_refused_by_one_limit_has_used_nothing_of_the_others() -> None:
    tenants = {"t": OwnLimits(requests_per_minute=2)}
    bench, principal = Bench(tenants=tenants), key(requests_per_minute=10)
    for _ in range(2):
        await bench.limiter.admit(principal, "", MODEL)
    for _ in range(20):
        assert "tenant 't'" in (await refusal_of(bench, principal)).message
    other = key(tenant="elsewhere", requests_per_minute=10)
    for _ in range(8):
        await bench.limiter.admit(other, "", MODEL)
    assert "key 'a'" in (await refusal_of(bench, other)).message


async def test_keys_of_a_tenant_and_callers_of_a_model_share_its_limit() -> None:
    bench = Bench(models={MODEL: OwnLimits(requests_per_minute=5)})
    for number in range(5):
        await bench.limiter.admit(key(f"k{number}"), "", MODEL)
    assert "model 'm'" in (await refusal_of(bench, key("another"))).message


async def test_a_day_that_is_used_up_is_an_insufficient_quota_until_midnight() -> None:
    bench, principal = Bench(), key(requests_per_day=2)
    for _ in range(2):
        await bench.limiter.admit(principal, "", MODEL)
    refused = await refusal_of(bench, principal)
    assert refused.code == "insufficient_quota"
    assert refused.retry_after == 86_400 - bench.clock.now % 86_400


# -- tokens and money --------------------------------------------------------------------------------------------------


async def test_tokens_that_were_reserved_and_not_used_can_be_used_by_others() -> None:
    bench, principal = Bench(), key(tokens_per_minute=1000)
    first = await bench.limiter.admit(principal, "", MODEL)
    await first.reserve(900, 0.0)
    second = await bench.limiter.admit(principal, "", MODEL)
    with pytest.raises(LimitReached, match="about 200 tokens"):
        await second.reserve(200, 0.0)
    first.charge(150, 0.0)
    first.close()
    await second.reserve(850, 0.0)
    assert second.headers()["x-ratelimit-remaining-tokens"] == "0"


async def test_known_answers_cost_a_request_and_no_tokens() -> None:
    bench, principal = Bench(), key(requests_per_minute=9, tokens_per_minute=100)
    admitted = await bench.limiter.admit(principal, "", MODEL)
    admitted.close()
    assert admitted.headers()["x-ratelimit-remaining-requests"] == "8"
    assert admitted.headers()["x-ratelimit-remaining-tokens"] == "100"


async def test_what_is_charged_after_the_end_or_beyond_what_was_reserved_counts_too() -> None:
    bench, principal = Bench(), key(tokens_per_minute=1000)
    admitted = await bench.limiter.admit(principal, "", MODEL)
    await admitted.reserve(100, 0.0)
    admitted.charge(60, 0.0)
    admitted.charge(70, 0.0)
    admitted.close()
    admitted.charge(200, 0.0)
    assert admitted.headers()["x-ratelimit-remaining-tokens"] == "670"


async def test_work_that_goes_on_after_the_end_reserves_anew_and_gives_back_anew() -> None:
    bench, principal = Bench(), key(tokens_per_minute=1000, concurrency=1)
    admitted = await bench.limiter.admit(principal, "", MODEL)
    admitted.close()
    await admitted.reserve(600, 0.0)
    with pytest.raises(LimitReached):
        await admitted.reserve(600, 0.0)
    admitted.charge(100, 0.0)
    assert admitted.headers()["x-ratelimit-remaining-tokens"] == "400"
    admitted.close()
    assert admitted.headers()["x-ratelimit-remaining-tokens"] == "900"
    (await bench.limiter.admit(principal, "", MODEL)).close()


async def test_closing_twice_gives_back_once() -> None:
    bench, principal = Bench(), key(tokens_per_minute=1000, concurrency=2)
    admitted = await bench.limiter.admit(principal, "", MODEL)
    await admitted.reserve(500, 0.0)
    admitted.close()
    admitted.close()
    assert admitted.headers()["x-ratelimit-remaining-tokens"] == "1000"
    for _ in range(2):
        await bench.limiter.admit(principal, "", MODEL)
    await refusal_of(bench, principal)


async def test_a_request_that_can_never_fit_is_told_so_without_a_call_and_without_a_time() -> None:
    bench, principal = Bench(), key(tokens_per_minute=1000)
    admitted = await bench.limiter.admit(principal, "", MODEL)
    with pytest.raises(LimitReached, match="more than tokens_per_minute = 1000") as refused:
        await admitted.reserve(1001, 0.0)
    assert refused.value.retry_after is None
    assert bench.own.calls == 0


async def test_a_budget_of_money_is_kept() -> None:
    bench, principal = Bench(), key(dollars_per_month=1.0)
    for _ in range(4):
        admitted = await bench.limiter.admit(principal, "", MODEL)
        await admitted.reserve(10, 0.25)
        admitted.charge(10, 0.25)
        admitted.close()
    admitted = await bench.limiter.admit(principal, "", MODEL)
    with pytest.raises(LimitReached) as refused:
        await admitted.reserve(10, 0.01)
    assert refused.value.code == "insufficient_quota"


# -- places ------------------------------------------------------------------------------------------------------------


async def test_a_place_is_free_again_when_the_request_is_over() -> None:
    bench, principal = Bench(), key(concurrency=2)
    first, _ = [await bench.limiter.admit(principal, "", MODEL) for _ in range(2)]
    refused = await refusal_of(bench, principal)
    assert "concurrency = 2 of key 'a'" in refused.message
    first.close()
    await bench.limiter.admit(principal, "", MODEL)


async def test_who_finds_no_place_has_used_no_request() -> None:
    bench, principal = Bench(), key(concurrency=1, requests_per_minute=2)
    first = await bench.limiter.admit(principal, "", MODEL)
    for _ in range(5):
        assert "concurrency" in (await refusal_of(bench, principal)).message
    first.close()
    await bench.limiter.admit(principal, "", MODEL)


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_an_address_may_ask_its_burst_at_once_and_its_rate_after_that() -> None:
    addresses = Addresses(100, 200)
    assert sum(not addresses.take("a", 0.0) for _ in range(300)) == 200
    assert addresses.take("a", 0.0) == pytest.approx(0.01)
    assert addresses.take("a", 0.01) == 0
    assert addresses.take("a", 0.01) > 0
    assert addresses.take("b", 0.01) == 0
    assert sum(not addresses.take("a", 1.01) for _ in range(300)) == 100


def test_addresses_that_are_remembered_are_bounded_and_the_busiest_stays() -> None:
    addresses = Addresses(1, 1, capacity=10)
    for number in range(100):
        addresses.take(str(number), 0.0)
        assert (addresses.take("busy", 0.0) > 0) == (number > 0)
    assert len(addresses) == 10


def test_an_ipv6_subscriber_is_one_caller_whatever_address_it_takes() -> None:
    assert one_caller("2001:db8:1:2::1") == one_caller("2001:db8:1:2:ffff::9") != one_caller("2001:db8:1:3::1")
    assert one_caller("192.0.2.1") == "192.0.2.1"
    assert one_caller("") == ""


def test_this_machine_is_not_limited() -> None:
    assert one_caller("127.0.0.1") is one_caller("127.8.0.1") is one_caller("::1") is None


async def test_an_anonymous_address_that_asks_too_often_is_told_when_to_come_back() -> None:
    bench = Bench(per_address=PerAddress(requests_per_second=2, burst=3))
    for _ in range(3):
        bench.limiter.meet("192.0.2.1")
    with pytest.raises(LimitReached) as refused:
        bench.limiter.meet("192.0.2.1")
    assert refused.value.retry_after == pytest.approx(0.5)
    bench.limiter.meet("192.0.2.2")
    for _ in range(9):
        bench.limiter.meet("127.0.0.1")
    bench.clock.now += 0.5
    bench.limiter.meet("192.0.2.1")


async def test_an_address_that_asks_little_costs_no_call_and_a_busy_one_is_counted_by_all_processes() -> None:
    clock = Clock()
    store = CountedStore(clock)
    rate = PerAddress(requests_per_second=2, burst=100)
    benches = [Bench(clock=clock, store=store, per_address=rate) for _ in range(2)]
    for _ in range(60):
        await ask_anonymously(benches[0])
    assert store.calls == 0
    admitted = 0
    for _ in range(100):
        clock.now += 0.5
        for bench in benches:
            try:
                await ask_anonymously(bench)
                admitted += 1
            except LimitReached:
                pass
    assert admitted <= 2 * 60 + 120


async def ask_anonymously(bench: Bench) -> None:
    bench.limiter.meet("192.0.2.1")
    await bench.limiter.admit(ANONYMOUS, "192.0.2.1", MODEL)


# -- what it costs -----------------------------------------------------------------------------------------------------


async def test_a_hot_key_with_every_limit_costs_less_than_a_call_for_ten_requests() -> None:
    limits = OwnLimits(100_000, 10_000_000, 50, 1_000_000, 1000.0)
    bench = Bench(tenants={"t": limits}, models={MODEL: limits})
    principal = key(
        requests_per_minute=6000, tokens_per_minute=5_000_000, requests_per_day=1_000_000, dollars_per_month=500.0
    )
    for _ in range(600):
        bench.clock.now += 0.05
        admitted = await bench.limiter.admit(principal, "", MODEL)
        await admitted.reserve(400, 0.001)
        admitted.charge(300, 0.0007)
        admitted.close()
    assert bench.own.calls + bench.main.calls <= 60


async def test_who_is_refused_over_and_over_costs_no_calls() -> None:
    bench, principal = Bench(), key(requests_per_minute=5)
    for _ in range(5):
        await bench.limiter.admit(principal, "", MODEL)
    await refusal_of(bench, principal)
    before = bench.own.calls
    for _ in range(100):
        await refusal_of(bench, principal)
    assert bench.own.calls == before


async def test_two_hundred_callers_of_four_processes_never_get_more_than_the_limit_and_in_the_end_all_of_it() -> None:
    clock = Clock()
    store = CountedStore(clock)
    benches = [Bench(clock=clock, store=store) for _ in range(4)]
    principal = key(requests_per_minute=100)
    calls = [bench.limiter.admit(principal, "", MODEL) for bench in benches for _ in range(50)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    admitted = sum(not isinstance(end, BaseException) for end in ends)
    assert all(isinstance(end, LimitReached) for end in ends if isinstance(end, BaseException))
    assert store.calls <= 20
    for bench in benches:
        await bench.limiter.flush(Keep.NOTHING)
    late = Bench(clock=clock, store=store)
    for _ in range(100 - admitted):
        await late.limiter.admit(principal, "", MODEL)
    await refusal_of(late, principal)


@pytest.mark.parametrize("behind", [-90.0, 90.0])
async def test_a_process_whose_clock_is_wrong_counts_in_the_same_minute_as_the_others(behind: float) -> None:
    clock = Clock()
    right = CountedStore(clock)
    wrong = CountedStore(clock, behind=behind)
    wrong._counters = right._counters
    first = Bench(clock=clock, store=right)
    second = Bench(clock=Clock(clock.now - behind), store=wrong)
    principal = key(requests_per_minute=3)
    for bench in (first, second, first):
        await bench.limiter.admit(principal, "", MODEL)
    for bench in (first, second):
        assert (await refusal_of(bench, principal)).retry_after == pytest.approx(80, abs=0.01)


async def test_what_an_idle_process_does_not_need_goes_back_to_the_others() -> None:
    clock = Clock()
    store = CountedStore(clock)
    idle, busy = (Bench(clock=clock, store=store) for _ in range(2))
    principal = key(tokens_per_minute=1000)
    admitted = await idle.limiter.admit(principal, "", MODEL)
    await admitted.reserve(900, 0.0)
    admitted.charge(100, 0.0)
    admitted.close()
    clock.now += 30
    await idle.limiter.flush()
    other = await busy.limiter.admit(principal, "", MODEL)
    await other.reserve(890, 0.0)


async def test_only_accounts_that_have_something_to_tell_are_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, settled = Bench(), Counter[str]()
    settle = Account.settle

    async def counted(account: Account, keep: Keep = Keep.SOME) -> None:
        settled[account.name] += 1
        await settle(account, keep)

    monkeypatch.setattr(Account, "settle", counted)
    for number in range(500):
        (await bench.limiter.admit(key(f"k{number}", tokens_per_minute=100), "", MODEL)).close()
    busy = await bench.limiter.admit(key("busy", tokens_per_minute=100), "", MODEL)
    busy.charge(7, 0.0)
    await bench.limiter.flush()
    assert list(settled.values()) == [1]
    await bench.limiter.flush()
    assert settled.total() == 1
    assert busy.headers()["x-ratelimit-remaining-tokens"] == "93"


async def test_next_to_nothing_of_a_budget_is_lost_where_each_request_meets_a_process_that_is_never_woken() -> None:
    store, principal = CountedStore(clock := Clock()), key(dollars_per_month=10.0)
    for _ in range(20):
        frozen = Bench(clock=clock, store=store)
        admitted = await frozen.limiter.admit(principal, "", MODEL)
        await admitted.reserve(10, 0.1)
        admitted.charge(1, 0.01)
        admitted.close()
        await frozen.limiter.flush(Keep.LITTLE)
        clock.now += 60
    (counters,) = store._counters.values()
    assert 0.2 <= sum(counters.sums.values()) <= 0.2 + 20 * 0.001 + 1e-9
    assert store.calls == 40


async def test_a_process_that_ends_gives_everything_back() -> None:
    clock = Clock()
    store = CountedStore(clock)
    principal = key(requests_per_day=1000)
    ending = Bench(clock=clock, store=store)
    for _ in range(50):
        await ending.limiter.admit(principal, "", MODEL)
    await ending.limiter.close()
    sums = [counters.sums for counters in store._counters.values()]
    assert [sum(amounts.values()) for amounts in sums] == [50.0]


# -- without the table -------------------------------------------------------------------------------------------------


async def test_without_the_table_each_process_has_its_share_and_comes_back_with_its_debts() -> None:
    clock = Clock()
    store = CountedStore(clock)
    bench, principal = Bench(clock=clock, store=store, local_share=0.5), key(requests_per_minute=20)
    store.failing = True
    for _ in range(10):
        await bench.limiter.admit(principal, "", MODEL)
    refused = await refusal_of(bench, principal)
    assert refused.retry_after is not None
    assert bench.limiter.news()["shared"] is False
    store.failing = False
    clock.now += 6
    await bench.limiter.flush()
    assert bench.limiter.news()["shared"] is True
    for _ in range(10):
        await bench.limiter.admit(principal, "", MODEL)
    await refusal_of(bench, principal)


async def test_who_is_refused_without_the_table_may_come_back_with_it_and_no_budget_is_told_as_used_up() -> None:
    store = CountedStore(clock := Clock())
    bench, principal = Bench(clock=clock, store=store, local_share=0.1), key(dollars_per_month=10.0)
    await (admitted := await bench.limiter.admit(principal, "", MODEL)).reserve(10, 0.5)
    bench.main.is_gone("it is")
    with pytest.raises(LimitReached) as refused:
        await (await bench.limiter.admit(principal, "", MODEL)).reserve(10, 2.0)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limit_exceeded", 5.0)
    admitted.close()
    await bench.background.finish()
    assert bench.posted == []


async def test_a_table_that_fails_once_is_asked_again_at_once() -> None:
    store = CountedStore(clock := Clock())
    bench = Bench(clock=clock, store=store)
    store.fail_next = 1
    await bench.limiter.admit(key(requests_per_minute=3), "", MODEL)
    assert bench.limiter.news()["shared"] is True
    assert store.calls == 2


async def test_a_table_that_hangs_holds_no_request_and_its_late_reply_still_counts() -> None:
    class Slow(CountedStore):
        goes_on = asyncio.Event()

        async def take(
            self,
            name: str,
            amounts: Mapping[str, float],
            *,
            most: Mapping[str, float],
            expires: float,
            drop: Collection[str] = (),
        ) -> Taken:
            await self.goes_on.wait()
            return await super().take(name, amounts, most=most, expires=expires, drop=drop)

    store = Slow(clock := Clock())
    bench, principal = Bench(clock=clock, store=store), key(requests_per_minute=10)
    bench.own.patience = 0.01
    for _ in range(10):
        await bench.limiter.admit(principal, "", MODEL)
    await refusal_of(bench, principal)
    assert bench.limiter.news()["shared"] is False
    store.goes_on.set()
    await bench.background.finish()
    assert bench.limiter.news()["shared"] is True
    await refusal_of(bench, principal)


async def test_an_outage_in_which_replies_get_lost_counts_what_was_used_twice_at_the_most_however_long_it_is() -> None:
    class Deaf(CountedStore):
        """Does what it is asked, and says nothing of it."""

        is_deaf = True

        async def take(
            self,
            name: str,
            amounts: Mapping[str, float],
            *,
            most: Mapping[str, float],
            expires: float,
            drop: Collection[str] = (),
        ) -> Taken:
            taken = await super().take(name, amounts, most=most, expires=expires, drop=drop)
            if self.is_deaf:
                raise StoreUnavailable("the reply got lost")
            return taken

    store = Deaf(clock := Clock())
    bench, principal = Bench(clock=clock, store=store), key(requests_per_day=10_000)
    for _ in range(100):
        clock.now += 6
        await bench.limiter.admit(principal, "", MODEL)
        await bench.limiter.flush()
    assert store.calls > 50
    store.is_deaf = False
    clock.now += 6
    await bench.limiter.close()
    (counters,) = store._counters.values()
    day = sum(total for name, total in counters.sums.items() if name.startswith("rd/"))
    assert 100 <= day <= 103


# -- notices -----------------------------------------------------------------------------------------------------------


async def test_half_four_fifths_and_all_of_a_budget_are_told_once_by_all_processes_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    store = CountedStore(clock)
    benches = [Bench(clock=clock, store=store) for _ in range(3)]
    principal = key("team-a-1", requests_per_day=10)
    seen = []
    with caplog.at_level(logging.WARNING, "isochrone"):
        for number in range(10):
            admitted = await benches[number % 3].limiter.admit(principal, "", MODEL)
            seen.append(admitted.headers().get("x-isochrone-budget"))
            admitted.close()
        await refusal_of(benches[0], principal)
        for bench in benches:
            await bench.background.finish()
    assert seen == [None] * 4 + ["50"] * 3 + ["80"] * 2 + ["100"]
    posted = [notice for bench in benches for notice in bench.posted]
    assert sorted(notice["level"] for notice in posted) == [50, 80, 100]
    logged = [json.loads(record.message) for record in caplog.records]
    assert sorted(line["level"] for line in logged) == [50, 80, 100]
    assert {(line["event"], line["scope"], line["limit"], line["value"]) for line in logged} == {
        ("budget", "key 'team-a-1'", "requests_per_day", 10)
    }


async def test_a_request_that_is_too_large_tells_of_no_budget_that_is_used_up() -> None:
    bench, principal = Bench(), key(dollars_per_month=10.0)
    for dollars in (11.0, 6.0, 6.0):
        admitted = await bench.limiter.admit(principal, "", MODEL)
        with suppress(LimitReached):
            await admitted.reserve(10, dollars)
    await bench.background.finish()
    assert [notice["level"] for notice in bench.posted] == [50]


async def test_of_levels_that_are_reached_at_once_only_the_highest_is_told() -> None:
    bench, principal = Bench(), key(requests_per_day=4)
    for _ in range(4):
        (await bench.limiter.admit(principal, "", MODEL)).close()
    await bench.background.finish()
    assert [notice["level"] for notice in bench.posted] == [50, 100]


async def test_once_all_of_a_budget_was_told_every_process_says_so_to_its_callers() -> None:
    clock = Clock()
    store = CountedStore(clock)
    here, there = [Bench(clock=clock, store=store) for _ in range(2)]
    principal = key(dollars_per_month=10.0)
    admitted = await here.limiter.admit(principal, "", MODEL)
    await admitted.reserve(10, 9.0)
    admitted.charge(10, 9.0)
    admitted.close()
    told = []
    for bench in (here, there, there):
        another = await bench.limiter.admit(principal, "", MODEL)
        with pytest.raises(LimitReached) as refused:
            await another.reserve(10, 2.0)
        told += [refused.value.also["x-isochrone-budget"], another.headers()["x-isochrone-budget"]]
        await bench.background.finish()
    assert told == ["100"] * 6
    await another.reserve(10, 0.1)
    assert another.headers()["x-isochrone-budget"] == "100"
    assert [notice["level"] for notice in [*here.posted, *there.posted]] == [80, 100]


async def test_the_next_day_is_told_of_anew() -> None:
    bench, principal = Bench(), key(requests_per_day=2)
    for _ in range(2):
        (await bench.limiter.admit(principal, "", MODEL)).close()
        bench.clock.now += 86_400
    await bench.background.finish()
    assert [notice["level"] for notice in bench.posted] == [50, 50]


# -- headers and forecasts ---------------------------------------------------------------------------------------------


async def test_headers_tell_of_the_tightest_limit_as_openai_does() -> None:
    tenants = {"t": OwnLimits(requests_per_minute=100, tokens_per_minute=500)}
    bench = Bench(tenants=tenants)
    admitted = await bench.limiter.admit(key(requests_per_minute=60, tokens_per_minute=9000), "", MODEL)
    await admitted.reserve(100, 0.0)
    assert admitted.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "2m0s",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "400",
        "x-ratelimit-reset-tokens": "2m0s",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (86.4, "1m26.4s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_who_bounds_its_reply_is_taken_at_its_word_and_who_does_not_gets_what_is_usual() -> None:
    forecast = Forecast({"m": Price(input=1.0, output=2.0)})
    assert forecast.of("m", 100, most=50, choices=2) == (200, 0.0003)
    assert forecast.of("m", 0).tokens == 640
    for _ in range(200):
        forecast.learn("m", 80)
    assert forecast.of("m", 0).tokens == 100


def test_models_that_nobody_serves_are_not_learned_of() -> None:
    forecast = Forecast({})
    forecast.learn("made-up", 9)
    assert forecast.of("made-up", 0).tokens == 640


def test_the_cheapest_price_of_a_model_is_expected() -> None:
    assert cheapest({"m": [Price(input=3, output=3), Price(input=1, output=2)], "n": []}) == {
        "m": Price(input=1, output=2)
    }


# -- beyond the limit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [0.9, 1.2, 3.0])
async def test_a_key_around_its_limit_costs_less_than_a_call_for_ten_requests_of_four_processes(load: float) -> None:
    clock = Clock()
    store = CountedStore(clock)
    benches = [Bench(clock=clock, store=store) for _ in range(4)]
    principal = key(requests_per_minute=6000, tokens_per_minute=10_000_000)
    admitted, asked = 0, 0

    async def ask(bench: Bench) -> None:
        nonlocal admitted, asked
        asked += 1
        with suppress(LimitReached):
            one = await bench.limiter.admit(principal, "", MODEL)
            await one.reserve(100, 0.0)
            one.charge(60, 0.0)
            one.close()
            admitted += 1

    for _ in range(1200):
        clock.now += 0.1
        await asyncio.gather(*(ask(bench) for bench in benches for _ in range(round(load * 2.5))))
    assert min(0.98 * 12_000, asked) <= admitted <= 12_000
    assert 10 * store.calls <= asked
