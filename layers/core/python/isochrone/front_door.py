"""The front door: who asks, what exactly, whether that is allowed, and how much of it. In this order, each step a
method that raises what is wrong:

    identify -> read -> authorize -> obey rules -> admit -> redact -> moderate

What it learns on the way it notes on the request's trail, so that whatever was refused is remembered with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from isochrone.admission.address import AddressRule
from isochrone.admission.identity import Identity
from isochrone.admission.limits.forecast import Forecast
from isochrone.admission.limits.limiter import Limiter
from isochrone.admission.policies import Action, Asker, Decision
from isochrone.admission.principal import Principal
from isochrone.answers.inquiry import asked_last
from isochrone.api.errors import Forbidden, PoliciesUnavailable, Unauthorized
from isochrone.api.exchange import Reply, Request
from isochrone.api.requests import Ask, Operation, read
from isochrone.api.shape import Guard
from isochrone.api.trail import Trail
from isochrone.errand import NOWHERE, Admission, Allowed, Caller
from isochrone.ledger.usage import estimate_prompt
from isochrone.routing.geo import Location, Locator
from isochrone.routing.residency import Regions
from isochrone.settings import PiiMode, Settings

if TYPE_CHECKING:
    from isochrone.admission.content.screen import Screen
    from isochrone.pii.redactor import Redactor
    from isochrone.pii.vault import Vault

# What says how to generate, and nothing of what about: the audit may have it of everybody.
_TOLD = frozenset(
    ("stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "seed", "reasoning_effort")
)

_LONGEST_WORD = 20
_UNTIL_READ_AGAIN = 2.0


class Policies(Protocol):
    """The rules of who may do what (`admission.policies.shared`)."""

    @property
    def is_known(self) -> bool:
        """Are there rules to decide by?"""

    @property
    def asks_tokens(self) -> bool:
        """Does any rule go by how many tokens a request may use?"""

    async def refresh(self, *, max_age: float = ...) -> None:
        """Hear of those of the directory, if that is due. Never raises."""

    def decide(
        self,
        caller: Asker,
        action: Action,
        *,
        model: str | None = None,
        regions: frozenset[str] | None = None,
        tokens: int | None = None,
    ) -> Decision:
        """May it be done, now?"""

    def status(self) -> dict[str, Any]:
        """What is obeyed, and what is wrong with it."""


class Read(NamedTuple):
    """A request as the rest of the way sees it, what was taken out of it, and whether nothing of it may be kept."""

    ask: Ask
    vault: Vault | None
    is_private: bool


class FrontDoor:
    """That of one edge. `now` gives epoch seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        address: AddressRule,
        identity: Identity,
        locator: Locator,
        policies: Policies | None,
        screen: Screen | None,
        limiter: Limiter,
        forecast: Forecast,
        redactor: Callable[[], Redactor],
        now: Callable[[], float],
    ) -> None:
        self.identity = identity
        self.policies = policies
        self.screen = screen
        self.limiter = limiter
        self._forecast = forecast
        self._redactor = redactor
        self._places = _places(settings)
        self._fallbacks = {model.name: model.fallback for model in settings.model}
        self.guard = Guard(settings.limits, settings.model)
        self._settings = settings
        self._address = address
        self._locator = locator
        self._now = now

    def locate(self, request: Request) -> tuple[str, Location | None]:
        """From where it comes; also what is refused before anybody asks who it is has an address."""
        address = self._address.client_address(
            request.peer, request.headers.get("x-forwarded-for"), trust_forwarded=request.trust_forwarded
        )
        location = self._locator.locate(address) if address else None
        request.trail.address, request.trail.country = address, location.country if location else None
        return address, location

    async def identify(self, request: Request) -> Caller:
        """Who, and where. Raises Unauthorized, Forbidden, KeysUnavailable, LimitReached."""
        address, location = self.locate(request)
        authorization, met = request.headers.get("authorization"), partial(_note, request.trail)
        try:
            principal = await self.identity.identify(authorization, address, now=self._now(), met=met)
        except Unauthorized:
            self.limiter.meet(address)
            raise
        if principal.kind == "anonymous":
            self.limiter.meet(address)
        return Caller(principal, address, location)

    def check_stranger(self, request: Request) -> None:
        """For a route that asks nobody for a key. Raises Forbidden, LimitReached."""
        address, _ = self.locate(request)
        self.identity.check_network(address)
        self.limiter.meet(address)

    def read(self, operation: Operation, request: Request) -> Ask:
        """The checked request. Raises BadRequest and its kin."""
        ask = read(operation, request, self.guard)
        trail = request.trail
        trail.model = ask.model
        trail.parameters = {name: value for name, value in ask.fields.items() if name in _TOLD and _says_how(value)}
        return ask

    async def authorize(self, caller: Caller, action: Action, trail: Trail) -> None:
        """Raises Forbidden, PoliciesUnavailable."""
        trail.action = action
        if self.policies:
            await _hear(self.policies)
            _obey(self.policies.decide(caller, action), trail)

    async def authorize_model(self, caller: Caller, ask: Ask, trail: Trail, *, is_light: bool = False) -> Allowed:
        """Where each model may answer this request: the one that is asked for, and those that stand in for it. Light
        work generates nothing. Raises Forbidden, PoliciesUnavailable."""
        trail.action = "generate"
        own = caller.principal.models
        if own and ask.model not in own:
            raise Forbidden(f"This key may not use the model {ask.model[:200]!r}.", code="model_not_allowed")
        others = self._fallbacks.get(ask.model, ())
        excluded = {model: NOWHERE for model in others if own and model not in own}
        if self.policies is None:
            return excluded
        await _hear(self.policies)
        tokens = self._most_tokens(ask, is_light=is_light) if self.policies.asks_tokens else None
        decide = partial(self.policies.decide, caller, "generate", tokens=tokens)
        asked_for = decide(model=ask.model, regions=self._regions_of(ask.model))
        _obey(asked_for, trail)
        decisions = {model: decide(model=model, regions=self._regions_of(model)) for model in others}
        allowed = {model: one.regions if one.allowed else NOWHERE for model, one in decisions.items()}
        return {**allowed, **excluded, ask.model: asked_for.regions}

    def _most_tokens(self, ask: Ask, *, is_light: bool) -> int | None:
        """Its prompt, by an estimate, and what it lets models generate at most, or what they can hold. None for a
        request that has no bound at all: it might use any number."""
        prompt, own = estimate_prompt(ask.fields), 0 if is_light else ask.most_tokens
        if own is not None:
            return prompt + own * ask.generations
        held = self.guard.context_of(ask.model)
        return None if held is None else max(prompt, held * ask.generations)

    def _regions_of(self, model: str) -> Regions:
        """Where backends have it; None where one says nothing of where it stands."""
        return self._places.get(model)

    def obey_rules(self, ask: Ask, trail: Trail) -> Allowed:
        """Which models may not stand in for the one that is asked for. Raises ContentRefused."""
        if self.screen is None:
            return {}
        self.screen.obey(ask, trail)
        return dict.fromkeys(self.screen.excludes(ask, self._fallbacks.get(ask.model, ())), NOWHERE)

    async def moderate(self, ask: Ask, trail: Trail) -> None:
        """Raises ContentRefused, NothingAlive."""
        if self.screen:
            await self.screen.moderate(ask, trail)

    def redact(self, caller: Caller, ask: Ask, trail: Trail) -> Read:
        """The request without the personal data that its caller's mode takes out of it. Raises BadRequest."""
        mode = self._pii_mode(caller)
        if self._settings.audit.prompts and (question := asked_last(ask)):
            trail.question = self._redactor().clean(question)
        if mode == "off":
            return Read(ask, None, False)
        redactor = self._redactor()
        ask, vault = redactor.redact(ask, mode)
        return Read(ask, vault, redactor.must_not_keep(ask, mode))

    def restore(self, reply: Reply, vault: Vault | None) -> Reply:
        """The reply with what was taken out of its request put back."""
        if vault is None:
            return reply
        from isochrone.pii.redactor import restored  # noqa: PLC0415 (who has a vault has loaded it)

        return restored(reply, vault)

    def may_keep(self, caller: Caller, body: dict[str, Any]) -> bool:
        """May this answer be known to others, as far as personal data in it goes?"""
        mode = self._pii_mode(caller)
        return mode == "off" or self._redactor().may_keep(body, mode)

    def _pii_mode(self, caller: Caller) -> PiiMode:
        return caller.principal.pii or self._settings.pii.mode

    async def admit(self, caller: Caller, ask: Ask) -> Admission:
        """Its hold on what the caller may use. Raises LimitReached."""
        return await self.limiter.admit(caller.principal, caller.address, ask.model)

    async def reserve(self, admission: Admission, ask: Ask) -> None:
        """Before it is generated: what it is likely to use at most. Raises LimitReached."""
        if admission.is_counted:
            prompt, most = estimate_prompt(ask.fields), ask.most_tokens
            await admission.reserve(*self._forecast.of(ask.model, prompt, most=most, choices=ask.generations))

    def learn(self, model: str, tokens: int) -> None:
        """One answer of this model had so many tokens."""
        self._forecast.learn(model, tokens)

    async def refresh(self) -> None:
        """Hear of policies and of the keys with which tokens are signed. Never raises."""
        policies = [self.policies.refresh(max_age=0)] if self.policies else []
        await asyncio.gather(*policies, self.identity.refresh(now=self._now()))


def _says_how(value: Any) -> bool:
    """Is it a number or a word such as "low"? Where no shape says what a field holds, a caller may write anything."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_WORD and value.isascii() and value.isalpha()
    return isinstance(value, int | float)


def _note(trail: Trail, principal: Principal) -> None:
    """Who it is, also of a request that is refused for that."""
    trail.key_id, trail.subject, trail.tenant, trail.kind = (
        principal.key_id,
        principal.subject,
        principal.tenant,
        principal.kind,
    )


async def _hear(policies: Policies) -> None:
    await policies.refresh()
    if not policies.is_known:
        raise PoliciesUnavailable(
            "Nobody can tell at the moment what is allowed: the policies could not be read yet. Try again.",
            retry_after=_UNTIL_READ_AGAIN,
        )


def _obey(decision: Decision, trail: Trail) -> None:
    trail.rule = decision.rule
    if not decision.allowed:
        trail.note = decision.reason
        by = f"the policy {decision.rule!r} denies it" if decision.rule else "no policy allows it"
        raise Forbidden(f"This is not allowed: {by}.", code="policy_denied")


def _places(settings: Settings) -> dict[str, frozenset[str]]:
    """The regions in which backends have each model."""
    found: dict[str, set[str]] = {}
    for backend in settings.backend:
        for model in backend.models:
            found.setdefault(model, set()).update([backend.region] if backend.region else [])
    return {model: frozenset(regions) for model, regions in found.items() if regions}
