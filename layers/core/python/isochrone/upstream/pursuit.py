"""From a plan to an answer: one backend after the other, until one answers or the request's means are spent.

One owner of retries, bounded three ways: `retry.attempts` in all, the edge's retry budget, and the request's time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import aiohttp

from isochrone.api.errors import (
    ApiError,
    DeadlinePassed,
    NothingAlive,
    Saturated,
    UpstreamFailed,
    UpstreamRefused,
)
from isochrone.api.requests import Ask
from isochrone.routing.plan import Step, takes_requests
from isochrone.settings import Deadlines, Retry
from isochrone.upstream.attempt import BodyAnswer, attempt
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.visit import Visit

_BACKOFF_SECONDS = 0.05
_BACKOFF_CAP_SECONDS = 2.0
_WAIT_HINT_SECONDS = 5.0
# Asking the same backend again makes sense only where the failure may have been a passing one.
_PASSING = frozenset({Cause.UNREACHABLE, Cause.DROPPED, Cause.BROKEN, Cause.OVERLOADED, Cause.CUT})


class Means(NamedTuple):
    """What every attempt of an edge needs. `headers_for` gives a backend's own headers; `chance` is in [0, 1)."""

    session: aiohttp.ClientSession
    deadlines: Deadlines
    retry: Retry
    budget: RetryBudget
    headers_for: Callable[[Step], Mapping[str, str]]
    chance: Callable[[], float]


class Won(NamedTuple):
    """The attempt that answered `ask`, its bookkeeping still open."""

    answer: BodyAnswer | StreamAnswer
    visit: Visit
    ask: Ask


async def pursue(
    steps: Sequence[Step],
    ask: Ask,
    means: Means,
    *,
    visit: Callable[[Step, int], Visit],
    request_id: str,
    ends_at: float,
    capture: bool,
    made: int = 0,
    failures: Sequence[AttemptFailed] = (),
    ask_for: Callable[[Step], Ask] | None = None,
) -> Won:
    """The first answer along the plan. Raises ApiError: what the caller is told when there was none.

    `made` attempts with these `failures` came before: a stream that died is pursued further like any other failure.
    `ask_for` says what one step is asked instead of `ask`: some can go on from a text that was told already.
    """
    failures = list(failures)
    itinerary = islice(_itinerary(with_last_resort(steps, means.retry.attempts), failures), means.retry.attempts - made)
    for number, step in enumerate(itinerary, start=made + 1):
        if failures and not await _may_go_on(failures, step, means, ends_at):
            break
        current = visit(step, number)
        asked = ask_for(step) if ask_for else ask
        try:
            answer = await attempt(
                means.session,
                step,
                asked,
                headers={**means.headers_for(step), "X-Request-Id": request_id},
                deadlines=means.deadlines,
                ends_at=ends_at,
                capture=capture,
            )
        except AttemptFailed as failure:
            current.failed(failure)
            if failure.cause is Cause.REFUSED:
                raise UpstreamRefused(failure.status, failure.body) from None
            failure.backend = step.backend.facts.name
            failures.append(failure)
        except BaseException:
            current.abandoned()
            raise
        else:
            current.answered(streaming=ask.stream)
            return Won(answer, current, asked)
    raise verdict_on(failures, out_of_time=time.monotonic() >= ends_at)


def with_last_resort(steps: Sequence[Step], attempts: int) -> Sequence[Step]:
    """The plan with its last attempt kept for another kind of backend, when all before it are of one kind.

    Pools tend to fail together (none is up yet, one bad rollout); an API or another model does not fail with them.
    """
    reached, beyond = steps[:attempts], steps[attempts:]
    if attempts < 2 or len({_kind(step) for step in reached}) != 1:
        return steps
    other = next((step for step in beyond if takes_requests(step) and _kind(step) != _kind(reached[0])), None)
    if other is None:
        return steps
    return [*reached[:-1], other, reached[-1], *(step for step in beyond if step is not other)]


def _kind(step: Step) -> tuple[str, str]:
    return step.backend.facts.kind, step.model


def _itinerary(steps: Sequence[Step], failures: Sequence[AttemptFailed]) -> Iterator[Step]:
    """Every backend of the plan once; then those again whose failure may have passed.

    `failures` grows while this is iterated: a backend that also serves a fallback is not asked for that as well, unless
    all that it lacked was the model.
    """
    for step in steps:
        if all(failure.cause is Cause.MISSING for failure in _failures_of(step, failures)):
            yield step
    while again := [step for step in steps if _may_have_passed(_failures_of(step, failures))]:
        yield from again


def _failures_of(step: Step, failures: Sequence[AttemptFailed]) -> list[AttemptFailed]:
    return [failure for failure in failures if failure.backend == step.backend.facts.name]


def _may_have_passed(failures: Sequence[AttemptFailed]) -> bool:
    """A backend that asks for a longer wait than we have patience for is not asked before its time."""
    last = failures[-1] if failures else None
    return last is not None and last.cause in _PASSING and (last.retry_after or 0.0) <= _BACKOFF_CAP_SECONDS


async def _may_go_on(failures: Sequence[AttemptFailed], step: Step, means: Means, ends_at: float) -> bool:
    """Time and budget for one more attempt; waits a little first when it goes to a backend that has just failed."""
    own = _failures_of(step, failures)
    pause = _pause(own, means.chance()) if own else 0.0
    if time.monotonic() + pause >= ends_at or not means.budget.withdraw(time.time()):
        return False
    if pause:
        await asyncio.sleep(pause)
    return True


def _pause(failures: Sequence[AttemptFailed], chance: float) -> float:
    """Seconds: what the backend asked for, else exponential backoff with full jitter."""
    if (asked := failures[-1].retry_after) is not None:
        return asked
    return chance * min(_BACKOFF_CAP_SECONDS, _BACKOFF_SECONDS * 2.0 ** len(failures))


def verdict_on(failures: Sequence[AttemptFailed], *, out_of_time: bool) -> ApiError:
    """What the caller is told when no attempt answered: 429, 502, 503 or 504, and when to come back."""
    causes = {failure.cause for failure in failures}
    told = "; ".join(f"{failure.backend} {failure.detail}" for failure in failures)
    hints = [failure.retry_after for failure in failures if failure.retry_after is not None]
    wait = min(hints) if hints else _WAIT_HINT_SECONDS
    if out_of_time or (failures and failures[-1].cause in (Cause.SILENT, Cause.OUT_OF_TIME)):
        return DeadlinePassed(f"No answer within the deadline: {told or 'no time was left'}.", retry_after=wait)
    if causes == {Cause.OVERLOADED}:
        return Saturated(f"Every backend for this model is busy: {told}.", retry_after=wait)
    if failures and all(failure.status == 501 for failure in failures):
        return UpstreamRefused(501, failures[-1].body)
    if causes and causes <= {Cause.CREDENTIALS, Cause.MISSING}:
        return UpstreamFailed(f"The backends for this model are set up wrongly: {told}.")
    return NothingAlive(f"No backend for this model could answer: {told or 'none is left'}.", retry_after=wait)
