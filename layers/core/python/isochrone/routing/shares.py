"""What each tenant is due where there is not enough for all, and what its requests cost the others. Pure.

What is scarce is the time of places, so a request costs as much as the places of its tenant were held of late, beside
the usual: one whose answers take ten times as long has a tenth of the turns. Only what was measured counts. What a
caller says (`max_tokens`) could be wrong in its own favour, and tokens of a prompt hold a place for less than those of
an answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

# A mean follows what is new by so much; that of all requests more slowly than that of one tenant.
_OWN: Final = 0.1
_USUAL: Final = 0.02
# Whatever was measured, a request costs no less and no more than this beside the usual one.
_COSTS: Final = (1 / 32, 32.0)
_WEIGHTS: Final = (0.01, 100.0)
_MOST_TENANTS: Final = 1024


class Shares:
    """`weights` by tenant; 1 for any other."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = {tenant: _within(weight, _WEIGHTS) for tenant, weight in (weights or {}).items()}
        self._own: OrderedDict[str, float] = OrderedDict()
        self._usual: float | None = None

    def weight(self, tenant: str) -> float:
        """Its part beside one of weight 1, from 0.01 to 100."""
        return self._weights.get(tenant, 1.0)

    def cost(self, tenant: str) -> float:
        """Of one request of this tenant, in usual requests; 1 where nothing is known."""
        own = self._own.get(tenant)
        return _within(own / self._usual, _COSTS) if own and self._usual else 1.0

    def on_held(self, tenant: str, seconds: float) -> None:
        """A place was held for so long by a request of this tenant."""
        self._usual = _mean(self._usual, seconds, _USUAL)
        self._own[tenant] = _mean(self._own.get(tenant), seconds, _OWN)
        self._own.move_to_end(tenant)
        if len(self._own) > _MOST_TENANTS:
            self._own.popitem(last=False)


def _mean(before: float | None, seconds: float, part: float) -> float:
    return seconds if before is None else before + part * (seconds - before)


def _within(value: float, bounds: tuple[float, float]) -> float:
    least, most = bounds
    return min(max(value, least), most)
