"""Many requests through one edge whose backends fail at random, and what must hold for each and after all.

    python -m tests.faults.chaos --runs 10000             # as many requests
    python -m tests.faults.chaos --minutes 10 --kills     # a soak, with backends that die and come back

For each request: no truncated answer is shown as a success, and it ends in time. After all: no connection, task, slot
or trial is left. The same seed draws the same faults; which request meets which depends on time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random

from msgspec import Struct, field

from tests.faults.harness import REGIONS, Answer, RunningEdge, eventually, running_edge
from tests.upstream import (
    AFTER_THE_FIRST_TOKEN,
    BEFORE_THE_FIRST_TOKEN,
    SCRIPTS,
    TEXT,
    Exchange,
    Upstream,
    completion,
    ending,
    words,
)

BACKENDS = 4
HANG_SECONDS = 20.0
GROWTH = 2
_OTHER = ("Quite ", "another ", "answer ", "altogether.")
_OTHER_TEXT = "".join(_OTHER)
_SOUND = ("ok", "blank-lines", "without-done", "only-done", "crlf", "cr", "byte-order-mark", "split-emoji", "one-chunk")
_FAULTS = (*BEFORE_THE_FIRST_TOKEN, *AFTER_THE_FIRST_TOKEN, "failing-once", "filtered", "context-length")
# What these say is no rest of a text, so whoever is asked to go on from one does not say it.
_SAYING_SOMETHING = frozenset({*AFTER_THE_FIRST_TOKEN, "failing-once", "filtered"})
_HONEST_STATUSES = frozenset({400, 429, 502, 503, 504})


class Tally(Struct, kw_only=True):
    """What came of the requests. `lies` are answers that were shown as whole and are not."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lies: list[str] = field(default_factory=list)
    hangs: int = 0
    left_over: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Nothing happened that must not."""
        return not self.lies and not self.hangs and all(count <= GROWTH for count in self.left_over.values())


async def other_answer(exchange: Exchange) -> None:
    """A sound answer, and not the one that the other backends give."""
    if exchange.wants_stream:
        await exchange.stream([*words(_OTHER), *ending(exchange)])
    else:
        await exchange.json(completion({"content": _OTHER_TEXT}))


async def rest_of_the_answer(exchange: Exchange) -> None:
    """What a backend says that is asked to go on from the last message's text."""
    told = exchange.received.fields["messages"][-1]["content"]
    whole = next(text for text in (TEXT, _OTHER_TEXT) if text.startswith(told))
    rest = list(whole.removeprefix(told))
    await exchange.stream([*words(rest), *ending(exchange)])


class Chaos:
    """Backends that fail at random, the edge in front of them, and clients that behave at random."""

    def __init__(self, edge: RunningEdge, upstreams: list[Upstream], chance: Random) -> None:
        self.tally = Tally()
        self._edge = edge
        self._upstreams = upstreams
        self._chance = chance
        self._down: set[int] = set()

    async def one(self) -> None:
        """One request, and the verdict on its reply."""
        chance = self._chance
        headers = {"x-isochrone-cache": "no-store", "x-isochrone-priority": str(chance.randint(1, 10))}
        if recovery := chance.choice(("", "splice", "restart", "error")):
            headers["x-isochrone-recovery"] = recovery
        if chance.random() < 0.1:
            headers["x-isochrone-timeout"] = f"{chance.uniform(0.05, 1):.2f}"
        leaves = chance.random() < 0.1
        stream = chance.random() < 0.7
        try:
            async with asyncio.timeout(HANG_SECONDS):
                if leaves:
                    await self._leave(stream, headers, after=chance.uniform(0, 0.3))
                    return
                answer = await self._edge.chat(stream=stream, headers=headers)
        except TimeoutError:
            self.tally.hangs += 1
            return
        self._judge(answer)

    async def _leave(self, stream: bool, headers: dict[str, str], *, after: float) -> None:
        """A client that goes away at any moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(after):
                await self._edge.chat(stream=stream, headers=headers)
        self.tally.outcomes["left"] += 1

    def _judge(self, answer: Answer) -> None:
        if answer.status != 200:
            honest = answer.status in _HONEST_STATUSES and bool(answer.error["message"])
            self._count(f"refused {answer.status}" if honest else "", answer)
            return
        if "event-stream" not in answer.headers["content-type"]:
            self._count("whole body" if _is_whole(answer) else "", answer)
            return
        failed = any("error" in chunk for chunk in answer.chunks)
        ended = answer.events[-1:] == [b"[DONE]"]
        if failed:
            self._count("" if ended else "error in band", answer)
        else:
            self._count("whole stream" if ended and _is_whole(answer) else "", answer)

    def _count(self, outcome: str, answer: Answer) -> None:
        if not outcome:
            self.tally.lies.append(f"{answer.status} {answer.body[-300:]!r}")
        self.tally.outcomes[outcome or "LIE"] += 1

    async def kill_and_revive(self, every: float) -> None:
        """Backends die and come back, never all at once, until cancelled."""
        while True:
            await asyncio.sleep(self._chance.uniform(0, 2 * every))
            number = self._chance.randrange(BACKENDS)
            if number in self._down:
                await self._upstreams[number].start()
                self._down.remove(number)
            elif len(self._down) < BACKENDS - 1:
                await self._upstreams[number].stop()
                self._down.add(number)

    async def revive_all(self) -> None:
        """Every backend is there again."""
        for number in self._down:
            await self._upstreams[number].start()
        self._down.clear()

    async def settle(self, tasks_before: int) -> None:
        """The clients go; wait until all is quiet. What stays is left over."""
        await self._edge.session.close()
        fleet = self._edge.edge.pipeline.rooms.fleet

        def counts() -> dict[str, int]:
            return {
                "tasks": max(0, len(asyncio.all_tasks()) - tasks_before),
                "connections": sum(upstream.open_connections for upstream in self._upstreams),
                "in flight": sum(state.in_flight for state in fleet.states),
            }

        with suppress(TimeoutError):
            await eventually(lambda: not any(counts().values()), within=15)
        self.tally.left_over = counts()


def _is_whole(answer: Answer) -> bool:
    """The text, or the last one that was begun anew; or what a content filter left of one."""
    if "event-stream" not in answer.headers["content-type"]:
        choice = answer.fields["choices"][0]
        return _is_one_text(choice["message"]["content"], choice["finish_reason"])
    text, reason = "", None
    for chunk in answer.chunks:
        text = "" if chunk.get("isochrone", {}).get("restarted") else text
        for choice in chunk.get("choices", ()):
            text += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    return _is_one_text(text, reason)


def _is_one_text(text: str, reason: str | None) -> bool:
    return text in (TEXT, _OTHER_TEXT) or (reason == "content_filter" and TEXT.startswith(text))


def _chaotic(chance: Random) -> Callable[[Exchange], Awaitable[None]]:
    async def script(exchange: Exchange) -> None:
        draw, goes_on = chance.random(), exchange.received.fields["messages"][-1]["role"] == "assistant"
        sound, faults = (_SOUND, _FAULTS) if exchange.wants_stream else (("ok",), BEFORE_THE_FIRST_TOKEN)
        fault = chance.choice(faults)
        if goes_on and (draw < 0.6 or fault in _SAYING_SOMETHING):
            await rest_of_the_answer(exchange)
        elif draw < 0.02:
            await other_answer(exchange)
        else:
            await SCRIPTS[chance.choice(sound) if draw < 0.6 else fault](exchange)

    return script


@asynccontextmanager
async def chaos(seed: int) -> AsyncIterator[Chaos]:
    """An edge over failing backends: three pools and an API."""
    chance = Random(seed)
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(Upstream()) for _ in range(BACKENDS)]
        for upstream in upstreams:
            upstream.gate.set()
            upstream.scripts["chaos"] = _chaotic(chance)
        facts = [
            {"name": f"pool-{place}", "region": region, "base_url": upstream.base_url, "prefill": place == 1}
            for place, (region, upstream) in enumerate(zip(REGIONS, upstreams, strict=False))
        ]
        facts.append({"name": "api", "kind": "api", "base_url": upstreams[-1].base_url})
        backends = [{**fact, "models": {"m": "chaos"}, "max_concurrency": 64} for fact in facts]
        deadlines = {"connect": 0.5, "first_token": 0.25, "stall": 0.25, "total": 5.0}
        edge = await stack.enter_async_context(
            running_edge(*backends, deadlines=deadlines, routing={"probe_interval": 0.5, "max_wait": 1.0})
        )
        yield Chaos(edge, upstreams, chance)


async def run(
    *, seed: int, runs: int, minutes: float, concurrency: int, kills: bool, progress: Callable[[str], None]
) -> Tally:
    """`runs` requests, or as many as fit into `minutes`."""
    async with chaos(seed) as storm:
        tasks_before, begun = len(asyncio.all_tasks()), time.monotonic()
        left = iter(range(runs)) if runs else iter(int, 1)

        async def client() -> None:
            for number in left:
                if minutes and time.monotonic() - begun > minutes * 60:
                    return
                await storm.one()
                if number and number % 1000 == 0:
                    progress(f"{number} requests, {time.monotonic() - begun:.0f} s")

        killing = asyncio.create_task(storm.kill_and_revive(every=2.0)) if kills else None
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(client())
        if killing:
            killing.cancel()
            with suppress(asyncio.CancelledError):
                await killing
            await storm.revive_all()
        await storm.settle(tasks_before)
        return storm.tally


def main() -> int:
    """Print what came of it; exit status 1 when something happened that must not."""
    parser = argparse.ArgumentParser(description="Random faults through one edge.")
    parser.add_argument("--runs", type=int, default=0, help="how many requests; default: as many as fit")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long; default: until all runs are done")
    parser.add_argument("--concurrency", type=int, default=50, help="requests at once (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--kills", action="store_true", help="backends die and come back meanwhile")
    args = parser.parse_args()
    if not args.runs and not args.minutes:
        parser.error("give --runs or --minutes")
    tally = asyncio.run(
        run(
            seed=args.seed,
            runs=args.runs,
            minutes=args.minutes,
            concurrency=args.concurrency,
            kills=args.kills,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    counts = {
        "requests": tally.outcomes.total(),
        "outcomes": dict(tally.outcomes.most_common()),
        "truncated answers shown as success": len(tally.lies),
        "hangs": tally.hangs,
        "left over": tally.left_over,
    }
    print(json.dumps(counts, indent=2))
    for lie in tally.lies[:5]:
        print(lie)
    return 0 if tally.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
