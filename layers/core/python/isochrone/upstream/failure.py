"""Why an attempt failed, and what follows from it.

cause         what was seen                                     try another?  speaks against its health?
UNREACHABLE   no connection                                      yes           yes, until a probe connects
DROPPED       a connection that went before a reply              yes           yes
SILENT        a connection but no first token in time            yes           yes
OUT_OF_TIME   the request's own time was over                   no            only as for a caller that leaves (Visit)
OVERLOADED    429                                                yes           no: it works, it is only full
BROKEN        5xx, an empty or senseless reply, an error event   yes           yes
CREDENTIALS   401, 402, 403: our key there, not the caller's     yes           yes
MISSING       404, 501: it does not have the model, or the route yes           no
REFUSED       another 4xx: the caller's request                  no            no
CUT           the stream ended before its finish_reason          yes           yes
DIVERGED      it took over a stream and says something else      yes           no
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from math import isfinite

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
    REFUSED = "refused"
    CUT = "cut"
    DIVERGED = "diverged"


_HEALTH_NEUTRAL = frozenset({Cause.OUT_OF_TIME, Cause.OVERLOADED, Cause.MISSING, Cause.REFUSED, Cause.DIVERGED})


class AttemptFailed(Exception):
    """One attempt ended without an answer. `body` is the backend's own reply, `retry_after` its wish in seconds."""

    def __init__(
        self, cause: Cause, detail: str, *, status: int = 0, body: bytes = b"", retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.backend = ""

    @property
    def against_health(self) -> bool:
        """True when the backend is to blame."""
        return self.cause not in _HEALTH_NEUTRAL


def out_of_time() -> AttemptFailed:
    """The failure of an attempt that the request's own end cut off, before any deadline of ours had passed."""
    return AttemptFailed(Cause.OUT_OF_TIME, "was not done when the request's time was over")


def failure_of_status(status: int, body: bytes, retry_after: str | None, *, now: float) -> AttemptFailed:
    """The failure that a reply other than 200 stands for; `now` is epoch seconds, for a Retry-After that is a date."""
    cause = _cause_of_status(status)
    return AttemptFailed(
        cause, f"answered {status}", status=status, body=body, retry_after=parse_retry_after(retry_after, now=now)
    )


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


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds to wait, from delta-seconds or an HTTP date (RFC 9110, 10.2.3); None when absent or senseless."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return min(max(0.0, seconds), _LONGEST_WAIT) if isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(_LONGEST_WAIT, max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now))
