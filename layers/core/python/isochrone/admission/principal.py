"""Who calls, as the rest of the way knows it: a key, a token or nobody in particular, and what it may."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from isochrone.admission.address import Network
from isochrone.settings import OwnAnswers, OwnLimits, PiiMode

Kind = Literal["key", "token", "anonymous"]
_NONE: Mapping[str, str] = MappingProxyType({})


class Principal(NamedTuple):
    """The caller and the tenant it belongs to. Empty `networks`, `models` and `regions` mean any.

    `key_id` names it in the ledger, the audit and its limits, and is None for who shows nothing. `expires` is in epoch
    seconds. Nothing of what a `private` one asks is kept or shared; `answers` is what it has of its own there.
    `priority` is the highest that is believed; `pii` is None where the configuration's mode holds.
    """

    key_id: str | None
    tenant: str
    networks: tuple[Network, ...] = ()
    regions: tuple[str, ...] = ()
    private: bool = False
    answers: OwnAnswers = OwnAnswers()
    kind: Kind = "key"
    subject: str | None = None
    owner: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = _NONE
    models: tuple[str, ...] = ()
    denied_networks: tuple[Network, ...] = ()
    limits: OwnLimits = OwnLimits()
    priority: int = 10
    expires: float | None = None
    pii: PiiMode | None = None


ANONYMOUS = Principal(None, "anonymous", kind="anonymous")
