"""What is asked again and again: hourly counts of answers that were known when they were asked for.

They are the history from which warming foresees demand. A process counts at most `MAX_COUNTED` answers and hours
between two flushes, and tells the `AT_ONCE` most asked for in each; the others wait, and go on counting. So memory and
writes are bounded, and what is popular is never among what is not counted for long.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import nlargest

from isochrone.ledger.rollups import DAY, HOUR, Sums, Teller, date_of, no_sums
from isochrone.stores.protocols import RollupStore

PARTITION = "asked#"
KEEP_DAYS = 28
# About 2 MB.
MAX_COUNTED = 5_000
AT_ONCE = 100


class Demand:
    """The counts of one edge. Where nothing is warmed (`wanted` is False) nothing is counted."""

    def __init__(self, store: RollupStore, *, wanted: bool) -> None:
        self._teller = Teller(store)
        self._wanted = wanted
        self._counts: dict[tuple[int, str, str], int] = {}

    def asked(self, tenant: str, mark: str, now: float) -> None:
        """The answer `mark` of the tenant was known, and given, at `now` (epoch seconds)."""
        if not self._wanted:
            return
        name = (int(now // HOUR), tenant, mark)
        count = self._counts.get(name)
        if count is not None or len(self._counts) < MAX_COUNTED:
            self._counts[name] = (count or 0) + 1

    async def flush(self) -> None:
        """Tell the roll-ups of the most asked for, one write for each answer and day; the others wait."""
        for (day, tenant, mark), hours in self._most_asked().items():
            expires = (day + KEEP_DAYS) * DAY
            if not await self._teller.tell(PARTITION + date_of(day), f"{tenant}#{mark}", hours, expires=expires):
                return
            self._settle(day, tenant, mark, hours)

    def _most_asked(self) -> dict[tuple[int, str, str], Sums]:
        found: dict[tuple[int, str, str], Sums] = defaultdict(no_sums)
        for hour, tenant, mark in nlargest(AT_ONCE, self._counts, key=self._counts.__getitem__):
            day, of_day = divmod(hour, 24)
            found[day, tenant, mark][f"{of_day:02}"] += self._counts[hour, tenant, mark]
        return found

    def _settle(self, day: int, tenant: str, mark: str, told: Sums) -> None:
        """Take off what was told; more may have been asked meanwhile."""
        for of_day, count in told.items():
            name = (day * 24 + int(of_day), tenant, mark)
            left = self._counts.pop(name, 0) - int(count)
            if left > 0:
                self._counts[name] = left


async def asked_since(store: RollupStore, since: float, *, now: float) -> dict[tuple[str, str], dict[int, float]]:
    """Asks by (tenant, mark) and hour (counted from the epoch), from the day of `since` on. Raises StoreUnavailable."""
    series: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for day in range(int(since // DAY), int(now // DAY) + 1):
        for key, hours in (await store.sums(PARTITION + date_of(day), now=now)).items():
            tenant, _, mark = key.rpartition("#")
            series[tenant, mark] |= {day * 24 + int(of_day): count for of_day, count in hours.items()}
    return dict(series)
