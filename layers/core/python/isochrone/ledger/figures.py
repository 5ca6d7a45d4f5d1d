"""What the sums of `isochrone.ledger.savings` say: hit ratio, time and money saved, and how often a hit was false.

Sums have flat names: `memory.hits`, `memory.seconds`..., `misses`, `same`, `different`, `unclear`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

TIERS = ("memory", "store", "semantic", "curated", "coalesced")
SAVED = ("seconds", "dollars", "tokens")
VERDICTS = ("same", "different", "unclear")
# Two-sided 95 %.
_Z = 1.959964


def interval(part: float, whole: float, *, z: float = _Z) -> tuple[float, float]:
    """Between which shares the true one lies, when `part` of `whole` were seen: Wilson's score interval (1927).

    Nothing seen says nothing: (0, 1).
    """
    if whole <= 0:
        return 0.0, 1.0
    share, weight = part / whole, z * z / whole
    middle = share + weight / 2
    reach = z * sqrt((share * (1 - share) + weight / 4) / whole)
    return max(0.0, (middle - reach) / (1 + weight)), min(1.0, (middle + reach) / (1 + weight))


def figures(sums: Mapping[str, float]) -> dict[str, Any]:
    """As plain data for JSON: `hit_ratio` is of the requests whose answer might have been known."""
    hits = {tier: sums.get(f"{tier}.hits", 0.0) for tier in TIERS}
    hit, missed = sum(hits.values()), sums.get("misses", 0.0)
    return {
        "requests": round(hit + missed),
        "hits": round(hit),
        "hit_ratio": _share(hit, hit + missed),
        **{f"{what}_saved": _total(sums, what) for what in SAVED},
        "tiers": {tier: _tier(sums, tier, hit + missed) for tier, count in hits.items() if count},
        "false_hits": false_hits(sums),
    }


def false_hits(sums: Mapping[str, float]) -> dict[str, Any]:
    """Semantic hits that were asked again in the background and compared, and the share of false ones among those that
    could be judged, with its 95 % interval; None where none was."""
    same, different, unclear = (sums.get(verdict, 0.0) for verdict in VERDICTS)
    judged = same + different
    low, high = interval(different, judged)
    return {
        "checked": round(judged + unclear),
        "judged": round(judged),
        "different": round(different),
        "rate": _share(different, judged),
        "low": round(low, 6) if judged else None,
        "high": round(high, 6) if judged else None,
    }


def _tier(sums: Mapping[str, float], tier: str, requests: float) -> dict[str, Any]:
    hits = sums.get(f"{tier}.hits", 0.0)
    saved = {f"{what}_saved": _rounded(sums.get(f"{tier}.{what}", 0.0)) for what in SAVED}
    return {"hits": round(hits), "ratio": _share(hits, requests), **saved}


def _total(sums: Mapping[str, float], what: str) -> float:
    return _rounded(sum(sums.get(f"{tier}.{what}", 0.0) for tier in TIERS))


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None


def _rounded(amount: float) -> float:
    return round(amount, 6)


def as_text(found: Mapping[str, Any]) -> str:
    """The figures of `figures` for an operator."""
    lines = [
        f"{found['hits']} of {found['requests']} answers were known ({_percent(found['hit_ratio'])})",
        f"saved: {found['seconds_saved']:.1f} s of waiting, ${found['dollars_saved']:.4f}, "
        f"{found['tokens_saved']:.0f} tokens",
    ]
    lines += [_tier_line(tier, one) for tier, one in found["tiers"].items()]
    return "\n".join([*lines, _false_line(found["false_hits"])])


def _tier_line(tier: str, one: Mapping[str, Any]) -> str:
    return (
        f"  {tier:10} {one['hits']:>9} {_percent(one['ratio']):>8}  {one['seconds_saved']:>12.1f} s  "
        f"${one['dollars_saved']:>11.4f}  {one['tokens_saved']:>12.0f} tokens"
    )


def _false_line(found: Mapping[str, Any]) -> str:
    if not found["judged"]:
        return "false semantic hits: none was judged"
    share = f"{_percent(found['rate'])}, with 95 % confidence {_percent(found['low'])} to {_percent(found['high'])}"
    return f"false semantic hits: {found['different']} of {found['judged']} judged ({share})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
