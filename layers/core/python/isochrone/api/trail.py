"""What is to be remembered of one request. Each step of its way notes here what it learned; the audit reads it at the
very end, when the last byte is out or the caller has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct, field

from isochrone.api.errors import ApiError, ContentRefused, Forbidden, LimitReached, Unauthorized, status_of

Verdict = Literal["allowed", "denied", "limited", "refused", "error"]
_VERDICTS: tuple[tuple[type[ApiError], Verdict], ...] = (
    (Unauthorized, "denied"),
    (Forbidden, "denied"),
    (ContentRefused, "denied"),
    (LimitReached, "limited"),
)


class Trail(Struct, kw_only=True):
    """Empty texts and None say that it did not come so far.

    `at` is in epoch seconds. Tokens and `cost` ($) are sums over the attempts that are booked so far, and `unbooked`
    is how many are not: one that others share goes on when its caller has left. `is_noted` says that the audit has
    heard of it. `parameters` are those that say how to generate, never what about; `question` is the last one, only for
    who opted in. `outcome` is "complete", or how a stream ended otherwise: "broken", "left". `reason` is the code of
    the error, `note` what there is to say of it that the caller was not told.
    """

    at: float = 0.0
    request_id: str = ""
    method: str = ""
    path: str = ""
    address: str = ""
    country: str | None = None
    key_id: str | None = None
    subject: str | None = None
    tenant: str | None = None
    kind: str | None = None
    action: str | None = None
    model: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    question: str | None = None
    verdict: Verdict = "allowed"
    rule: str | None = None
    reason: str = ""
    note: str = ""
    status: int = 0
    backend: str | None = None
    cache: str | None = None
    attempts: int = 0
    outcome: str = ""
    first_token_ms: float | None = None
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    estimated: bool = False
    unbooked: int = 0
    is_noted: bool = False
    _then: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"Trail({self.request_id!r}, {self.verdict}, {self.status})"

    def fail(self, error: ApiError) -> None:
        """It ended with this error, and whose fault that is."""
        status = status_of(error)
        blame: Verdict = "error" if status >= 500 else "refused"
        self.verdict = next((verdict for kind, verdict in _VERDICTS if isinstance(error, kind)), blame)
        self.reason = error.code or ""

    def booked(self, tokens: tuple[int, int], cost: float, *, estimated: bool) -> None:
        """One of its attempts has ended, and used so many tokens of prompt and reply."""
        self.input_tokens += tokens[0]
        self.output_tokens += tokens[1]
        self.cost += cost
        self.estimated |= estimated
        self.unbooked -= 1
        if not self.unbooked and self._then:
            then, self._then = self._then, None
            then()

    def when_booked(self, do: Callable[[], None]) -> None:
        """Now, or when the last of its attempts has ended."""
        if self.unbooked:
            self._then = do
        else:
            do()

    def answered(self, status: int, headers: dict[str, str]) -> None:
        """What the reply's headers say of where it came from."""
        self.status = status
        self.backend = headers.get("x-isochrone-backend")
        self.cache = headers.get("x-isochrone-cache")
        self.attempts = int(headers.get("x-isochrone-attempts", 0))
