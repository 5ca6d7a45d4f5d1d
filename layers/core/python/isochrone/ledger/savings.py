"""What known answers saved: counted in the process at the cost of a few additions, told to the roll-ups from time to
time.

A hit saves the seconds that generating the answer took, less those that the hit took; the dollars that it cost, and its
tokens. What a curated answer would have cost nobody knows: it counts as a hit that saved nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, Protocol

from isochrone.ledger.figures import SAVED, TIERS, VERDICTS, false_hits, figures
from isochrone.ledger.rollups import DAY, Sums, Teller, date_of, merge, no_sums
from isochrone.ledger.usage import usage_of
from isochrone.stores.protocols import RollupStore

PARTITION = "answers#"
CURATED = "curated"
KEEP_SECONDS = 400 * DAY
# Processes of one tenant take turns at so many items, none of which then takes all of their writes.
SHARDS = 8

Verdict = Literal["same", "different", "unclear"]


class Generated(Protocol):
    """What is asked of a known answer: seconds and dollars that its generation took, and its body."""

    @property
    def seconds(self) -> float: ...

    @property
    def cost(self) -> float: ...

    @property
    def body(self) -> dict[str, Any]: ...


class Savings:
    """The sums of one edge. `chance` gives numbers from 0 to 1; `now` is always epoch seconds."""

    def __init__(self, store: RollupStore, chance: Callable[[], float]) -> None:
        self._teller = Teller(store)
        self._chance = chance
        self._waiting: dict[tuple[str, int], Sums] = defaultdict(no_sums)
        self._of_tenant: dict[str, Sums] = defaultdict(no_sums)
        self._news = no_sums()

    def hit(self, tenant: str, tier: str, answer: Generated, *, took: float, now: float) -> None:
        """A request was answered by an answer of `tier` (one of `TIERS`), in `took` seconds."""
        tokens = None if tier == CURATED else usage_of(answer.body.get("usage"))[1]
        for sums in self._sums(tenant, now):
            sums[tier + ".hits"] += 1
            sums[tier + ".seconds"] += max(0.0, answer.seconds - took)
            sums[tier + ".dollars"] += answer.cost
            sums[tier + ".tokens"] += tokens or 0

    def miss(self, tenant: str, *, now: float) -> None:
        """An answer that might have been known was not."""
        self._count(tenant, "misses", now)

    def checked(self, tenant: str, verdict: Verdict, *, now: float) -> None:
        """A semantic hit was asked again in the background, and its answer compared with the one that was given."""
        self._count(tenant, verdict, now)

    def _count(self, tenant: str, name: str, now: float) -> None:
        for sums in self._sums(tenant, now):
            sums[name] += 1

    def _sums(self, tenant: str, now: float) -> tuple[Sums, Sums, Sums]:
        return self._waiting[tenant, int(now // DAY)], self._of_tenant[tenant], self._news

    def status(self, tenant: str | None) -> dict[str, Any]:
        """The figures of one tenant, or of all (None), since this process began."""
        return figures(self._of_tenant.get(tenant, {}) if tenant is not None else self._total())

    def _total(self) -> Sums:
        total = no_sums()
        for sums in self._of_tenant.values():
            merge(total, sums)
        return total

    def exposition(self) -> str:
        """For `GET /metrics` (Prometheus exposition format): all tenants, since this process began."""
        total = self._total()
        lines = [f'isochrone_answers_total{{tier="{tier}"}} {total.get(tier + ".hits", 0.0):g}' for tier in TIERS]
        lines.append(f"isochrone_answers_missed_total {total.get('misses', 0.0):g}")
        for what in SAVED:
            lines += [
                f'isochrone_answers_saved_{what}_total{{tier="{tier}"}} {total.get(f"{tier}.{what}", 0.0):.9g}'
                for tier in TIERS
            ]
        lines += [
            f'isochrone_answers_checked_total{{result="{verdict}"}} {total.get(verdict, 0.0):g}' for verdict in VERDICTS
        ]
        found = false_hits(total)
        lines += [
            f'isochrone_answers_false_hit_rate{{bound="{bound}"}} {found[bound]:g}'
            for bound in ("rate", "low", "high")
            if found[bound] is not None
        ]
        return "\n".join(lines) + "\n"

    def news(self) -> dict[str, float]:
        """What was added since the last call, by the names that CloudWatch knows; nothing that is zero."""
        news, self._news = self._news, no_sums()
        named = {f"Hits{tier.capitalize()}": news.get(f"{tier}.hits", 0.0) for tier in TIERS}
        named |= {f"{what.capitalize()}Saved": sum(news.get(f"{tier}.{what}", 0.0) for tier in TIERS) for what in SAVED}
        named |= {"Misses": news.get("misses", 0.0), "FalseHits": news.get("different", 0.0)}
        named["JudgedHits"] = news.get("same", 0.0) + named["FalseHits"]
        return {name: amount for name, amount in named.items() if amount}

    async def flush(self) -> None:
        """Tell the roll-ups; what the store does not take waits for the next time."""
        for whose_and_when in list(self._waiting):
            if not await self._tell(*whose_and_when):
                return

    async def _tell(self, tenant: str, day: int) -> bool:
        amounts = self._waiting.pop((tenant, day))
        key = f"{tenant}#{int(self._chance() * SHARDS)}"
        expires = (day + 1) * DAY + KEEP_SECONDS
        told = False
        try:
            told = await self._teller.tell(PARTITION + date_of(day), key, amounts, expires=expires)
        finally:  # also when nobody has time for it any more
            if not told:
                merge(self._waiting[tenant, day], amounts)
        return told


async def saved_since(store: RollupStore, since: float, *, now: float, tenant: str | None = None) -> dict[str, Sums]:
    """The sums of each tenant, or of one, from the day of `since` (UTC) until `now`. Raises StoreUnavailable."""
    found: dict[str, Sums] = defaultdict(no_sums)
    for day in range(int(since // DAY), int(now // DAY) + 1):
        for key, sums in (await store.sums(PARTITION + date_of(day), now=now)).items():
            whose = key.rpartition("#")[0]
            if tenant in (None, whose):
                merge(found[whose], sums)
    return dict(found)
