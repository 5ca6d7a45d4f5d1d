"""What happens to the world while it is watched: scenarios by name, each with what goes wrong and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, NamedTuple

from isochrone.simulation.engine import Reply
from isochrone.simulation.traffic import Source
from isochrone.simulation.world import World, read_rows
from isochrone.upstream.failure import Cause

Trouble = Literal["down", "silent", "slow", "errors", "crowd"]
Replies = Callable[[float], Reply]

_MINUTE = 60.0
_HOUR = 3600.0
# A healthy official API: its mean in January 2025, before the outage (see data/README.md, 4).
_USUAL_SECONDS = 1.03
# How long it keeps a request before it answers with nothing when it is busy.
_EMPTY_AFTER_SECONDS = 60.0


class Incident(NamedTuple):
    """Trouble with one backend (or, for a crowd, at one edge), by number, for `lasts` seconds from `at`.

    `amount`: for "slow" the share of its speed that is left, for "errors" the share of requests that fail, for a
    "crowd" how many further requests come with each one.
    """

    at: float
    lasts: float
    trouble: Trouble
    where: int
    amount: float = 0.0


Incidents = Callable[[World], Iterator[Incident]]


class Scenario(NamedTuple):
    """One world, its traffic and its troubles; `told` is the line that `--help` has. `config` is a file in data/."""

    told: str
    incidents: Incidents
    config: str = "world.toml"
    source: Source = "azure"
    rate: float | None = None
    replay: bool = False
    policies: tuple[str, ...] = ("distance", "rtt", "round-robin", "least-load", "ours")


def _calm(world: World) -> Iterator[Incident]:
    return iter(())


def _each(period: float, *troubles: Incident) -> Incidents:
    """The troubles of one period again and again, each time with other pools. `where` counts on from the period's."""

    def incidents(world: World) -> Iterator[Incident]:
        pools = world.pools
        for number in count():
            for trouble in troubles:
                pool = pools[(number + trouble.where) % len(pools)]
                where = _edge_beside(world, pool) if trouble.trouble == "crowd" else pool
                yield trouble._replace(at=number * period + trouble.at, where=where)

    return incidents


def _edge_beside(world: World, backend: int) -> int:
    return min(range(len(world.edges)), key=lambda i: world.edges[i].ways[backend])


_DOWN = Incident(5 * _MINUTE, 10 * _MINUTE, "down", where=0)
_SLOW = Incident(20 * _MINUTE, 10 * _MINUTE, "slow", where=1, amount=0.25)
_ERRORS = Incident(35 * _MINUTE, 5 * _MINUTE, "errors", where=2, amount=0.5)
_SILENT = Incident(43 * _MINUTE, 5 * _MINUTE, "silent", where=3)
_CROWD = Incident(52 * _MINUTE, 5 * _MINUTE, "crowd", where=4, amount=0.5)

SCENARIOS: dict[str, Scenario] = {
    "bad-day": Scenario(
        "each hour: a pool down, one slow, one with errors, one silent, a crowd",
        _each(_HOUR, _DOWN, _SLOW, _ERRORS, _SILENT, _CROWD),
    ),
    "calm": Scenario("nothing goes wrong", _calm),
    "outage": Scenario("each half hour another pool is down for ten minutes", _each(_HOUR / 2, _DOWN)),
    "brownout": Scenario(
        "each hour a pool is slow, one gives errors, one is silent", _each(_HOUR, _SLOW, _ERRORS, _SILENT)
    ),
    "crowd": Scenario(
        "each half hour the load doubles for five minutes, all of it in one place",
        _each(_HOUR / 2, _CROWD._replace(at=10 * _MINUTE, where=0, amount=1.0)),
    ),
    "official-outage": Scenario(
        "the official API's outage of January 2025, one small own pool beside it",
        _calm,
        config="official.toml",
        source="azure-conv",
        rate=0.4,
        replay=True,
        policies=("api-alone", "api-three-times", "ours"),
    ),
}


def usual_replies(now: float) -> Reply:
    """An official API on a good day."""
    return Reply(_USUAL_SECONDS)


def replayed_replies() -> Replies:
    """The official API as a probe saw it from 28 January to 6 February 2025: each of its calls stands for a minute."""
    replies = [_reply(outcome, first_token_ms) for _, outcome, first_token_ms in read_rows("deepseek_outage.csv.gz")]

    def reply(now: float) -> Reply:
        return replies[int(now / _MINUTE) % len(replies)]

    return reply


def _reply(outcome: str, first_token_ms: str) -> Reply:
    if outcome == "ok":
        return Reply(float(first_token_ms) / 1000)
    return Reply(_EMPTY_AFTER_SECONDS, Cause.BROKEN) if outcome == "empty" else Reply(0.0, Cause.UNREACHABLE)
