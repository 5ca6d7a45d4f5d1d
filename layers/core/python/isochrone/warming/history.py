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

Name = tuple[str, str]
"""Tenant and mark of an answer."""


class History(NamedTuple):
    """`asks` of each answer by hour (counted from the epoch); `load` is all that was asked for by hour of the day."""

    asks: dict[Name, dict[int, float]]
    load: list[float]


async def history(rollups: RollupStore, ledger: LedgerStore, tenants: Iterable[str], *, now: float) -> History:
    """Of the last four weeks, and of the ledger no more than its newest entries. Raises StoreUnavailable."""
    asks: dict[Name, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for name, hours in (await asked_since(rollups, now - (KEEP_DAYS - 1) * DAY, now=now)).items():
        for hour, count in hours.items():
            asks[name][hour] += count
    load = [0.0] * 24
    for tenant in tenants:
        for entry in await ledger.recent(tenant, limit=ATTEMPTS):
            if entry["request_id"].startswith(OWN_REQUESTS) or entry["outcome"] != "ok":
                continue
            hour = int(entry["started_at"] // HOUR)
            if mark := entry.get("answer"):
                asks[tenant, mark][hour] += 1
            else:
                load[hour % 24] += 1
    for hours in asks.values():
        for hour, count in hours.items():
            load[hour % 24] += count
    return History({name: dict(hours) for name, hours in asks.items()}, load)
