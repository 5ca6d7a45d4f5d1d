"""The nearest pool goes away for a while under load: who is answered, what it costs, and when it is used again.

    python -m tests.faults.outage                     # 60 s, 200 clients, two edges, for each way of going away
    python -m tests.faults.outage --how silent        # only that one

The edges and the pools run in this process; every byte goes through a socket. Half of the requests are streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

from msgspec import Struct, field

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import TEXT, Exchange, Script, Upstream, ok, refusal

WAYS = ("refused", "busy", "silent")
POOLS = 3
_BACK_AFTER = 3
_PATIENCE_SECONDS = 30.0


class Report(Struct, kw_only=True):
    """`back_after_s` is when the nearest pool answered again after its return, None if it never did."""

    how: str
    outage_s: float
    requests: int = 0
    answered: int = 0
    attempts: int = 0
    slowest_s: float = 0.0
    back_after_s: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def share_answered(self) -> float:
        """Of all requests, from before the outage until the end."""
        return self.answered / max(1, self.requests)

    @property
    def attempts_per_request(self) -> float:
        """Of all of them, those before and after the outage included."""
        return self.attempts / max(1, self.requests)


class Outage:
    """Clients that ask in turn, one half at each edge, and what they saw."""

    def __init__(self, edges: Sequence[RunningEdge], pools: Sequence[Upstream], how: str, chance: Random) -> None:
        self._edges = edges
        self._pools = pools
        self._how = how
        self._chance = chance
        self._away = False
        self._ended = asyncio.Event()
        self._returned_at: float | None = None
        self._nearest_again = 0

    async def run(self, *, clients: int, seconds: float, before: float, after: float) -> Report:
        """Load for `before` seconds, the outage, and load for `after` seconds."""
        report = Report(how=self._how, outage_s=seconds)
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(self._edges[number % len(self._edges)], report))
            await asyncio.sleep(before)
            await self._leave()
            await asyncio.sleep(seconds)
            await self._return()
            await asyncio.sleep(after)
            self._ended.set()
        report.attempts = sum(len(pool.requests) for pool in self._pools)
        return report

    def script(self, sound: Script) -> Script:
        """The nearest pool's."""
        silent = self._how == "silent"

        async def nearest(exchange: Exchange) -> None:
            if not self._away:
                await sound(exchange)
            elif silent:
                await exchange.client_gone()
                exchange.hang_up()
            else:
                await refusal(503, "overloaded")(exchange)

        return nearest

    async def _leave(self) -> None:
        self._away = True
        if self._how == "refused":
            await self._pools[0].stop()

    async def _return(self) -> None:
        if self._how == "refused":
            await self._pools[0].start()
        self._away = False
        self._returned_at = time.monotonic()

    async def _client(self, edge: RunningEdge, report: Report) -> None:
        while not self._ended.is_set():
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            begun = time.monotonic()
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._ask(edge, report)
            except TimeoutError:
                report.failures.append(f"no end within {_PATIENCE_SECONDS:g} s")
            report.requests += 1
            report.slowest_s = max(report.slowest_s, time.monotonic() - begun)

    async def _ask(self, edge: RunningEdge, report: Report) -> None:
        answer = await edge.chat(stream=self._chance.random() < 0.5, headers={"x-isochrone-cache": "no-store"})
        if answer.status == 200 and answer.text() == TEXT:
            report.answered += 1
            self._see_who(answer.headers["x-isochrone-backend"], report)
        else:
            report.failures.append(f"{answer.status} {answer.body[-200:]!r}")

    def _see_who(self, name: str, report: Report) -> None:
        if self._returned_at is None or name != "pool-0":
            return
        self._nearest_again += 1
        if self._nearest_again == _BACK_AFTER:
            report.back_after_s = round(time.monotonic() - self._returned_at, 1)


def sound(chance: Random) -> Script:
    """A sound answer after some tens of milliseconds, as from a small model that is near."""

    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(chance.uniform(0.02, 0.08))
        await ok(exchange)

    return script


async def suffer(
    how: str,
    *,
    clients: int,
    seconds: float,
    before: float,
    after: float,
    deadlines: dict[str, float],
    edges: int = 2,
    **sections: Any,
) -> Report:
    """One outage, with a fleet of its own."""
    chance = Random(1)
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(Upstream()) for _ in range(POOLS)]
        facts = [backend(pool, "chosen", place=place) for place, pool in enumerate(pools)]
        running = [
            await stack.enter_async_context(running_edge(*facts, deadlines=deadlines, **sections)) for _ in range(edges)
        ]
        outage = Outage(running, pools, how, chance)
        for pool in pools:
            pool.scripts["chosen"] = sound(chance)
        pools[0].scripts["chosen"] = outage.script(sound(chance))
        return await outage.run(clients=clients, seconds=seconds, before=before, after=after)


def main() -> int:
    """Print one line for each way; exit status 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description="An outage of the nearest pool under load.")
    parser.add_argument("--how", choices=WAYS, nargs="*", default=WAYS, help="default: all, one after the other")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the outage (default: 60)")
    parser.add_argument("--clients", type=int, default=200, help="at once, over two edges (default: 200)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    kept = True
    for how in args.how:
        print(f"{how}: about {args.seconds + 45:.0f} s...", file=sys.stderr, flush=True)
        report = asyncio.run(suffer(how, clients=args.clients, seconds=args.seconds, before=5, after=40, deadlines={}))
        kept = kept and _keeps_promises(report)
        _print(report, as_json=args.json)
    return 0 if kept else 1


def _keeps_promises(report: Report) -> bool:
    back = report.back_after_s is not None and report.back_after_s <= 30
    return report.share_answered >= 0.9997 and report.attempts_per_request <= 1.2 and back


def _print(report: Report, *, as_json: bool) -> None:
    facts = {
        "how": report.how,
        "requests": report.requests,
        "answered": round(report.share_answered, 6),
        "attempts_per_request": round(report.attempts_per_request, 3),
        "slowest_s": round(report.slowest_s, 2),
        "back_after_s": report.back_after_s,
        "failures": report.failures[:3],
    }
    print(json.dumps(facts) if as_json else "  ".join(f"{name} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    sys.exit(main())
