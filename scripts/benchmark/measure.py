"""What is measured, and how: every figure beside the same load sent straight to the backend, in turns, in one run.

At low load the server, the backend and the load share one core: one request at a time is under way, so they do not
compete, and no wake-up of another core (70 us to 3 ms on a small virtual machine) is charged to the server. At its
limit the server has a core to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

from msgspec import Struct

from benchmark.arena import Arena, Load, Say, Series, Server, Target
from benchmark.contestants import Contestant
from benchmark.machine import cpu_seconds, memory

WARMUP_SECONDS = 0.5
LIMIT_WARMUP_SECONDS = 1.0
BODY_RATE, STREAM_RATE = 50, 20
LIMIT_CONNECTIONS = 32
STREAMS = (256, 1000)
# A level that was served this well is no limit yet.
_SERVED_SHARE = 0.95
_FIRST_TOKEN_US, _GAP_US, _TOKENS = 10_000, 5_000, 50


class Plan(NamedTuple):
    """How often, and how long (seconds) each block of load is."""

    rounds: int
    low: float
    limit: float


class Added(Struct):
    """Microseconds that a server adds to direct access; medians over the rounds."""

    p50: float
    p99: float


class Row(Struct, kw_only=True):
    """One contestant. None where something was not measured; `note` says what it is, or why it is left out."""

    name: str
    note: str
    body: Added | None = None
    cpu_us: float | None = None
    first_token: Added | None = None
    token: Added | None = None
    requests_per_s: float | None = None
    requests_of_direct: float | None = None
    events_per_s: float | None = None
    events_of_direct: float | None = None
    streams: int | None = None
    rss_idle_mb: float | None = None
    rss_peak_mb: float | None = None
    wrong: int = 0


class Trial(NamedTuple):
    """A contestant that runs, and how it is measured."""

    arena: Arena
    server: Server
    target: Target
    plan: Plan


class Block(NamedTuple):
    """One block of load on a server; `cpu` is the seconds that the server used, warm-up included."""

    load: Load
    cpu: float


class Pair(NamedTuple):
    """The same load on a server and on the backend itself."""

    served: Block
    direct: Load


def measure(arena: Arena, contestant: Contestant, plan: Plan, say: Say) -> Row:
    """One row. Raises BenchError when the contestant cannot run."""
    row = Row(name=contestant.name, note=contestant.note)
    launch = contestant.launch(arena.folder, arena.mock_port)
    say(f"{contestant.name}: starting")
    server = arena.start(contestant.name, launch.command, core=arena.cores.load, environ=launch.environ)
    try:
        arena.wait_until_it_completes(server, launch.target, launch.patience)
        row.rss_idle_mb = memory(server.pid).now
        trial = Trial(arena, server, launch.target, plan)
        say(f"{contestant.name}: low load")
        with arena.awake():
            (_low_load_known if contestant.known else _low_load)(trial, row)
        say(f"{contestant.name}: as much as it can")
        arena.move(server, arena.cores.server)
        _request_limit(trial, row)
        if not contestant.known:
            _stream_limit(trial, row)
        row.rss_peak_mb = memory(server.pid).peak
    finally:
        arena.end(server)
    return row


def measure_direct(arena: Arena, plan: Plan) -> Row:
    """What the load and the mock backend can do on the core that they share: no server can show more."""
    row = Row(name="direct", note="the load straight to the mock backend, both on one core")
    trial = Trial(arena, arena.mock, arena.direct, plan)
    _request_limit(trial, row)
    _stream_limit(trial, row)
    return row


def _low_load(trial: Trial, row: Row) -> None:
    trial.arena.configure(first_token_us=0, gap_us=0, tokens=32, body_us=5_000)
    bodies = _pairs(trial, "--connections", 8, "--rate", BODY_RATE)
    trial.arena.configure(first_token_us=20_000, gap_us=_GAP_US, tokens=32)
    streams = _pairs(trial, "--connections", 16, "--rate", STREAM_RATE, "--stream")
    row.body = _added(bodies, lambda load: load.latency)
    row.cpu_us = median(_cpu_us(pair.served, trial.plan) for pair in bodies)
    row.first_token = _added(streams, lambda load: load.first_token)
    row.token = _added(streams, lambda load: load.token_delay)
    row.wrong += sum(pair.served.load.wrong for pair in (*bodies, *streams))


def _low_load_known(trial: Trial, row: Row) -> None:
    """Its own times, since no backend is asked."""
    trial.arena.configure(first_token_us=0, gap_us=0, tokens=32, body_us=0)
    flags = ("--connections", 8, "--rate", BODY_RATE)
    bodies = [_block(trial, *flags) for _ in range(trial.plan.rounds)]
    streams = [_block(trial, *flags, "--stream") for _ in range(trial.plan.rounds)]
    row.body = _own(block.load.latency for block in bodies)
    row.cpu_us = median(_cpu_us(block, trial.plan) for block in bodies)
    row.first_token = _own(block.load.first_token for block in streams)
    row.wrong += sum(block.load.wrong for block in (*bodies, *streams))


def _pairs(trial: Trial, *flags: str | float) -> list[Pair]:
    """The order changes from round to round, so that no one is always second."""
    pairs = []
    for number in range(trial.plan.rounds):
        first = None if number % 2 else _direct(trial, *flags)
        served = _block(trial, *flags)
        pairs.append(Pair(served, first or _direct(trial, *flags)))
    return pairs


def _block(trial: Trial, *flags: str | float) -> Block:
    before = cpu_seconds(trial.server.pid)
    load = trial.arena.load(trial.target, *flags, "--warmup", WARMUP_SECONDS, seconds=trial.plan.low)
    return Block(load, cpu_seconds(trial.server.pid) - before)


def _direct(trial: Trial, *flags: str | float) -> Load:
    return trial.arena.load(trial.arena.direct, *flags, "--warmup", WARMUP_SECONDS, seconds=trial.plan.low)


def _added(pairs: Sequence[Pair], of: Callable[[Load], Series]) -> Added:
    return Added(
        p50=median(of(pair.served.load).p50 - of(pair.direct).p50 for pair in pairs),
        p99=median(of(pair.served.load).p99 - of(pair.direct).p99 for pair in pairs),
    )


def _own(times: Iterable[Series]) -> Added:
    kept = list(times)
    return Added(p50=median(series.p50 for series in kept), p99=median(series.p99 for series in kept))


def _cpu_us(block: Block, plan: Plan) -> float:
    """Per request, those of the warm-up included."""
    requests = block.load.answered * (plan.low + WARMUP_SECONDS) / plan.low
    return block.cpu / max(1.0, requests) * 1e6


def _request_limit(trial: Trial, row: Row) -> None:
    trial.arena.configure(first_token_us=0, gap_us=0, tokens=32, body_us=0)
    limits = _limits(trial, LIMIT_CONNECTIONS)
    row.requests_per_s = median(served.requests_per_second for served, _ in limits)
    row.requests_of_direct = median(
        served.requests_per_second / direct.requests_per_second for served, direct in limits
    )
    row.wrong += sum(served.wrong for served, _ in limits)


def _stream_limit(trial: Trial, row: Row) -> None:
    """More streams until they are more than it can serve; the best level counts."""
    trial.arena.configure(first_token_us=_FIRST_TOKEN_US, gap_us=_GAP_US, tokens=_TOKENS)
    for streams in STREAMS:
        limits = _limits(trial, streams, "--stream")
        row.wrong += sum(served.wrong for served, _ in limits)
        events = median(served.tokens_per_second for served, _ in limits)
        if row.events_per_s is None or events > row.events_per_s:
            row.events_per_s, row.streams = events, streams
            row.events_of_direct = median(
                served.tokens_per_second / direct.tokens_per_second for served, direct in limits
            )
        if events < _SERVED_SHARE * offered(streams):
            return


def offered(streams: int) -> float:
    """Events a second that so many streams offer when nothing holds them up."""
    return streams * _TOKENS / (_FIRST_TOKEN_US + (_TOKENS - 1) * _GAP_US) * 1e6


def _limits(trial: Trial, connections: int, *flags: str) -> list[tuple[Load, Load]]:
    """(served, direct) a round."""
    options = ("--connections", str(connections), "--warmup", str(LIMIT_WARMUP_SECONDS), *flags)
    seconds = trial.plan.limit
    return [
        (
            trial.arena.load(trial.target, *options, seconds=seconds),
            trial.arena.load(trial.arena.direct, *options, seconds=seconds),
        )
        for _ in range(trial.plan.rounds)
    ]
