"""The known answers that can be asked for again, with the rights that their keys have now."""

from __future__ import annotations

from typing import Any, NamedTuple

from isochrone.admission.principal import Principal
from isochrone.answers.codec import from_bytes
from isochrone.answers.completion import Answer
from isochrone.answers.inquiry import Inquiry
from isochrone.api.controls import CacheMode, Controls, Recovery
from isochrone.api.errors import ApiError
from isochrone.api.requests import OPERATIONS, Ask, encode, parse, without_stream
from isochrone.api.trail import Trail
from isochrone.errand import Caller, Permit
from isochrone.pipeline import Pipeline
from isochrone.stores.protocols import AnswerStore

_LOWEST_PRIORITY = 1
_OPERATIONS = {operation.name: operation for operation in OPERATIONS}
_QUESTION = 60


class Item(NamedTuple):
    """A known answer, and how to ask for it again."""

    answer: Answer
    caller: Caller
    ask: Ask
    controls: Controls
    inquiry: Inquiry
    permit: Permit

    @property
    def question(self) -> str:
        """How it begins, on one line."""
        text = " ".join((self.answer.question or "").split())
        return text if len(text) <= _QUESTION else text[: _QUESTION - 1] + "…"


class Stock:
    """Looks into the answers' table past every memory: what counts is what all edges will find there."""

    def __init__(self, store: AnswerStore, pipeline: Pipeline) -> None:
        self._store = store
        self._pipeline = pipeline

    async def answer(self, mark: str, *, now: float, consistent: bool = False) -> Answer | None:
        """What is stored and can be read; `consistent` sees what was stored a moment ago. Raises StoreUnavailable."""
        value = await self._store.get(mark, now=now, consistent=consistent)
        return from_bytes(value) if value else None

    async def item(self, mark: str, *, now: float) -> Item | str:
        """The answer with the way to ask for it again, or why there is none. Raises StoreUnavailable."""
        answer = await self.answer(mark, now=now)
        if answer is None:
            return "expired"
        if answer.request is None:
            return "kept without its request"
        try:
            principal = await self._pipeline.rooms.front.identity.principal_of(answer.request["key"], now=now)
            item = await self._item(answer, answer.request, principal)
        except (ApiError, KeyError, TypeError):
            return "may not be asked any more"
        if item.inquiry.mark != mark or not item.inquiry.may_keep:
            return "kept under other settings"
        found = await self._pipeline.rooms.desk.look_up(item.inquiry, now=now)
        return item if found.known and found.known.mark == mark else "taken back, or known by another way"

    async def _item(self, answer: Answer, request: dict[str, Any], principal: Principal | None) -> Item:
        """Nobody asks it, from nowhere: a policy that goes by address or country does not allow it."""
        if principal is None:
            raise KeyError(request["key"])
        front = self._pipeline.rooms.front
        ask = without_stream(parse(_OPERATIONS[answer.operation], encode(request["fields"]), None, front.guard))
        regions = None if request["regions"] is None else frozenset(request["regions"])
        caller = Caller(principal, "", None)
        controls = Controls(None, CacheMode.USE, None, Recovery.SPLICE, _LOWEST_PRIORITY, regions)
        allowed = await front.authorize_model(caller, ask, trail := Trail())
        permit = Permit(trail, {**allowed, **front.obey_rules(ask, trail)})
        return Item(answer, caller, ask, controls, self._pipeline.inquire(caller, ask, controls, permit), permit)
