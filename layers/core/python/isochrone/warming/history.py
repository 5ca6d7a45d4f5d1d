"""What was asked for: the repeats of the roll-ups, and from the ledger the asks that nobody could answer yet.

The roll-ups say how often a known answer was given, by the hour. An answer that had expired each time it was asked for
is in the ledger only, as an attempt that wanted it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from isochrone.ledger.demand import KEEP_DAYS, asked_since
from isochrone.ledger.rollups import DAY, HOUR
from isochrone.stores.protocols import LedgerStore, RollupStore

# Attempts in the name of this program: they are no demand.
OWN_REQUESTS = "warm-"
# Of each tenant, the newest; about 2 MB to read.
ATTEMPTS = 5_000

# One day's hours say little of another's: it is as if there had been so many days with an even load.
_EVEN_DAYS = 2.0

Name = tuple[str, str]
"""Tenant and mark of an answer."""

Hours = dict[int, float]
"""Asks by hour, counted from the epoch."""


class History(NamedTuple):
    """`asks` of each answer by hour (counted from the epoch); `load` is all that was asked for by hour of the day, and
    a little of an even load, the more the fewer days there were."""

    asks: dict[Name, Hours]
    load: list[float]


async def history(rollups: RollupStore, ledger: LedgerStore, tenants: Iterable[str], *, now: float) -> History:
    """Of the last four weeks, and of the ledger no more than its newest entries. Raises StoreUnavailable."""
    asks: dict[Name, Hours] = defaultdict(_no_hours)
    unnamed = _no_hours()
    for name, hours in (await asked_since(rollups, now - (KEEP_DAYS - 1) * DAY, now=now)).items():
        _add(asks[name], hours)
    for tenant in tenants:
        for entry in await ledger.recent(tenant, limit=ATTEMPTS):
            if entry["outcome"] == "ok" and not entry["request_id"].startswith(OWN_REQUESTS):
                mark = entry.get("answer")
                _add(asks[tenant, mark] if mark else unnamed, {int(entry["started_at"] // HOUR): 1.0})
    return History(dict(asks), _load_of([*asks.values(), unnamed]))


def _no_hours() -> Hours:
    return defaultdict(float)


def _add(into: Hours, hours: Hours) -> None:
    for hour, count in hours.items():
        into[hour] += count


def _load_of(series: Iterable[Hours]) -> list[float]:
    every = _no_hours()
    for hours in series:
        _add(every, hours)
    days = len({hour // 24 for hour in every})
    even = sum(every.values()) / 24 * _EVEN_DAYS / max(1, days)
    load = [even] * 24
    for hour, count in every.items():
        load[hour % 24] += count
    return load
