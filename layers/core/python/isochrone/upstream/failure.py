"""Why an attempt failed, and what follows from it.

cause         what was seen                                       try another?       speaks against its health?
UNREACHABLE   no connection, or no TLS on it, in time             yes                yes, until a probe connects
DROPPED       a connection that went before a reply               yes                yes
SILENT        a connection but no first token in time             yes                yes
OUT_OF_TIME   the request's own time was over                     no                 only as for a caller that leaves
OVERLOADED    429, or its words in an error                       yes                no: it works, it is only full
BROKEN        5xx, an empty or senseless reply, an error event    yes                yes
CREDENTIALS   401, 402, 403, a quota used up: our account there   yes                yes
MISSING       404, 501: it does not have the model, or the route  yes                no
CONTEXT       the prompt is longer than the model's context       a longer context   no
FILTERED      its content filter refused prompt or answer         no                 no
REFUSED       another 4xx: the caller's request                   another model      no
CUT           the stream ended before its finish_reason           yes                yes
DIVERGED      it took over a stream and says something else       yes                no

A refusal by the model that was asked for is the caller's to hear; one by a fallback only rules out that fallback.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from math import isfinite
from typing import Any, NamedTuple

import msgspec

# A day: nobody waits longer, and what a backend says also becomes a header of ours.
_LONGEST_WAIT = 86_400.0


class Cause(Enum):
    """See the table above."""

    UNREACHABLE = "unreachable"
    DROPPED = "dropped"
    SILENT = "silent"
    OUT_OF_TIME = "out_of_time"
    OVERLOADED = "overloaded"
    BROKEN = "broken"
    CREDENTIALS = "credentials"
    MISSING = "missing"
    CONTEXT = "context"
    FILTERED = "filtered"
    REFUSED = "refused"
    CUT = "cut"
    DIVERGED = "diverged"


_HEALTH_NEUTRAL = frozenset(
    {Cause.OUT_OF_TIME, Cause.OVERLOADED, Cause.MISSING, Cause.CONTEXT, Cause.FILTERED, Cause.REFUSED, Cause.DIVERGED}
)


class _Words(NamedTuple):
    """Words that tell a cause, in an error with one of these statuses; 200 is one told in a body or an event."""

    cause: Cause
    statuses: frozenset[int]
    pattern: re.Pattern[str]


# OpenAI's codes, which other engines borrowed, and what vLLM, SGLang, llama.cpp and DeepSeek write in their messages.
_WORDS = (
    _Words(
        Cause.CONTEXT,
        frozenset({200, 400, 413, 422}),
        re.compile(
            "context_length_exceeded|exceed_context_size|max_model_len|maximum context length|maximum model length"
            "|available context size|model's context length|context window"
        ),
    ),
    _Words(
        Cause.FILTERED,
        frozenset({200, 400, 403, 422}),
        re.compile("content_filter|content_policy_violation|content exists risk|data_?inspection_?failed"),
    ),
    _Words(
        Cause.CREDENTIALS,
        frozenset({200, 400, 429}),
        re.compile("insufficient_quota|insufficient[_ ]balance|billing_hard_limit"),
    ),
    _Words(Cause.OVERLOADED, frozenset({200}), re.compile("rate_limit|too[_ ]many[_ ]requests")),
)


class AttemptFailed(Exception):
    """One attempt ended without an answer. `body` is the backend's own reply, `retry_after` its wish in seconds.

    `backend` and `model` say whose attempt it was and `failed_at` when it ended, on the event loop's clock. It is
    `ambiguous` when the request may have been carried out although nobody heard of it.
    """

    def __init__(
        self,
        cause: Cause,
        detail: str,
        *,
        status: int = 0,
        body: bytes = b"",
        retry_after: float | None = None,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.ambiguous = ambiguous
        self.backend = ""
        self.model = ""
        self.failed_at = 0.0

    @property
    def against_health(self) -> bool:
        """True when the backend is to blame."""
        return self.cause not in _HEALTH_NEUTRAL

    def belongs_to(self, backend: str, model: str, *, now: float) -> None:
        """Say whose it is, and since when."""
        self.backend, self.model, self.failed_at = backend, model, now


def out_of_time() -> AttemptFailed:
    """The failure of an attempt that the request's own end cut off, before any deadline of ours had passed."""
    return AttemptFailed(Cause.OUT_OF_TIME, "was not done when its time was over")


def failure_of_status(status: int, body: bytes, headers: Mapping[str, str], *, now: float) -> AttemptFailed:
    """The failure that a reply other than 200 stands for; `now` is epoch seconds, for a Retry-After that is a date."""
    cause = cause_in_words(body, status) or _cause_of_status(status)
    return AttemptFailed(
        cause, f"answered {status}", status=status, body=body, retry_after=wait_asked_for(headers, now=now)
    )


def told_in_band(failure: AttemptFailed) -> AttemptFailed:
    """The same failure, its cause as the words say of an error that came in an event or a body after a 200."""
    cause = cause_in_words(failure.body, 200) if failure.cause is Cause.BROKEN else None
    return AttemptFailed(cause, failure.detail, body=failure.body) if cause else failure


def _cause_of_status(status: int) -> Cause:
    if status in (401, 402, 403):
        return Cause.CREDENTIALS
    if status in (404, 501):
        return Cause.MISSING
    if status == 429:
        return Cause.OVERLOADED
    if 400 <= status < 500 and status not in (408, 425):
        return Cause.REFUSED
    return Cause.BROKEN


def cause_in_words(body: bytes, status: int) -> Cause | None:
    """What an error's code, type and message say that its status does not; None when they add nothing."""
    said = _words_of(body)
    telling = (words.cause for words in _WORDS if status in words.statuses and words.pattern.search(said))
    return next(telling, None)


def _words_of(body: bytes) -> str:
    """Code, type and message of an error in any of the usual shapes, in lower case; "" when it is none."""
    try:
        sent = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    error = sent.get("error", sent) if isinstance(sent, dict) else None
    if not isinstance(error, dict):
        return error.lower() if isinstance(error, str) else ""
    return " ".join(_text(error.get(name)) for name in ("code", "type", "message")).lower()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def wait_asked_for(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a reply asks to wait: `retry-after-ms` as OpenAI's servers say it, else Retry-After."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return _bounded(milliseconds / 1000)
    return parse_retry_after(headers.get("Retry-After"), now=now)


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds to wait, from delta-seconds or an HTTP date (RFC 9110, 10.2.3); None when absent or senseless."""
    if not value:
        return None
    if (seconds := _number(value)) is not None:
        return _bounded(seconds)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return _bounded((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if isfinite(number) else None


def _bounded(seconds: float) -> float:
    return min(_LONGEST_WAIT, max(0.0, seconds))
