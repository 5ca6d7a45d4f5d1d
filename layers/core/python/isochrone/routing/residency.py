"""Where a request may be answered: decided before health, load and price, and held to by everything after it.

Three may say it: the key (`[[key]] regions`), the model (`[[model]] regions`) and the caller (`x-isochrone-regions`).
What counts is where all of them agree, so that each can only narrow what the others allow.
"""

from __future__ import annotations

from collections.abc import Collection

from isochrone.api.errors import Forbidden

Regions = frozenset[str] | None
"""The regions that may see a request; None where nothing is said, and so anywhere."""


def eligible(key: Collection[str], model: Collection[str], asked: Collection[str] | None = None) -> Regions:
    """Where key, model and caller agree; an empty rule, or None, allows everywhere. Raises Forbidden."""
    regions = None
    for rule in (key, model, asked):
        regions = narrowed(regions, rule)
    if regions is not None and not regions:
        raise not_allowed(f"no region is in all of them: {_told(key, model, asked)}")
    return regions


def narrowed(regions: Regions, rule: Collection[str] | None) -> Regions:
    """`regions` as far as `rule` allows them, too."""
    if not rule:
        return regions
    return frozenset(rule) if regions is None else regions.intersection(rule)


def is_inside(region: str | None, regions: Regions) -> bool:
    """May what stands in `region` see the request? Who says of no region where it stands is outside every rule."""
    return regions is None or region in regions


def not_allowed(why: str) -> Forbidden:
    """The refusal, in one line."""
    return Forbidden(f"This request may be answered nowhere: {why}.", code="region_not_allowed")


def _told(key: Collection[str], model: Collection[str], asked: Collection[str] | None) -> str:
    rules = (("the key's regions", key), ("the model's", model), ("the caller's", asked))
    return "; ".join(f"{whose} are {', '.join(sorted(names))}" for whose, names in rules if names)
