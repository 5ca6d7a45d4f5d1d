"""The front door: who asks, what exactly, whether that is allowed, and how much of it. In this order, each step a
method that raises what is wrong:

    identify -> read -> authorize -> screen -> redact -> admit

What it learns on the way it notes on the request's trail, so that whatever was refused is remembered with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from isochrone.admission.address import AddressRule
from isochrone.admission.keys import KeyRing
from isochrone.api.errors import BodyTooLarge, Forbidden
from isochrone.api.exchange import Request
from isochrone.api.requests import Ask, Operation, parse
from isochrone.api.trail import Trail
from isochrone.errand import Admission, Caller, Unlimited
from isochrone.routing.geo import Locator
from isochrone.routing.residency import Regions
from isochrone.settings import Settings

Action = Literal["generate", "read", "revoke"]


class FrontDoor:
    """That of one edge. `now` gives epoch seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        address: AddressRule,
        keys: KeyRing,
        locator: Locator,
        now: Callable[[], float],
    ) -> None:
        self.keys = keys
        self._settings = settings
        self._address = address
        self._locator = locator
        self._now = now

    async def identify(self, request: Request) -> Caller:
        """Who, and where. Raises Unauthorized, Forbidden, KeysUnavailable, LimitReached."""
        trail = request.trail
        trail.address = address = self._address.client_address(
            request.peer, request.headers.get("x-forwarded-for"), trust_forwarded=request.trust_forwarded
        )
        location = self._locator.locate(address) if address else None
        trail.country = location.country if location else None
        principal = self.keys.identify(request.headers.get("authorization"), address)
        trail.key_id, trail.subject, trail.tenant, trail.kind = (
            principal.key_id,
            principal.subject,
            principal.tenant,
            principal.kind,
        )
        return Caller(principal, address, location)

    def read(self, operation: Operation, request: Request) -> Ask:
        """The checked request. Raises BadRequest and its kin."""
        limits = self._settings.limits
        if len(request.body) > limits.body_bytes:
            raise BodyTooLarge(f"The body is larger than {limits.body_bytes} bytes.")
        ask = parse(operation, request.body, request.headers.get("content-type"), max_messages=limits.messages)
        request.trail.model = ask.model
        return ask

    def authorize(
        self, caller: Caller, action: Action, trail: Trail, *, ask: Ask | None = None, regions: Collection[str] = ()
    ) -> Regions:
        """Where the rules allow it, of `regions`, None for anywhere. Raises Forbidden."""
        trail.action = action
        if ask and caller.principal.models and ask.model not in caller.principal.models:
            raise Forbidden(
                f"This key may not use the model {ask.model[:200]!r}.", code="model_not_allowed", param="model"
            )
        return None

    async def admit(self, caller: Caller, ask: Ask) -> Admission:
        """Its hold on what the caller may use. Raises LimitReached."""
        return Unlimited()
