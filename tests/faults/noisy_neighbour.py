"""A tenant that asks for ten times what there is, beside one that asks for little: what the second one notices.

    python -m tests.faults.noisy_neighbour                    # about two minutes
    python -m tests.faults.noisy_neighbour --seconds 30 --rounds 5

One edge in this process before one pool; every byte goes through a socket. The arrangements alternate, so that whatever
else the machine does meets all of them:

    alone       the quiet tenant alone
    beside      the noisy one keeps ten requests open for each place of the pool
    limited     the same, where the noisy tenant may have half of the places at once (its `concurrency`)
    one line    as "beside", but both have one tenant: first come, first served. What there would be without turns
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from random import Random
from statistics import median
from typing import Any

import aiohttp
from msgspec import Struct, field

from tests.faults.harness import backend, running_edge
from tests.upstream import Exchange, Script, Upstream, ok

PLACES = 32
# Of an answer, on average. No two take the same time: places that all come free at once would be no usual pool.
ANSWER_SECONDS = 0.5
QUIET_PER_SECOND = 8.0
# The noisy one waits so long after a refusal, whatever the reply says: it is noisy.
_AGAIN_SECONDS = 0.2
ARRANGEMENTS = ("alone", "beside", "limited", "one line")


class Report(Struct, kw_only=True):
    """`seconds` are those of the quiet tenant's answers; `statuses` and `noisy` count the replies of both."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    noisy: Counter[int] = field(default_factory=Counter)

    def add(self, other: Report) -> None:
        """Another run of the same arrangement."""
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.noisy += other.noisy

    @property
    def p50(self) -> float:
        """Seconds."""
        return median(self.seconds)

    @property
    def p99(self) -> float:
        """Seconds."""
        return sorted(self.seconds)[max(0, -(-len(self.seconds) * 99 // 100) - 1)]


class Load:
    """Both tenants' requests to one edge. A key is its tenant's name."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def ask(self, key: str) -> int:
        """The status of one answer, read to its end."""
        headers = {"authorization": f"Bearer {key}", "x-isochrone-cache": "no-store"}
        asked = {"model": "m", "messages": [{"role": "user", "content": "How far?"}]}
        async with self._session.post(self._url + "/v1/chat/completions", json=asked, headers=headers) as reply:
            await reply.read()
            return reply.status

    async def quiet(self, report: Report, seconds: float) -> None:
        """So many requests a second, whether the ones before were answered or not."""
        async with asyncio.TaskGroup() as asking:
            for _ in range(round(seconds * QUIET_PER_SECOND)):
                asking.create_task(self._time_one(report))
                await asyncio.sleep(1 / QUIET_PER_SECOND)

    async def _time_one(self, report: Report) -> None:
        begun = time.monotonic()
        status = await self.ask("quiet")
        report.statuses[status] += 1
        report.seconds.append(time.monotonic() - begun)

    async def noisy(self, report: Report) -> None:
        """One request after the other, until it is cancelled."""
        while True:
            status = await self.ask("noisy")
            report.noisy[status] += 1
            if status != 200:
                await asyncio.sleep(_AGAIN_SECONDS)


def _answering(chance: Random) -> Script:
    async def answer(exchange: Exchange) -> None:
        await asyncio.sleep(ANSWER_SECONDS * chance.uniform(0.5, 1.5))
        await ok(exchange)

    return answer


def _key(name: str, tenant: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "sha256": sha256(name.encode()).hexdigest(), "tenant": tenant, **more}


@asynccontextmanager
async def _load(arrangement: str) -> AsyncIterator[Load]:
    limit = {"concurrency": PLACES // 2} if arrangement == "limited" else {}
    keys = [_key("quiet", "quiet"), _key("noisy", "quiet" if arrangement == "one line" else "noisy", **limit)]
    patient = {"connect": 5.0, "first_token": 60.0, "stall": 60.0, "total": 60.0}
    async with Upstream() as pool:
        pool.scripts["pool"] = _answering(Random(1))
        facts = backend(pool, "pool", max_concurrency=PLACES)
        async with running_edge(
            facts, key=keys, auth={"required": True}, deadlines=patient, routing={"max_wait": 30.0, "probe_interval": 0}
        ) as edge:
            # The client's own queue must not be what is measured.
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                yield Load(edge.url, session)


async def run(arrangement: str, seconds: float) -> Report:
    """One run; the noisy one has begun long before the quiet one does."""
    report = Report()
    async with _load(arrangement) as load:
        noise = [] if arrangement == "alone" else [load.noisy(report) for _ in range(10 * PLACES)]
        tasks = [asyncio.create_task(one) for one in noise]
        await asyncio.sleep(2 * ANSWER_SECONDS)
        try:
            await load.quiet(report, seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return report


async def _main(only: Sequence[str], seconds: float, rounds: int) -> dict[str, Report]:
    reports = {arrangement: Report() for arrangement in only}
    for _ in range(rounds):
        for arrangement, report in reports.items():
            report.add(await run(arrangement, seconds))
    return reports


def main() -> int:
    """Print one line for each arrangement; exit status 1 when a quiet request was not answered."""
    parser = argparse.ArgumentParser(description="A tenant that asks for ten times what there is beside another.")
    parser.add_argument("--only", choices=ARRANGEMENTS, nargs="*", default=ARRANGEMENTS, help="default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one run (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each arrangement (default: 3)")
    args = parser.parse_args()
    reports = asyncio.run(_main(args.only, args.seconds, args.rounds))
    alone = reports.get("alone")
    for arrangement, report in reports.items():
        change = f" ({report.p99 / alone.p99 - 1:+.1%})" if alone and alone is not report else ""
        times = f"p50 {report.p50:.3f} s, p99 {report.p99:.3f} s{change}"
        print(f"{arrangement}: {times}, quiet {dict(report.statuses)}, noisy {dict(report.noisy)}", flush=True)
    kept = all(set(report.statuses) == {200} for name, report in reports.items() if name != "one line")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
