"""The bookkeeping of one attempt: begun once, ended exactly once, whatever became of it."""

from __future__ import annotations

import time
from typing import Any

from isochrone.ledger.book import Book, Entry, cost_of, usage_of
from isochrone.routing.plan import Step
from isochrone.upstream.failure import AttemptFailed, Cause


class Visit:
    """Holds a place at the backend until `ended`; then health, load and the ledger have learnt of it."""

    def __init__(self, step: Step, number: int, *, request_id: str, tenant: str, book: Book) -> None:
        self.step = step
        self.number = number
        self.first_token_ms: float | None = None
        self._request_id = request_id
        self._tenant = tenant
        self._book = book
        self._started_at = time.time()
        self._begun = time.monotonic()
        self._open = True
        step.backend.in_flight += 1

    def answered(self, *, streaming: bool) -> None:
        """The first token of a stream, or a whole body, is there."""
        if streaming:
            now = time.monotonic()
            self.first_token_ms = (now - self._begun) * 1000
            self.step.backend.on_first_token(self.first_token_ms, now=now)

    def failed(self, failure: AttemptFailed, usage: dict[str, Any] | None = None) -> None:
        """It ended without a complete answer."""
        if failure.against_health:
            unreachable = failure.cause is Cause.UNREACHABLE
            self.step.backend.health.on_failure(time.monotonic(), failure.detail, unreachable=unreachable)
        self._end(failure.cause.value, usage, failure.detail)

    def succeeded(self, usage: dict[str, Any] | None) -> None:
        """The answer is complete. Only that clears a backend: one that dies in mid-stream says a first token, too."""
        if self._open:
            self.step.backend.health.on_success()
        self._end("ok", usage, None)

    def abandoned(self, usage: dict[str, Any] | None = None) -> None:
        """The client left, or we were stopped, before the end. Does nothing when the visit has ended already."""
        self._end("cancelled", usage, None)

    def _end(self, outcome: str, usage: dict[str, Any] | None, detail: str | None) -> None:
        if not self._open:
            return
        self._open = False
        facts = self.step.backend.facts
        self.step.backend.in_flight -= 1
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
                cost=cost_of(facts.price, input_tokens, output_tokens),
                started_at=self._started_at,
                first_token_ms=self.first_token_ms,
                total_ms=(time.monotonic() - self._begun) * 1000,
                detail=detail,
            )
        )
