"""What the caller is told when no attempt answered: one error that names every backend and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from isochrone.api.errors import (
    ApiError,
    DeadlinePassed,
    NothingAlive,
    Saturated,
    UpstreamFailed,
    UpstreamRefused,
)
from isochrone.upstream.failure import AttemptFailed, Cause

_WAIT_HINT_SECONDS = 5.0
_OUR_ACCOUNT_OR_SET_UP = frozenset({Cause.CREDENTIALS, Cause.MISSING})
_TOO_LATE = frozenset({Cause.SILENT, Cause.OUT_OF_TIME})


def is_final(failure: AttemptFailed, model: str) -> bool:
    """Is it for the caller to hear at once, who asked for `model`? A fallback's refusal rules out only that."""
    return failure.cause is Cause.FILTERED or (failure.cause is Cause.REFUSED and failure.model == model)


def refusal_of(failure: AttemptFailed) -> UpstreamRefused:
    """The backend's own words, also those that came in band after a 200."""
    return UpstreamRefused(failure.status or 400, failure.body)


def verdict_on(
    failures: Sequence[AttemptFailed], model: str, *, out_of_time: bool, on_trial: Sequence[str] = ()
) -> ApiError:
    """429, 502, 503 or 504, and when to come back; or the refusal of a prompt that is too long for `model`.

    `on_trial` are backends that were sick and had only one request let through, which was another one.
    """
    causes = {failure.cause for failure in failures}
    waiting = [f"{name} was sick and is being tried" for name in on_trial]
    told = "; ".join([*(_told(failure, model) for failure in failures), *waiting])
    hints = [failure.retry_after for failure in failures if failure.retry_after is not None]
    wait = min(hints) if hints else _WAIT_HINT_SECONDS
    if too_long := [failure for failure in failures if failure.cause is Cause.CONTEXT and failure.model == model]:
        return refusal_of(too_long[0])
    if out_of_time or (failures and failures[-1].cause in _TOO_LATE):
        return DeadlinePassed(f"No answer within the deadline: {told or 'no time was left'}.", retry_after=wait)
    if causes == {Cause.OVERLOADED}:
        return Saturated(f"Every backend for this model is busy: {told}.", retry_after=wait)
    if failures and all(failure.status == 501 for failure in failures):
        return UpstreamRefused(501, failures[-1].body)
    if causes and causes <= _OUR_ACCOUNT_OR_SET_UP:
        return UpstreamFailed(f"The backends for this model are set up wrongly: {told}.")
    return NothingAlive(f"No backend for this model could answer: {told or 'none is left'}.", retry_after=wait)


def crowded(failures: Sequence[AttemptFailed], model: str, *, retry_after: float) -> Saturated:
    """There was no room in time at those who could answer."""
    told = "".join(f"; {_told(failure, model)}" for failure in failures)
    return Saturated(f"Every backend for this model is full{told}.", retry_after=retry_after)


def _told(failure: AttemptFailed, model: str) -> str:
    asked_for = f", asked for {failure.model}," if failure.model not in ("", model) else ""
    return f"{failure.backend}{asked_for} {failure.detail}"
