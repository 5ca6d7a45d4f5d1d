"""Which requests have the same answer: canonical request -> key, scoped by tenant and by where it may be answered.

Deny unknown: every field of the body is part of the key, except those listed here that change only how the answer
travels. So a field that we do not know can make a miss, never a wrong hit.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

import msgspec

from isochrone.api.requests import EMBEDDING, Ask, encode

_ONLY_TRANSPORT = frozenset({"stream", "stream_options"})
_VERSION = 2
_canonical = msgspec.json.Encoder(order="deterministic").encode


def fingerprint(tenant: str, ask: Ask, *, regions: Collection[str] | None = None) -> str:
    """64 hex digits; equal exactly when tenant, operation, every meaningful field and `regions` are equal.

    `regions` are those where the request may be answered, None for anywhere: what was generated elsewhere is no answer
    for who must stay. Raises BadRequest.
    """
    fields = {name: value for name, value in ask.fields.items() if name not in _ONLY_TRANSPORT}
    where = None if regions is None else sorted(regions)
    return sha256(encode([_VERSION, tenant, where, ask.operation.name, fields], by=_canonical)).hexdigest()


def storable(ask: Ask, *, sampled: bool) -> bool:
    """May the answer to this request be kept? One prompt and one plain choice, no tools or log probabilities, and no
    wish for variety.

    An unset temperature is no such wish; one above 0 is, unless the operator says `sampled`.
    """
    fields = ask.fields
    if ask.operation is EMBEDDING:
        return True
    if ask.choices != 1 or fields.get("best_of") not in (None, 1):
        return False
    if any(_asked(fields.get(name)) for name in ("tools", "functions", "logprobs", "top_logprobs")):
        return False
    return sampled or not fields.get("temperature")


def _asked(value: Any) -> bool:
    return value not in (None, False, 0, [], {})
