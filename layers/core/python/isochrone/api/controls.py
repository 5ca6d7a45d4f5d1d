"""The caller's wishes, said in request headers: how to use the cache, how long to try, where, how urgently, under which
id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from math import isfinite
from typing import NamedTuple

from isochrone.api.errors import BadRequest

USUAL_PRIORITY = 5
_WELL_FORMED_REGION = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class CacheMode(Enum):
    """`NO_STORE` neither reads nor writes, `NO_CACHE` refreshes, `ONLY` never asks a backend."""

    USE = ""
    NO_STORE = "no-store"
    NO_CACHE = "no-cache"
    ONLY = "only"


class Recovery(Enum):
    """When a stream dies after its first token: join a new attempt to it (one that goes on with its text, or tells it
    again and agrees), begin anew with a mark, or only say so."""

    SPLICE = "splice"
    RESTART = "restart"
    ERROR = "error"


class Controls(NamedTuple):
    """`timeout` is seconds for the whole request, None for the configured one; `priority` is 1 (can wait) to 10;
    `regions` are those that may see the request, None for any."""

    request_id: str | None
    cache: CacheMode
    timeout: float | None
    recovery: Recovery
    priority: int = USUAL_PRIORITY
    regions: frozenset[str] | None = None


def controls_of(headers: Mapping[str, str]) -> Controls:
    """Read the headers. Raises BadRequest; an ill-formed request id is only ignored."""
    return Controls(
        request_id(headers.get("x-request-id")),
        _cache_mode(headers.get("x-isochrone-cache")),
        _timeout(headers.get("x-isochrone-timeout")),
        _recovery(headers.get("x-isochrone-recovery")),
        _priority(headers.get("x-isochrone-priority")),
        _regions(headers.get("x-isochrone-regions")),
    )


def request_id(value: str | None) -> str | None:
    """The caller's id when it is well-formed."""
    return value if value and _WELL_FORMED_ID.fullmatch(value) else None


def _cache_mode(value: str | None) -> CacheMode:
    if value is None:
        return CacheMode.USE
    try:
        return CacheMode(value.strip().lower())
    except ValueError:
        raise BadRequest(
            "Header x-isochrone-cache takes 'no-store', 'no-cache' or 'only'.", param="x-isochrone-cache"
        ) from None


def _timeout(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or seconds <= 0:
        raise BadRequest("Header x-isochrone-timeout takes seconds above 0.", param="x-isochrone-timeout")
    return seconds


def _recovery(value: str | None) -> Recovery:
    if not value:
        return Recovery.SPLICE
    try:
        return Recovery(value.strip().lower())
    except ValueError:
        raise BadRequest(
            "Header x-isochrone-recovery takes 'splice', 'restart' or 'error'.", param="x-isochrone-recovery"
        ) from None


def _priority(value: str | None) -> int:
    if value is None:
        return USUAL_PRIORITY
    if not re.fullmatch(r"\s*0*([1-9]|10)\s*", value, re.ASCII):
        raise BadRequest("Header x-isochrone-priority takes a whole number from 1 to 10.", param="x-isochrone-priority")
    return int(value)


def _regions(value: str | None) -> frozenset[str] | None:
    """An empty list is a mistake, not "anywhere": whoever sends the header means to keep the request somewhere."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if not all(_WELL_FORMED_REGION.fullmatch(name) for name in names):
        raise BadRequest(
            "Header x-isochrone-regions takes names of regions, separated by commas.", param="x-isochrone-regions"
        )
    return frozenset(names)
