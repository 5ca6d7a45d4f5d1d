"""Two hundred callers in four processes race for one limit, and nobody gets more than there is.

    python -m tests.faults.limits_race                     # on MiniStack's DynamoDB, about two minutes
    python -m tests.faults.limits_race --seconds 10 --requests 300 --kill
    python -m tests.faults.limits_race --store memory      # four limiters in this process, whose replies get lost

What each process was granted is written down by window, as the limiter itself assigned it. A process that is killed
(`--kill`) takes with it what it had at hand, and what it wrote down until then counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from uuid import uuid4

from msgspec import Struct, field
from msgspec.structs import replace

from isochrone.admission.limits.admitted import Hold, Step
from isochrone.admission.principal import Principal
from isochrone.api.errors import LimitReached
from isochrone.background import Background
from isochrone.limits_wiring import build_limiter
from isochrone.settings import Backend, OwnLimits, Region, Service, Settings, table_name
from isochrone.stores.dynamodb.client import Timeouts, connect
from isochrone.stores.dynamodb.fleet import DynamoFleetStore
from isochrone.stores.dynamodb.tables import create_tables
from isochrone.stores.memory import MemoryFleetStore
from isochrone.stores.protocols import FleetStore, StoreUnavailable, Taken

REGION = "eu-west-1"
PROCESSES = 4
_RESERVED, _USED = 100, 60
# The emulator shares this machine with all callers; what is tested is not its speed.
_PATIENT = Timeouts(connect=10, total=30)


class Race(Struct):
    """What is raced for, by whom and for how long. `endpoint` is empty for a store in memory."""

    endpoint: str = ""
    service: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")
    requests: int = 600
    tokens: int = 40_000
    callers: int = 200
    seconds: float = 5.0
    seed: int = 1


class Report(Struct):
    """What came of it: by window, requests that were admitted and tokens that were used of what was reserved."""

    race: Race
    requests: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    admitted: int = 0
    refused: int = 0
    calls: int = 0
    alone: int = 0
    waits_ms: list[float] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """What another process did."""
        self.requests.update(other.requests)
        self.tokens.update(other.tokens)
        self.admitted += other.admitted
        self.refused += other.refused
        self.calls += other.calls
        self.alone += other.alone
        self.waits_ms += other.waits_ms

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        found = [f"window {w}: {n} requests of {self.race.requests}" for w, n in self.requests.items()
                 if n > self.race.requests]  # fmt: skip
        found += [f"window {w}: {n} tokens of {self.race.tokens}" for w, n in self.tokens.items()
                  if n > self.race.tokens]  # fmt: skip
        return found + (["the table was given up, so processes counted alone"] if self.alone else [])

    def lines(self) -> list[str]:
        """For people."""
        asked = self.admitted + self.refused
        waits = sorted(self.waits_ms) or [0.0]
        return [
            f"{asked} requests of {self.race.callers} callers in {PROCESSES} processes, {self.race.seconds:g} s",
            f"admitted {self.admitted} of {self.race.requests} a minute: {dict(self.requests)}",
            f"tokens used of {self.race.tokens} a minute: {dict(self.tokens)}",
            f"{self.calls} calls of the table: one for {asked / max(1, self.calls):.1f} requests, "
            f"one for {self.admitted / max(1, self.calls):.1f} that were admitted",
            f"admitting took {waits[len(waits) // 2]:.2f} ms (median), {waits[len(waits) * 99 // 100]:.1f} ms (p99)",
            *(f"FAULT: {fault}" for fault in self.faults),
        ]


class LossyStore(MemoryFleetStore):
    """A store in memory that takes its time, and of whose replies some get lost."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance

    async def take(
        self,
        name: str,
        amounts: Mapping[str, float],
        *,
        most: Mapping[str, float],
        expires: float,
        drop: Collection[str] = (),
    ) -> Taken:
        await asyncio.sleep(0.002 * self._chance.random())
        taken = await super().take(name, amounts, most=most, expires=expires, drop=drop)
        await asyncio.sleep(0.002 * self._chance.random())
        if self._chance.random() < 0.02:
            raise StoreUnavailable("the reply got lost")
        return taken


class Process:
    """One of the four: its limiter and what it was granted."""

    def __init__(self, race: Race, store: FleetStore) -> None:
        settings = _settings(race)
        self.race = race
        self.report = Report(race)
        self.limiter = build_limiter(
            settings, REGION, store, None, Background(), holder=lambda: uuid4().hex, count=lambda name: None
        )
        self._table = self.limiter._tables.own
        self._table.patience = 20.0
        self._take = self.limiter.take
        self.limiter.take = self._written_down  # type: ignore[method-assign]

    async def _written_down(self, steps: Sequence[Step]) -> list[tuple[Step, list[Hold]]]:
        taken = await self._take(steps)
        for hold in (hold for _, holds in taken for hold in holds):
            if hold.quota.kind.unit == "request":
                self.report.requests[hold.window] += 1
            else:
                self.report.tokens[hold.window] += _USED
        return taken

    async def run(self, until: float) -> Report:
        """All callers of this process, until then (epoch seconds)."""
        callers = self.race.callers // PROCESSES
        await asyncio.gather(*(self._call(until) for _ in range(callers)))
        self.report.calls = self._table.calls
        self.report.alone = int(self._table.is_alone)
        return self.report

    async def _call(self, until: float) -> None:
        principal = Principal("raced-for", "t", limits=_limits(self.race))
        while time.time() < until:
            begun = time.perf_counter()
            try:
                await self._generate(principal)
                self.report.admitted += 1
            except LimitReached:
                self.report.refused += 1
            self.report.waits_ms.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.02)

    async def _generate(self, principal: Principal) -> None:
        admitted = await self.limiter.admit(principal, "", None)
        try:
            await admitted.reserve(_RESERVED, 0.0)
            admitted.charge(_USED, 0.0)
        finally:
            admitted.close()


def _limits(race: Race) -> OwnLimits:
    return OwnLimits(requests_per_minute=race.requests, tokens_per_minute=race.tokens)


def _settings(race: Race) -> Settings:
    return Settings(
        service=Service(name=race.service),
        region=(Region(name=REGION),),
        backend=(Backend(name="b", base_url="http://127.0.0.1:1/v1", models={"m": "m"}),),
    )


async def race_in_memory(race: Race) -> Report:
    """Four limiters over one store in this process."""
    store = LossyStore(Random(race.seed))
    processes = [Process(race, store) for _ in range(PROCESSES)]
    for process in processes:
        process._table.failed = lambda why: None  # type: ignore[method-assign]
    until = time.time() + race.seconds
    report = Report(race)
    for one in await asyncio.gather(*(process.run(until) for process in processes)):
        report.add(one)
    return report


async def race_on(race: Race, *, kill: bool = False) -> Report:
    """Four real processes over DynamoDB at `race.endpoint`; with `kill` one of them dies half way."""
    async with connect(REGION, endpoint_url=race.endpoint, timeouts=_PATIENT, environ={}) as client:
        await create_tables(client, _settings(race), lambda line: None)
    with TemporaryDirectory() as folder:
        begin = time.time() + 3.0
        files = [Path(folder) / f"{number}.json" for number in range(PROCESSES)]
        workers = [await _start(race, begin, file) for file in files]
        if kill:
            await asyncio.sleep(begin + race.seconds / 2 - time.time())
            os.kill(workers[0].pid, signal.SIGKILL)
        await asyncio.wait_for(asyncio.gather(*(worker.wait() for worker in workers)), race.seconds + 60)
        report = Report(race)
        for file in files:
            if file.exists():
                report.add(_read(file))
    return report


async def _start(race: Race, begin: float, file: Path) -> asyncio.subprocess.Process:
    work = json.dumps({"race": _plain(race), "begin": begin, "file": str(file)})
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.faults.limits_race", "--worker", work)


def _plain(race: Race) -> dict[str, object]:
    return {name: getattr(race, name) for name in race.__struct_fields__}


def _read(file: Path) -> Report:
    data = json.loads(file.read_text())
    race = Race(**data.pop("race"))
    requests, tokens = ({int(w): n for w, n in data.pop(name).items()} for name in ("requests", "tokens"))
    return Report(race, requests=Counter(requests), tokens=Counter(tokens), **data)


async def work(race: Race, begin: float, file: Path) -> None:
    """What a worker process does."""
    async with connect(REGION, endpoint_url=race.endpoint, timeouts=_PATIENT, environ={}) as client:
        process = Process(race, DynamoFleetStore(client, table_name(_settings(race), "fleet")))
        await asyncio.sleep(max(0.0, begin - time.time()))
        writing = asyncio.create_task(_write_now_and_then(process.report, file))
        await process.run(begin + race.seconds)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        _write(process.report, file)


async def _write_now_and_then(report: Report, file: Path) -> None:
    while True:
        await asyncio.sleep(0.2)
        _write(report, file)


def _write(report: Report, file: Path) -> None:
    data = {name: getattr(report, name) for name in report.__struct_fields__} | {"race": _plain(report.race)}
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps(data))
    draft.replace(file)


def _race_alone(race: Race, *, kill: bool) -> Report:
    """On a MiniStack of its own."""
    from tests.conftest import free_port, running_ministack

    with TemporaryDirectory() as folder, running_ministack(free_port(), Path(folder) / "cloud.log") as cloud:
        return asyncio.run(race_on(replace(race, endpoint=cloud), kill=kill))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["dynamodb", "memory"], default="dynamodb")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--requests", type=int, default=600, help="a minute")
    parser.add_argument("--tokens", type=int, default=40_000, help="a minute")
    parser.add_argument("--callers", type=int, default=200)
    parser.add_argument("--kill", action="store_true", help="kill one process half way")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        orders = json.loads(options.worker)
        asyncio.run(work(Race(**orders["race"]), orders["begin"], Path(orders["file"])))
        return 0
    race = Race(requests=options.requests, tokens=options.tokens, callers=options.callers, seconds=options.seconds)
    report = asyncio.run(race_in_memory(race)) if options.store == "memory" else _race_alone(race, kill=options.kill)
    print("\n".join(report.lines()))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(_main())
