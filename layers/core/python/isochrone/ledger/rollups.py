"""Sums on their way to the roll-ups: gathered in memory, added to the store in the background.

A store that is slow or gone holds nobody up: its amounts wait, and grow, until it takes them. What a process that dies
had not told is lost; these are figures, the money is in the ledger's entries.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

from isochrone.stores.protocols import RollupStore, StoreUnavailable

log = logging.getLogger("isochrone.ledger")

HOUR = 3600
DAY = 86_400

Sums = dict[str, float]


def no_sums() -> Sums:
    """Sums to add to; all begin at zero."""
    return defaultdict(float)


def merge(into: Sums, amounts: Mapping[str, float]) -> None:
    """Add amounts to sums that `no_sums` made."""
    for name, amount in amounts.items():
        into[name] += amount


def date_of(day: int) -> str:
    """`2026-11-23`, of a day counted from the epoch (UTC)."""
    return f"{datetime.fromtimestamp(day * DAY, UTC):%Y-%m-%d}"


class Teller:
    """Adds sums to the store, and says once that it cannot."""

    def __init__(self, store: RollupStore) -> None:
        self._store = store
        self._is_alone = False

    async def tell(self, partition: str, key: str, amounts: Mapping[str, float], *, expires: float) -> bool:
        """Add the amounts; False when the store does not take them now. What it can never take is logged and lost."""
        try:
            await self._store.add(partition, key, amounts, expires=expires)
        except StoreUnavailable as error:
            if not self._is_alone:
                log.warning("roll-ups wait, the ledger's table is unavailable: %s", error)
            self._is_alone = True
            return False
        except ValueError as error:
            log.error("roll-up %s %s cannot be stored and is lost: %s", partition, key, error)
        self._is_alone = False
        return True
