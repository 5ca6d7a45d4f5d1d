"""The bookkeeping of one attempt: begun once, ended exactly once, whatever became of it."""

from __future__ import annotations

import time
from typing import Any

from isochrone.ledger.book import Book
from isochrone.ledger.entry import Entry
from isochrone.ledger.usage import cost_of, is_estimated, usage_of
from isochrone.routing.health import Standing
from isochrone.routing.plan import Step
from isochrone.upstream.failure import AttemptFailed, Cause


class Visit:
    """Holds a place at the backend until it ended; then health, load and the ledger have learnt of it.

    `patience`: a backend that has said nothing for so many seconds when its caller leaves is to blame for that.
    """

    def __init__(
        self, step: Step, number: int, *, request_id: str, tenant: str, book: Book, patience: float = 10.0
    ) -> None:
        self.step = step
        self.number = number
        self.first_token_ms: float | None = None
        self._request_id = request_id
        self._tenant = tenant
        self._book = book
        self._patience = patience
        self._started_at = time.time()
        self._begun = time.monotonic()
        self._answered = False
        self._open = True
        self._is_trial = step.offer.health.standing(self._begun) is Standing.TRIAL
        step.backend.in_flight += 1
        step.offer.trials += self._is_trial

    def answered(self, *, streaming: bool) -> None:
        """The first token of a stream, or a whole body, is there."""
        self._answered = True
        if streaming:
            now = time.monotonic()
            self.first_token_ms = (now - self._begun) * 1000
            self.step.offer.on_first_token(self.first_token_ms, now=now)

    def failed(self, failure: AttemptFailed, usage: dict[str, Any] | None = None) -> None:
        """It ended without a complete answer."""
        if failure.cause is Cause.OUT_OF_TIME:
            self._hold_silence_against_it()
        elif self._open and failure.against_health:
            self._hold_against_it(failure.detail, unreachable=failure.cause is Cause.UNREACHABLE)
        self._end(failure.cause.value, usage, failure.detail)

    def _hold_against_it(self, detail: str, *, unreachable: bool = False) -> None:
        self.step.offer.health.on_failure(time.monotonic(), detail, unreachable=unreachable, begun=self._begun)

    def succeeded(self, usage: dict[str, Any] | None) -> None:
        """The answer is complete. Only that clears a backend: one that dies in mid-stream says a first token, too."""
        if self._open:
            self.step.offer.health.on_success(begun=self._begun)
        self._end("ok", usage, None)

    def abandoned(self, usage: dict[str, Any] | None = None) -> None:
        """The client left, or we were stopped, before the end. Does nothing when the visit has ended already."""
        self._end("cancelled", usage, self._hold_silence_against_it())

    def _hold_silence_against_it(self) -> str | None:
        """A caller's own impatience is no fault of the backend; a long silence is. Returns what was said of it."""
        waited = time.monotonic() - self._begun
        if not self._open or self._answered or waited < self._patience:
            return None
        detail = f"had said nothing for {waited:.0f} s when its caller left"
        self._hold_against_it(detail)
        return detail

    def _end(self, outcome: str, usage: dict[str, Any] | None, detail: str | None) -> None:
        if not self._open:
            return
        self._open = False
        facts = self.step.backend.facts
        self.step.backend.in_flight -= 1
        self.step.offer.trials -= self._is_trial
        input_tokens, output_tokens = usage_of(usage)
        self._book.write(
            Entry(
                request_id=self._request_id,
                tenant=self._tenant,
                model=self.step.model,
                backend=facts.name,
                attempt=self.number,
                outcome=outcome,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                usage_estimated=is_estimated(usage),
                cost=cost_of(facts.price, input_tokens, output_tokens),
                started_at=self._started_at,
                first_token_ms=self.first_token_ms,
                total_ms=(time.monotonic() - self._begun) * 1000,
                detail=detail,
            )
        )
