"""The bookkeeping of one attempt: begun once, ended exactly once, whatever became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import structs

from isochrone.ledger.book import Book
from isochrone.ledger.entry import Begun, Entry
from isochrone.ledger.usage import cost_of, is_estimated, usage_of
from isochrone.routing.health import Fault
from isochrone.routing.plan import Step
from isochrone.upstream.failure import AttemptFailed, Cause

_FAULTS = {Cause.UNREACHABLE: Fault.UNREACHABLE, Cause.DROPPED: Fault.DROPPED}


class Place(Protocol):
    """The right to one attempt at an offer: a slot there and, where `is_trial`, the trial of its circuit."""

    @property
    def is_trial(self) -> bool:
        """Is this the one attempt that a half-open circuit lets through?"""

    def give_back(self) -> None:
        """The attempt has ended, and what it showed has been told."""


class Visit:
    """Holds its place at the backend until it ended; then health, load and the ledger have learnt of it.

    `patience`: a backend that has said nothing for so many seconds when its caller leaves is to blame for that; half of
    it where it `is_brief`, as every other trial is. Without a `place` it takes what trial it can. `answer` is the id of
    the answer that is wanted, for the ledger. `booked` hears of the entry, once, when it is written.
    """

    def __init__(
        self,
        step: Step,
        number: int,
        *,
        request_id: str,
        tenant: str,
        book: Book,
        patience: float = 10.0,
        place: Place | None = None,
        answer: str | None = None,
        booked: Callable[[Entry], None] | None = None,
    ) -> None:
        self.step = step
        self.number = number
        self.first_token_ms: float | None = None
        self._book = book
        self._booked = booked
        self._attempt = Begun(
            request_id=request_id,
            tenant=tenant,
            model=step.model,
            backend=step.backend.facts.name,
            attempt=number,
            started_at=time.time(),
            answer=answer,
        )
        self._begun = time.monotonic()
        self._answered = False
        self._open = True
        self._asked_twice: str | None = None
        self._place = place
        self._trial = None if place else step.offer.circuit.claim_trial(self._begun)
        self.is_trial = place.is_trial if place else self._trial is not None
        self.is_brief = self.is_trial and step.offer.circuit.wants_brief_trial
        self._patience = patience / 2 if self.is_brief else patience
        step.backend.in_flight += 1
        book.begun(self._attempt)

    def answered(self, *, streaming: bool) -> None:
        """The first token of a stream, or a whole body, is there."""
        self._answered = True
        if streaming:
            now = time.monotonic()
            self.first_token_ms = (now - self._begun) * 1000
            self.step.offer.on_first_token(now, begun=self._begun)

    def asked_again(self, why: str) -> None:
        """The backend was sent the request once more within this attempt: the ledger's entry says so."""
        self._asked_twice = f"asked twice: {why}"

    def failed(self, failure: AttemptFailed, usage: dict[str, Any] | None = None) -> None:
        """It ended without a complete answer."""
        failure.belongs_to(self.step.backend.facts.name, self.step.model, now=time.monotonic())
        if failure.cause is Cause.OUT_OF_TIME:
            self._hold_silence_against_it()
        elif self._open and failure.against_health:
            fault = _FAULTS.get(failure.cause, Fault.ANSWER)
            self.step.offer.on_failure(time.monotonic(), failure.detail, begun=self._begun, fault=fault)
        elif self._open:
            self.step.offer.on_reply(begun=self._begun)
        if failure.cause is Cause.OVERLOADED:
            self.step.offer.on_busy(time.monotonic(), failure.retry_after)
        self._end(failure.cause.value, usage, failure.detail, ambiguous=failure.ambiguous)

    def succeeded(self, usage: dict[str, Any] | None) -> None:
        """The answer is complete. Only that clears a backend: one that dies in mid-stream says a first token, too."""
        if self._open:
            self.step.offer.on_success(time.monotonic(), begun=self._begun)
        self._end("ok", usage, None)

    def abandoned(self, usage: dict[str, Any] | None = None) -> None:
        """The client left, or we were stopped, before the end. Does nothing when the visit has ended already."""
        self._end("cancelled", usage, self._hold_silence_against_it())

    def outrun(self, usage: dict[str, Any] | None = None) -> None:
        """Another attempt at the same request was answered sooner: to the backend it is as if the client had left."""
        self._end("hedged", usage, self._hold_silence_against_it())

    def _hold_silence_against_it(self) -> str | None:
        """A caller's own impatience is no fault of the backend; a long silence is. Returns what was said of it."""
        if not self._open or self._answered:
            return None
        return self.step.offer.on_left(time.monotonic(), begun=self._begun, patience=self._patience)

    def _give_back(self) -> None:
        self.step.backend.in_flight -= 1
        if self._place:
            self._place.give_back()
        elif self._trial is not None:
            self.step.offer.circuit.free_trial(self._trial, time.monotonic())

    def _end(self, outcome: str, usage: dict[str, Any] | None, detail: str | None, *, ambiguous: bool = False) -> None:
        if not self._open:
            return
        self._open = False
        self._give_back()
        input_tokens, output_tokens = usage_of(usage)
        entry = Entry(
            **structs.asdict(self._attempt),
            outcome=outcome,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            usage_estimated=is_estimated(usage),
            cost=cost_of(self.step.backend.facts.price, input_tokens, output_tokens),
            first_token_ms=self.first_token_ms,
            total_ms=(time.monotonic() - self._begun) * 1000,
            ambiguous=ambiguous,
            detail="; ".join(filter(None, (self._asked_twice, detail))) or None,
        )
        self._book.write(entry)
        if self._booked:
            self._booked(entry)
