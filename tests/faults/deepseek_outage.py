"""The outage of the DeepSeek API in January 2025, replayed as an official API with one small own pool beside it.

    python -m tests.faults.deepseek_outage              # twelve hours of it
    python -m tests.faults.deepseek_outage --hours 59   # all that was recorded

Each recorded call stands for one minute (isochrone/simulation/data: whose record it is). While the API was overloaded
it said 200, kept the connection open for 60 s, and then ended it without a word; what it did answer came late. The
same clients with the same requests, half of them streams, come to an edge that asks the API first, to one that asks
its pool first, and to two kinds of clients without an edge. Every byte goes through a socket; time is played
(tests/faults/played_time.py), so every deadline and every pause is the one that the edge has by default.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from random import Random
from typing import Any, NamedTuple

import aiohttp
from msgspec import Struct, field

from isochrone.simulation.world import read_rows
from tests.faults import played_time
from tests.faults.harness import REGIONS, Answer, RunningEdge, running_edge
from tests.upstream import KEEP_ALIVE, TEXT, Exchange, Upstream, completion, ending, words

MINUTE = 60.0
SLOTS = 8
_EMPTY_AFTER = 60.0
_LARGEST_BURST = 6
_API_TELLS = 4.0
# The first token and the rest of an answer of the pool, in seconds: a 7B model on a small GPU.
_POOL_READS, _POOL_TELLS = (0.4, 1.5), (3.0, 10.0)
_OPEN_SPREAD = 20.0


class Minute(NamedTuple):
    """What the API does in it: `ok` after so many seconds, `empty`, or `refused`."""

    outcome: str
    first_token: float


def tape(*, begin: float = 0.0, hours: float) -> list[Minute]:
    """The record from the hour `begin` on."""
    rows = [Minute(outcome, float(ms or 0) / 1000) for _, outcome, ms in read_rows("deepseek_outage.csv.gz")]
    return rows[int(begin * 60) : int((begin + hours) * 60)]


class Meter(Struct):
    """What a backend did for one party. Seconds are those that attempts held it; `wasted` are those of attempts that
    were not answered whole, and `answered_since` is when the others began."""

    attempts: int = 0
    seconds: float = 0.0
    wasted: float = 0.0
    busy: int = 0
    peak: int = 0
    answered_since: list[float] = field(default_factory=list)

    @contextmanager
    def attempt(self) -> Iterator[list[bool]]:
        """What is appended says that it was answered."""
        begun, answered = time.monotonic(), list[bool]()
        self.attempts += 1
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            yield answered
        finally:
            self.busy -= 1
            took = time.monotonic() - begun
            self.seconds += took
            if answered:
                self.answered_since.append(begun)
            else:
                self.wasted += took


class OfficialApi:
    """Plays the record to whoever asks; the last minute goes on."""

    def __init__(self, minutes: Sequence[Minute]) -> None:
        self.meter = Meter()
        self._minutes = minutes
        self._begun = time.monotonic()

    async def __call__(self, exchange: Exchange) -> None:
        number = int((time.monotonic() - self._begun) / MINUTE)
        minute = self._minutes[min(number, len(self._minutes) - 1)]
        with self.meter.attempt() as answered:
            if minute.outcome == "refused":
                exchange.hang_up()
            elif minute.outcome == "empty":
                await _keep_open(exchange, _EMPTY_AFTER)
                await exchange.end()
            else:
                await _keep_open(exchange, minute.first_token)
                await _answer(exchange, _API_TELLS)
                answered.append(True)


class OwnPool:
    """A sound pool of few slots."""

    def __init__(self, chance: Random) -> None:
        self.meter = Meter()
        self._chance = chance

    async def __call__(self, exchange: Exchange) -> None:
        with self.meter.attempt() as answered:
            await _keep_open(exchange, self._chance.uniform(*_POOL_READS))
            await _answer(exchange, self._chance.uniform(*_POOL_TELLS))
            answered.append(True)


async def _keep_open(exchange: Exchange, seconds: float) -> None:
    """A 200, and blank lines or comments from time to time. Raises ConnectionError when the client leaves."""
    exchange.backend.requests.clear()  # days of them are too many to keep
    exchange.chunked = True
    kind = "text/event-stream" if exchange.wants_stream else "application/json"
    await exchange.head(content_type=kind, transfer_encoding="chunked")
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await _listen(exchange, min(left, _OPEN_SPREAD))
        await exchange.send(KEEP_ALIVE if exchange.wants_stream else b"\n")


async def _answer(exchange: Exchange, seconds: float) -> None:
    """What comes after `_keep_open`: the first words of a stream at once, all else at its end."""
    if not exchange.wants_stream:
        await _listen(exchange, seconds)
        await exchange.send(json.dumps(completion()).encode())
    else:
        first, *rest = words()
        await exchange.send(first, rest[0])
        await _listen(exchange, seconds)
        await exchange.send(*rest[1:], *ending(exchange))
    await exchange.end()


async def _listen(exchange: Exchange, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await exchange.client_gone()
    except TimeoutError:
        return
    raise ConnectionResetError("the client left")


class Report(Struct, kw_only=True):
    """What became of one party's requests: the `seconds` that each answer took, and of each failure its status and
    words."""

    party: str
    requests: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    api: Meter = field(default_factory=Meter)
    pool: Meter = field(default_factory=Meter)

    @property
    def share_answered(self) -> float:
        """Of all its requests."""
        return len(self.seconds) / max(1, self.requests)

    @property
    def wasted(self) -> float:
        """Seconds of attempts that came to nothing, wherever they were."""
        return self.api.wasted + self.pool.wasted

    @property
    def refused(self) -> int:
        """Requests that were told that the fleet is full."""
        return sum(count for failure, count in self.failures.items() if failure.startswith("429"))

    def took(self, share: float) -> float:
        """Seconds after which this share of its answers had ended."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))] if self.seconds else 0.0

    async def take(self, asking: Awaitable[Answer]) -> None:
        """One request's outcome."""
        begun = time.monotonic()
        try:
            answer = await asking
            outcome = "" if _is_whole(answer) else f"{answer.status} {answer.body[-120:].decode(errors='replace')}"
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = f"{type(error).__name__} {error}"
        self.requests += 1
        if outcome:
            self.failures[outcome] += 1
        else:
            self.seconds.append(time.monotonic() - begun)


def _is_whole(answer: Answer) -> bool:
    return answer.status == 200 and bool(answer.body.strip()) and _said(answer) == TEXT


def _said(answer: Answer) -> str:
    """What it says; nothing when it is a stream without a word."""
    return answer.text() if b"choices" in answer.body else ""


Ask = Callable[[bool], Awaitable[Answer]]


class Party(NamedTuple):
    """Clients of one kind: how they ask, and what became of it."""

    report: Report
    ask: Ask


@asynccontextmanager
async def behind_an_edge(name: str, minutes: Sequence[Minute], **model: Any) -> AsyncIterator[Party]:
    """Clients of an edge whose configuration has this [[model]]."""
    report = Report(party=name)
    api, pool = OfficialApi(minutes), OwnPool(Random(2))
    report.api, report.pool = api.meter, pool.meter
    async with Upstream() as official, Upstream() as own:
        official.scripts["replayed"], own.scripts["sound"] = api, pool
        backends = (
            {"name": "official-api", "kind": "api", "base_url": official.base_url, "models": {"m": "replayed"}},
            {
                "name": "own-pool",
                "region": REGIONS[0],
                "base_url": own.base_url,
                "max_concurrency": SLOTS,
                "models": {"m": "sound"},
            },
        )
        sections: dict[str, Any] = {
            "deadlines": {},
            "routing": {"probe_interval": 30},
            "model": [{"name": "m", **model}],
        }
        async with running_edge(*backends, **sections) as edge:
            yield Party(report, _through(edge))


def _through(edge: RunningEdge) -> Ask:
    return lambda stream: edge.chat(stream=stream, headers={"x-isochrone-cache": "no-store"})


@asynccontextmanager
async def without_an_edge(name: str, minutes: Sequence[Minute], *, retries: int) -> AsyncIterator[Party]:
    """Clients that ask the API themselves, as patiently as it is slow, and again when they got nothing."""
    api = OfficialApi(minutes)
    no_limit = aiohttp.ClientTimeout(total=None)
    async with Upstream() as official, aiohttp.ClientSession(timeout=no_limit) as session:
        official.scripts["m"] = api

        async def ask(stream: bool) -> Answer:
            for _ in range(retries):
                with suppress(aiohttp.ClientError):
                    if _is_whole(answer := await _post(session, official.base_url, stream)):
                        return answer
            return await _post(session, official.base_url, stream)

        yield Party(Report(party=name, api=api.meter), ask)


async def _post(session: aiohttp.ClientSession, base_url: str, stream: bool) -> Answer:
    fields = {"model": "m", "messages": [{"role": "user", "content": "How far?"}], "stream": stream}
    async with session.post(f"{base_url}/chat/completions", json=fields) as response:
        headers = {"content-type": response.content_type}
        return Answer(status=response.status, headers=headers, body=await response.read())


async def replay(minutes: Sequence[Minute], *, per_minute: float, seed: int = 1) -> list[Report]:
    """The reports of all parties, in the order of PARTIES."""
    async with AsyncExitStack() as stack:
        parties = [
            await stack.enter_async_context(party)
            for party in (
                behind_an_edge("edge, API first", minutes, primary="api"),
                behind_an_edge("edge, pool first", minutes, primary="pool"),
                without_an_edge("no retry", minutes, retries=0),
                without_an_edge("three retries", minutes, retries=3),
            )
        ]
        async with asyncio.TaskGroup() as group:
            async for stream in _arrivals(len(minutes) * MINUTE, per_minute, Random(seed)):
                for party in parties:
                    group.create_task(party.report.take(party.ask(stream)))
    return [party.report for party in parties]


async def _arrivals(seconds: float, per_minute: float, chance: Random) -> AsyncIterator[bool]:
    """Waits for each request and says whether it is for a stream. They come in bursts, up to _LARGEST_BURST at once."""
    until = time.monotonic() + seconds
    bursts_per_second = per_minute / MINUTE / ((1 + _LARGEST_BURST) / 2)
    while time.monotonic() < until:
        await asyncio.sleep(chance.expovariate(bursts_per_second))
        for _ in range(chance.randint(1, _LARGEST_BURST)):
            yield chance.random() < 0.5


def keeps_promises(reports: Sequence[Report]) -> bool:
    """Both edges answer 99.9 %, waste little beside clients that retry, and never ask too much of the pool."""
    *edges, _, stubborn = reports
    return all(
        edge.share_answered >= 0.999 and edge.wasted <= 0.05 * stubborn.wasted and edge.pool.peak <= SLOTS
        for edge in edges
    )


def facts_of(report: Report, *, beside: Report) -> dict[str, Any]:
    """What is printed of it; its waste as a share of another's."""
    return {
        "party": report.party,
        "requests": report.requests,
        "answered": round(report.share_answered, 5),
        "refused_429": report.refused,
        "wasted_s": round(report.wasted),
        "of_three_retries": round(report.wasted / max(1.0, beside.wasted), 4),
        "api_attempts": report.api.attempts,
        "pool_attempts": report.pool.attempts,
        "pool_peak": report.pool.peak,
        "p50_s": round(report.took(0.5), 1),
        "p99_s": round(report.took(0.99), 1),
        "failures": dict(report.failures.most_common(3)),
    }


def main() -> int:
    """Print one line for each party; exit status 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description="The DeepSeek outage of January 2025, replayed.")
    parser.add_argument("--hours", type=float, default=12.0, help="of the record, a minute for each call (default: 12)")
    parser.add_argument("--begin", type=float, default=0.0, help="hour of the record to begin with (default: 0)")
    parser.add_argument("--per-minute", type=float, default=10.0, help="requests of each party (default: 10)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    minutes = tape(begin=args.begin, hours=args.hours)
    began = time.monotonic()
    reports = played_time.run(replay(minutes, per_minute=args.per_minute))
    print(f"{len(minutes)} minutes played in {time.monotonic() - began:.0f} s", file=sys.stderr)
    for report in reports:
        facts = facts_of(report, beside=reports[-1])
        print(json.dumps(facts) if args.json else "  ".join(f"{name} {value}" for name, value in facts.items()))
    return 0 if keeps_promises(reports) else 1


if __name__ == "__main__":
    sys.exit(main())
