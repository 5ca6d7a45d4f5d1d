"""Limits beside their promises, for any order of events: processes with wrong clocks, lost replies, crashes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from isochrone.admission.limits.quota import REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, Keep, Kind, Quota
from isochrone.admission.limits.sheet import Asking, Need, Sheet
from isochrone.stores.protocols import Taken

START = 1_800_000_000.0
WHO = (0, 1, 2)
who = st.sampled_from(WHO)
skews = st.sampled_from((-90.0, -1.0, 0.0, 1.0, 90.0))


@dataclass
class Call:
    """On its way to the table; `reply` once it has been there."""

    asking: Asking
    reply: Taken | None = None


@dataclass
class Process:
    """`skew` is what its clock is wrong by; the first reply tells it."""

    sheet: Sheet
    skew: float
    call: Call | None = None
    spent: list[tuple[Quota, float, int]] = field(default_factory=list)

    def turn_to(self, now: float) -> float:
        self.sheet.turn_to(now + self.skew)
        return now + self.skew


class Table:
    """The counters of one item."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)

    def take(self, asking: Asking) -> Taken:
        after = {counter: self.sums[counter] + amount for counter, amount in asking.amounts.items()}
        done = all(after[counter] <= bound for counter, bound in asking.most.items())
        if done:
            self.sums.update(after)
            for counter in asking.drop:
                self.sums.pop(counter, None)
        return Taken(done, dict(self.sums))


class LimitsMachine(RuleBasedStateMachine):
    """The model: what was really used in each window, by processes alive and dead."""

    @initialize(requests=st.integers(1, 40), tokens=st.integers(10, 4000), skews=st.tuples(skews, skews, skews))
    def begin(self, requests: int, tokens: int, skews: tuple[float, ...]) -> None:
        self.now = START
        self.table = Table()
        self.limits: dict[Kind, float] = {REQUESTS_PER_MINUTE: requests, TOKENS_PER_MINUTE: tokens}
        self.used: dict[tuple[str, int], float] = defaultdict(float)
        self.processes = [self._born(skew) for skew in skews]

    def _born(self, skew: float) -> Process:
        return Process(Sheet(self.limits, self.now + skew), skew)

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 17.3, 59.0, 61.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=who, part=st.floats(0.01, 1.0), unit=st.sampled_from((0, 1)), others=st.integers(0, 20))
    def somebody_wants(self, at: int, part: float, unit: int, others: int) -> None:
        process = self.processes[at]
        now = process.turn_to(self.now)
        quota = process.sheet.quotas[unit]
        need = Need(quota, 1.0 if unit == 0 else max(1.0, float(round(part * quota.limit))))
        if self._spend(process, need, now) or process.call:
            return
        quota.waiting = need.amount + (others if unit == 0 else 0)
        asking = process.sheet.asking([need], now)
        quota.waiting = 0.0
        process.call = Call(asking) if asking else None

    def _spend(self, process: Process, need: Need, now: float) -> bool:
        quota, amount = need
        if quota.at_hand(now) < amount:
            return False
        window = quota.spend(amount, now)
        process.spent.append((quota, amount, window))
        self.used[quota.kind.code, window] += amount
        return True

    @rule(at=who, part=st.floats(0, 1))
    def something_is_refunded(self, at: int, part: float) -> None:
        process = self.processes[at]
        process.turn_to(self.now)
        if process.spent:
            quota, amount, window = process.spent.pop(int(part * (len(process.spent) - 1)))
            back = float(round(part * amount))
            quota.refund(back, window)
            self.used[quota.kind.code, window] -= back

    @rule(at=who, keep=st.sampled_from(Keep))
    def what_is_not_needed_goes_back(self, at: int, keep: Keep) -> None:
        process = self.processes[at]
        now = process.turn_to(self.now)
        if not process.call and (asking := process.sheet.surplus(now, keep)):
            process.call = Call(asking)

    @rule(at=who)
    def a_call_gets_there(self, at: int) -> None:
        call = self.processes[at].call
        if call and call.reply is None:
            call.reply = self.table.take(call.asking)

    @rule(at=who)
    def a_reply_comes_back(self, at: int) -> None:
        self.a_call_gets_there(at)
        process = self.processes[at]
        if process.call and process.call.reply:
            process.skew = 0.0
            now = process.turn_to(self.now)
            process.sheet.heard(process.call.asking, process.call.reply.done, process.call.reply.sums, now)
            process.call = None

    @rule(at=who)
    def a_call_or_its_reply_is_lost(self, at: int) -> None:
        process = self.processes[at]
        if process.call:
            process.turn_to(self.now)
            process.sheet.lost(process.call.asking)
            process.call = None

    @rule(at=who)
    def a_call_is_turned_away(self, at: int) -> None:
        process = self.processes[at]
        if process.call and process.call.reply is None:
            process.turn_to(self.now)
            process.sheet.turned_away(process.call.asking)
            process.call = None

    @rule(at=who, skew=skews)
    def a_process_dies_and_another_begins(self, at: int, skew: float) -> None:
        if (call := self.processes[at].call) and call.reply is None:
            self.table.take(call.asking)
        self.processes[at] = self._born(skew)

    # -- what holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def never_more_is_used_than_the_limit(self) -> None:
        for kind, limit in getattr(self, "limits", {}).items():
            window = kind.period.window(self.now)
            for number in range(window.number - 4, window.number + 3):
                assert self.used[kind.code, number] <= limit + 1e-3
            before = self.used[kind.code, window.number - 1] * (window.end - self.now) / window.seconds
            assert self.used[kind.code, window.number] + before <= limit + 1e-3

    @invariant()
    def nothing_is_used_that_the_counter_does_not_know(self) -> None:
        if not hasattr(self, "limits"):
            return
        for kind in self.limits:
            number = kind.period.window(self.now).number
            assert self.used[kind.code, number] <= self.table.sums[f"{kind.code}/{number}"] + 1e-3

    def teardown(self) -> None:
        """Some minutes later nothing is lost any more: one process can use exactly the limit."""
        if not hasattr(self, "limits"):
            return
        self.now = (self.now // 60 + 5) * 60 + 1.0
        process = self._born(0.0)
        quota = process.sheet.quotas[0]
        for _ in range(3 * int(quota.limit) + 8):
            need = Need(quota, 1.0)
            if not self._spend(process, need, self.now) and (asking := process.sheet.asking([need], self.now)):
                reply = self.table.take(asking)
                process.sheet.heard(asking, reply.done, reply.sums, self.now)
        assert self.used[quota.kind.code, quota.window.number] == quota.limit


TestLimits = LimitsMachine.TestCase
TestLimits.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
