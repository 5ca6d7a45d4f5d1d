"""The front door while a table is throttled by half, answers two seconds late, hangs or is gone: who may ask is
answered, nobody else is, limits hold, nothing is forgotten, and soon after it is over all is as before.

    python -m tests.faults.brown_outs                        # everything, about thirteen minutes
    python -m tests.faults.brown_outs --only directory/gone fleet/slow --seconds 10

Two edges are processes that reach their tables through this one, where tables get into trouble. Callers and their
backend run here too, so that times are those of a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

from aiohttp import web
from msgspec import Struct, field

from isochrone.audit.reading import entries_of
from isochrone.audit.verification import Line, verify
from tests.faults.brown_out import EVERYTHING, FAR, TROUBLES, Trouble, Way, throttled
from tests.faults.brown_world import EDGES, GOOD, LIMIT, OFTEN, OUTSIDERS, RARELY, Told, World, edges_of, world_of

TABLES = ("directory", "answers", "fleet", FAR + "fleet", "ledger", "audit", EVERYTHING)
CASES = tuple(f"{table}/{trouble}" for table in TABLES for trouble in TROUBLES)
NO_TROUBLE = "none"

MOST_LATER_SECONDS = 3.0
RECOVERS_WITHIN_SECONDS = 10.0
LEAST_ANSWERED = 0.999
_LOOKS_FOR_SECONDS = 30.0
_EVERY_SECONDS = 0.25
_KNOWN = 20


class Row(Struct, kw_only=True):
    """What one trouble came to. Seconds of what is over count from its end, or from when it was done."""

    case: str
    told: list[Told] = field(default_factory=list)
    changed_at: float = 0.0
    ended_at: float = 0.0
    recovered: float = 0.0
    last: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unbooked: int = 0
    untold: int = 0
    met: int = 0

    def of(self, who: str) -> list[Told]:
        """What this caller was told; `*` at the end of a name stands for the case."""
        return [one for one in self.told if one.who == f"{who}-{self.case}"]

    @property
    def good(self) -> list[Told]:
        return [one for one in self.told if one.who in GOOD]

    @property
    def answered(self) -> float:
        """The part of those who may that got what they asked for."""
        return sum(one.right for one in self.good) / max(1, len(self.good))

    def at(self, quantile: float) -> float:
        """So long it took that part of them at most."""
        seconds = sorted(one.seconds for one in self.good) or [0.0]
        return seconds[min(len(seconds) - 1, int(len(seconds) * quantile))]

    @property
    def let_in(self) -> list[Told]:
        """Whoever must not be and was."""
        outside = [one for one in self.told if one.who in OUTSIDERS]
        return [one for one in outside if one.status not in (401, 403, 429, 503)]

    @property
    def outlived(self) -> float:
        """For how many seconds a key was still good after it was taken back, or what hid that was over."""
        good_at = [one.begun for one in self.of("victim") if one.status == 200]
        return max(0.0, *(at - self._over_at for at in good_at), 0.0)

    @property
    def _over_at(self) -> float:
        hides = self.case.startswith(("directory", EVERYTHING))
        return self.ended_at if hides else self.changed_at

    @property
    def admitted(self) -> int:
        """Of a key that asks more often than it may."""
        return sum(one.status == 200 for one in self.of("limited"))

    @property
    def most_admitted(self) -> float:
        """By a minute that slides: what was used at its beginning counts less and less. A day does not slide. Without
        its counters one process may use its part after the other one has used up all."""
        told = self.of("limited")
        seconds = max(one.ended for one in told) - min(one.begun for one in told) if told else 0.0
        minutes = 0.0 if self.case.startswith(FAR) else seconds / 60
        is_uncounted = "fleet" in self.case or self.case.startswith(EVERYTHING)
        return LIMIT * (1 + minutes + is_uncounted * (EDGES - 1) / EDGES)

    @property
    def faults(self) -> list[str]:
        """What must not be, however slow the machine is."""
        found = [f"{self.case}: {one.who} got {one.status} {one.error[:200]}" for one in self.let_in]
        if not self.met and self.case != NO_TROUBLE:
            found.append(f"{self.case}: nothing met it")
        if self.answered < LEAST_ANSWERED:
            wrong = next(one for one in self.good if not one.right)
            found.append(f"{self.case}: {self.answered:.2%} answered; {wrong.who}: {wrong.status} {wrong.error[:300]}")
        if self.admitted > self.most_admitted:
            found.append(f"{self.case}: {self.admitted} admitted of {self.most_admitted:.0f}")
        others = [one for one in self.of("limited") if one.status not in (200, 429)]
        found += [f"{self.case}: {one.who} got {one.status} {one.error[:300]}" for one in others[:1]]
        if self.missing:
            found.append(f"{self.case}: does not come back: {self.missing}")
        if self.unbooked or self.untold:
            found.append(f"{self.case}: {self.unbooked} not in the ledger, {self.untold} not in the audit log")
        return found

    def late(self, usual: float) -> list[str]:
        """What takes too long; `usual` is the p99 without trouble."""
        found = []
        if self.at(0.99) > usual + MOST_LATER_SECONDS:
            found.append(f"{self.case}: p99 {self.at(0.99):.2f} s, usually {usual:.2f} s")
        if self.outlived > RECOVERS_WITHIN_SECONDS:
            found.append(f"{self.case}: a key that was taken back was good for {self.outlived:.1f} s")
        if self.recovered > RECOVERS_WITHIN_SECONDS:
            found.append(f"{self.case}: all as before after {self.recovered:.1f} s, last: {self.last}")
        return found

    def line(self) -> str:
        """For people, one row of a table."""
        outsiders = sum(one.who in OUTSIDERS for one in self.told)
        return (
            f"| {self.case} | {self.met} | {self.answered:.2%} of {len(self.good)} "
            f"| {self.at(0.5):.2f} | {self.at(0.99):.2f} "
            f"| {len(self.let_in)} of {outsiders} | {self.outlived:.1f} | {self.admitted} of {self.most_admitted:.0f} "
            f"| {self.unbooked} | {self.untold} | {self.recovered:.1f} |"
        )


HEAD = (
    "| in trouble | calls | answered | p50 s | p99 s | let in | taken back, still good s | admitted of a limit "
    "| not in ledger | not in audit | all as before after s |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


# -- one case ----------------------------------------------------------------------------------------------------------


async def brown_out(world: World, case: str, chance: Random, *, seconds: float, rate: float) -> Row:
    """One table in one trouble, with `rate` requests a second for so many seconds."""
    row = Row(case=case)
    await _meet(world, case)
    begun, met = len(world.told), world.way.met
    table, _, trouble = case.partition("/")
    if case != NO_TROUBLE:
        world.way.begin(table, _by_chance(chance) if trouble == "throttled" else TROUBLES[trouble])
    asking = asyncio.create_task(_ask(world, case, chance, seconds=seconds, rate=rate))
    await asyncio.sleep(seconds / 3)
    row.changed_at = time.time()
    await _change(world, case)
    await asking
    world.way.end()
    row.ended_at = time.time()
    row.met = world.way.met - met
    row.last, row.missing = await _recover(world, case)
    row.recovered = time.time() - row.ended_at
    row.told = world.told[begun:]
    return row


def _by_chance(chance: Random) -> Trouble:
    """Throttled, half of the calls, whichever."""

    async def trouble(way: Way, request: web.Request, table: str) -> web.Response | None:
        way.calls[table] = int(chance.random() < 0.5)
        return await throttled(way, request, table)

    return trouble


async def _meet(world: World, case: str) -> None:
    """Every edge knows those whose fate changes meanwhile."""
    limit = "requests_per_day" if case.startswith(FAR) else "requests_per_minute"
    await world.make_key(f"limited-{case}", "good-c", **{limit: LIMIT})
    await world.make_key(f"victim-{case}", "good-c")
    await world.make_key(f"later-{case}", "good-c")
    who = [f"{name}-{case}" for name in ("limited", "victim", "later")] + list(GOOD)
    until = time.monotonic() + _LOOKS_FOR_SECONDS
    while told := [one for one in await world.ask_everywhere(who, uuid4().hex) if not one.right]:
        assert time.monotonic() < until, told


async def _change(world: World, case: str) -> None:
    """What an operator does in the middle of it."""
    await world.take_back(f"victim-{case}")
    await world.deny(f"later-{case}")
    await world.make_key(f"born-{case}", "good-c")


async def _ask(world: World, case: str, chance: Random, *, seconds: float, rate: float) -> None:
    until, asking = time.monotonic() + seconds, set[asyncio.Task[Told]]()
    while time.monotonic() < until:
        asking.add(asyncio.create_task(_ask_one(world, case, chance)))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*asking)


def _ask_one(world: World, case: str, chance: Random) -> Coroutine[Any, Any, Told]:
    """Most may ask; half of what they ask is known."""
    who = chance.choices(("often", "rarely", "limited", "victim", "outside"), (66, 4, 12, 4, 14))[0]
    groups = {"often": OFTEN, "rarely": RARELY, "outside": OUTSIDERS}
    name = chance.choice(groups.get(who, (f"{who}-{case}",)))
    question = f"known {chance.randrange(_KNOWN)}" if chance.random() < 0.5 else uuid4().hex
    return world.ask(name, question, edge=chance.randrange(EDGES), stream=chance.random() < 0.3)


# -- afterwards --------------------------------------------------------------------------------------------------------


async def _recover(world: World, case: str) -> tuple[list[str], list[str]]:
    """Waits until all is as before; gives what came last, and what did not come at all."""
    until, last = time.monotonic() + _LOOKS_FOR_SECONDS, list[str]()
    while missing := await _missing(world, case):
        if time.monotonic() > until:
            break
        last = missing
        await asyncio.sleep(_EVERY_SECONDS)
    return last, missing


async def _missing(world: World, case: str) -> list[str]:
    """What an edge cannot do that it usually can."""
    tests: dict[str, Callable[[], Awaitable[bool]]] = {
        "a new key": partial(_all_get, world, f"born-{case}", 200),
        "a key that was taken back": partial(_all_get, world, f"victim-{case}", 401),
        "a new policy": partial(_all_get, world, f"later-{case}", 403),
        "a known answer": partial(_is_shared, world),
        "limits, ledger and audit": partial(_is_settled, world, case),
    }
    return [name for name, is_well in tests.items() if not await is_well()]


async def _all_get(world: World, who: str, status: int) -> bool:
    return {one.status for one in await world.ask_everywhere([who], uuid4().hex)} == {status}


async def _is_shared(world: World) -> bool:
    question = uuid4().hex
    await world.ask("good-config", question, edge=0)
    await asyncio.sleep(_EVERY_SECONDS)  # the reply does not wait for the table
    return (await world.ask("good-config", question, edge=1)).cache == "hit"


async def _is_settled(world: World, case: str) -> bool:
    await world.ask_everywhere([f"limited-{case}"], uuid4().hex)
    status = await world.status()
    waiting = sum(one["ledger"]["waiting"] + one["audit"]["waiting"] for one in status)
    return waiting <= _ABOUT_NOW and all(one["limits"]["shared"] for one in status)


# What was asked just now is still on its way.
_ABOUT_NOW = 20


async def account(world: World, rows: Sequence[Row]) -> list[str]:
    """Compares the ledger and the audit log with what clients were told, once all edges have ended."""
    booked = Counter(entry["request_id"] for entry in await world.ledger.all())
    lines = [Line(f"record {number}", raw) for number, record in enumerate(world.way.delivered)
             for raw in record.splitlines()]  # fmt: skip
    audited = Counter(entry.request_id for entry in entries_of(lines))
    for row in rows:
        told = [one for one in row.told if one.request_id]
        row.unbooked = sum(booked[one.request_id] != one.attempts for one in told)
        row.untold = sum(audited[one.request_id] != 1 for one in told)
    calls, entries = len(world.upstream.requests), booked.total()
    found = [f"ledger: {entries} entries of {calls} calls"] if calls != entries else []
    return found + [f"audit: {finding.where}: {finding.what}" for finding in verify(lines).findings]


# -- the command -------------------------------------------------------------------------------------------------------


async def brown_outs(
    cases: Sequence[str], cloud: str, folder: Path, *, seconds: float, rate: float, say: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """A time without trouble, then every case; the rows, and what must not be but is."""
    chance = Random(1)
    rows = []
    async with world_of(cloud, folder) as world:
        async with edges_of(world):
            for case in (NO_TROUBLE, *cases):
                rows.append(await brown_out(world, case, chance, seconds=seconds, rate=rate))
                say(f"{rows[-1].line()} {rows[-1].last}")
        found = await account(world, rows)
    return rows, found + [fault for row in rows for fault in row.faults]


async def _main(cases: Sequence[str], seconds: float, rate: float) -> bool:
    from tests.conftest import free_port, running_ministack

    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory() as scratch, running_ministack(free_port(), Path(scratch) / "cloud.log") as cloud:
        rows, found = await brown_outs(cases, cloud, Path(scratch), seconds=seconds, rate=rate, say=say)
    found += [fault for row in rows for fault in row.late(usual=rows[0].at(0.99))]
    print(HEAD, *(row.line() for row in rows), *(f"FAULT: {fault}" for fault in found), sep="\n")
    return not found


def main() -> int:
    """Print a row for each case; exit status 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description="The front door while a table is in trouble.")
    parser.add_argument("--only", choices=CASES, nargs="*", default=CASES, metavar="TABLE/TROUBLE", help="default: all")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each trouble lasts (default: 20)")
    parser.add_argument("--rate", type=float, default=25.0, help="requests a second (default: 25)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped, however it ends
    return 0 if asyncio.run(_main(args.only, args.seconds, args.rate)) else 1


if __name__ == "__main__":
    sys.exit(main())
