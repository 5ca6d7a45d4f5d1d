"""One generating request on its way through the pipeline, and who asks it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from isochrone.admission.principal import Principal
from isochrone.answers.desk import Candidate
from isochrone.answers.inquiry import Inquiry
from isochrone.api.controls import Controls, Recovery
from isochrone.api.requests import Ask, without_stream
from isochrone.api.trail import Trail
from isochrone.ledger.entry import Entry
from isochrone.routing.geo import Location
from isochrone.routing.residency import Regions


class Caller(NamedTuple):
    """Who asks, and from where: `location` is None where the address says nothing."""

    principal: Principal
    address: str
    location: Location | None


class Admission(Protocol):
    """One admitted request's hold on what its caller may use (`admission.limits`)."""

    @property
    def is_counted(self) -> bool:
        """Does anything limit its tokens or its money?"""

    async def reserve(self, tokens: int, cost: float) -> None:
        """Before it is generated: take what it may use at most. Raises LimitReached."""

    def charge(self, tokens: int, cost: float) -> None:
        """An attempt used this, also one that ends after the request."""

    def close(self) -> None:
        """The request is over: give back what was reserved and not used."""

    def headers(self) -> Mapping[str, str]:
        """How much is left, for the caller."""


class Unlimited:
    """The admission of work that nobody's limits count."""

    is_counted = False

    async def reserve(self, tokens: int, cost: float) -> None:
        pass

    def charge(self, tokens: int, cost: float) -> None:
        pass

    def close(self) -> None:
        pass

    def headers(self) -> Mapping[str, str]:
        return {}


NOWHERE: frozenset[str] = frozenset()
Allowed = Mapping[str, Regions]
"""Where policies let models answer a request: None is anywhere, and so is a model that is not in it."""
_ANY: Allowed = MappingProxyType({})


class Permit(NamedTuple):
    """What the front door says of a request: what policies allow, whether nothing of it may be kept, its hold on what
    its caller may use, and where to note what becomes of it."""

    trail: Trail
    allowed: Allowed = _ANY
    is_private: bool = False
    admission: Admission = Unlimited()

    def apart(self, model: str) -> str:
        """What keeps its generations of `model` from callers who may have others in its place; "" where all may."""
        bound = [(name, sorted(regions)) for name, regions in self.allowed.items() if regions is not None]
        stand_ins = sorted(one for one in bound if one[0] != model)
        return f"~{blake2b(repr(stand_ins).encode(), digest_size=8).hexdigest()}" if stand_ins else ""


class Errand(NamedTuple):
    """One generating request on its way: `begun`, `ends_at` and `lasts_until` are on the event loop's clock.

    Who asks waits until `ends_at`; for work that nobody waits for, operator and platform leave until `lasts_until`.

    `candidate` is a known answer to a similar question, to be compared with the one that is generated; `follow` is the
    fingerprint of a similar one that is being answered now; `why_not` says why none of them is the answer. Nobody waits
    for the answer to a `refresh`.
    """

    ask: Ask
    caller: Caller
    regions: Regions
    request_id: str
    controls: Controls
    begun: float
    ends_at: float
    lasts_until: float
    inquiry: Inquiry
    permit: Permit
    candidate: Candidate | None = None
    follow: str | None = None
    why_not: str = ""
    refresh: bool = False

    def for_nobody(self) -> Errand:
        """The same one for the answer's own sake: who asked has had another one."""
        return self._replace(
            ask=without_stream(self.ask),
            controls=self.controls._replace(recovery=Recovery.SPLICE),
            ends_at=self.lasts_until,
            refresh=True,
        )

    def booked(self, entry: Entry) -> None:
        """One of its attempts has ended, with what it used."""
        used = (entry.input_tokens or 0), (entry.output_tokens or 0)
        self.permit.admission.charge(sum(used), entry.cost)
        trail = self.permit.trail
        if entry.outcome == "ok":
            trail.first_token_ms = entry.first_token_ms
        trail.booked(used, entry.cost, estimated=entry.usage_estimated)

    def asked(self) -> dict[str, Any] | None:
        """What it takes to ask it again with the rights that its key has then; None where it came with a token, whose
        subject may be a person's address and has no rights without it."""
        if self.caller.principal.kind == "token":
            return None
        regions = self.controls.regions
        return {
            "fields": self.ask.fields,
            "key": self.caller.principal.key_id,
            "regions": None if regions is None else sorted(regions),
        }
