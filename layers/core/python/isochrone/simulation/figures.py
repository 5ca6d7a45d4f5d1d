"""What is counted while a policy is watched, and what comes out."""

from __future__ import annotations

from array import array
from typing import NamedTuple

IN_TIME_SECONDS = 15.0
NODE_DOLLARS_PER_HOUR = 0.6
BUCKET_SECONDS = 60.0


class Figures(NamedTuple):
    """One policy in one scenario. Shares are of all requests; times are of those that were answered.

    `in_time_share`: answered, with the first token within IN_TIME_SECONDS. `regret_ms`: by how much the first choice's
    expected first token came after that of the pool that one who sees all queues would have taken. `api_share`:
    answered by an official API. `wasted_seconds`: spent with backends that failed, for each request.
    `dollars_per_1000`: official APIs and the nodes' hours, for 1,000 answers. `timeline`: by minute, the share
    answered in time. `ttft_curve`: its percentiles from 0 to 100.
    """

    policy: str
    requests: int
    answered_share: float
    in_time_share: float
    ttft_p50: float
    ttft_p95: float
    ttft_p99: float
    saturated_share: float
    failed_share: float
    attempts: float
    rtt_ms: float
    regret_ms: float
    api_share: float
    wasted_seconds: float
    dollars_per_1000: float
    hours: float
    timeline: tuple[float | None, ...]
    ttft_curve: tuple[float, ...]


class Sums:
    """Filled request by request."""

    def __init__(self) -> None:
        self.requests = self.attempts = self.saturated = self.failed = self.by_api = self.in_time = 0
        self.dollars = self.wasted = self.rtt = self.regret = 0.0
        self.regrets = 0
        self._ttft = array("d")
        self._asked: list[int] = []
        self._in_time: list[int] = []

    def asked(self, at: float) -> None:
        """A request came in."""
        self.requests += 1
        bucket = int(at / BUCKET_SECONDS)
        while len(self._asked) <= bucket:
            self._asked.append(0)
            self._in_time.append(0)
        self._asked[bucket] += 1

    def answered(self, at: float, *, ttft: float, rtt: float) -> None:
        """A request that came in at `at` has its whole answer."""
        self._ttft.append(ttft)
        self.rtt += rtt
        if ttft <= IN_TIME_SECONDS:
            self.in_time += 1
            self._in_time[int(at / BUCKET_SECONDS)] += 1

    def result(self, policy: str, *, seconds: float, nodes: int) -> Figures:
        """The figures, after so many seconds with so many nodes."""
        ttft = sorted(self._ttft)
        answered = max(1, len(ttft))
        requests = max(1, self.requests)
        hours = seconds / 3600
        return Figures(
            policy=policy,
            requests=self.requests,
            answered_share=len(ttft) / requests,
            in_time_share=self.in_time / requests,
            ttft_p50=_quantile(ttft, 0.5),
            ttft_p95=_quantile(ttft, 0.95),
            ttft_p99=_quantile(ttft, 0.99),
            saturated_share=self.saturated / requests,
            failed_share=self.failed / requests,
            attempts=self.attempts / requests,
            rtt_ms=1000 * self.rtt / answered,
            regret_ms=1000 * self.regret / max(1, self.regrets),
            api_share=self.by_api / requests,
            wasted_seconds=self.wasted / requests,
            dollars_per_1000=1000 * (self.dollars + nodes * hours * NODE_DOLLARS_PER_HOUR) / answered,
            hours=hours,
            timeline=tuple(
                good / all_of_them if all_of_them else None
                for good, all_of_them in zip(self._in_time, self._asked, strict=True)
            ),
            ttft_curve=tuple(_quantile(ttft, percent / 100) for percent in range(101)),
        )


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")
