"""Who is asked next when attempts have failed, and after which pause. Pure: time and chance are arguments.

    1. every offer of the model that the plan begins with, as long as it takes requests
    2. one of these once more, if its failure may have passed
    3. what the plan has beyond them: fallback models, then what is ejected or unreachable
    4. whoever may do better the next time

The last attempt is kept for another kind of backend (an API, or a fallback model) when all before it were of one kind:
pools tend to fail together (none is up yet, one bad rollout), and what is of another kind does not fail with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from isochrone.routing.fleet import BackendState, Offer
from isochrone.routing.health import Standing
from isochrone.routing.plan import Step, takes_requests
from isochrone.upstream.failure import AttemptFailed, Cause

BACKOFF_SECONDS = 0.05
BACKOFF_CAP_SECONDS = 2.0
# Whoever asks for a longer pause is left alone in this request.
LONGEST_WAIT_SECONDS = 10.0
# The least that an answer takes: a round trip to connect, one to ask, and a moment to think.
_ROUND_TRIPS = 2
_MOMENT_SECONDS = 0.01

# Asking the same offer again makes sense only where the failure may have been a passing one.
_PASSING = frozenset({Cause.DROPPED, Cause.BROKEN, Cause.OVERLOADED, Cause.CUT})
# A closed port stays closed for longer: again only when nobody else is left.
_PASSING_AT_LAST = _PASSING | {Cause.UNREACHABLE}

Failures = Sequence[AttemptFailed]


class Stop(NamedTuple):
    """The next one to be asked, after a pause in seconds."""

    step: Step
    pause: float


class Itinerary(NamedTuple):
    """One request's plan and its bounds: `attempts` in all, until `ends_at` on the clock that `now` is of.

    `contexts` are the context lengths of models in tokens, as far as they are known.
    """

    steps: Sequence[Step]
    attempts: int
    ends_at: float
    contexts: Mapping[str, int]

    def next_stop(
        self, failures: Failures, *, made: int, now: float, chance: float, full: Collection[Offer] = ()
    ) -> Stop | None:
        """Who is asked after `made` attempts; None when nobody is left that could answer in time.

        `full` are offers without room now: as long as one of them is healthy, it is better to wait for it than to ask
        what is ejected, or anybody for a third time. `chance` in [0, 1) spreads the pauses.
        """
        if made >= self.attempts:
            return None
        if not failures and not full:
            return next((Stop(step, 0.0) for step in self.steps if self.is_in_time(step, now)), None)
        open_to = [step for step in self.steps if not self._is_ruled_out(step, failures)]
        worth_waiting = any(step.standing is Standing.HEALTHY for step in open_to if step.offer in full)
        steps = [step for step in open_to if step.offer not in full and (takes_requests(step) or not worth_waiting)]
        last, to_the_end = made == self.attempts - 1, not worth_waiting
        order = self._order(steps, failures, now, last=last, to_the_end=to_the_end) if failures else steps
        stops = (Stop(step, _pause(step, failures, now, chance)) for step in order)
        return next((stop for stop in stops if self.is_in_time(stop.step, now + stop.pause)), None)

    def without(self, backend: BackendState) -> Itinerary:
        """The same, but nobody asks that one."""
        return self._replace(steps=[step for step in self.steps if step.backend is not backend])

    def rival_of(self, step: Step, failures: Failures, *, made: int, now: float) -> Step | None:
        """Who else may be asked for the same model while `step` has not said a word yet."""
        able = (one for one in self.steps if one.model == step.model and one.offer is not step.offer)
        fit = (one for one in able if takes_requests(one) and not self._is_ruled_out(one, failures))
        fresh = (one for one in fit if not _failures_at(one, failures) and self.is_in_time(one, now))
        return next(fresh, None) if made < self.attempts else None

    def is_in_time(self, step: Step, now: float) -> bool:
        """Could an answer still come in time if it was asked for now?"""
        return now < self.latest_start(step)

    def latest_start(self, step: Step) -> float:
        """When it is too late to ask."""
        return self.ends_at - least_seconds(step)

    def is_too_late(self, now: float) -> bool:
        """Is there not enough time left for anybody?"""
        return now >= self.ends_at or (bool(self.steps) and not any(self.is_in_time(step, now) for step in self.steps))

    def _is_ruled_out(self, step: Step, failures: Failures) -> bool:
        return any(_rules_out(failure, step, self.contexts) for failure in failures)

    def _order(self, steps: list[Step], failures: Failures, now: float, *, last: bool, to_the_end: bool) -> list[Step]:
        fresh = [step for step in steps if not _failures_at(step, failures)]
        other = self._of_another_kind(fresh, failures) if last else []
        near = [step for step in fresh if step.model == self.steps[0].model and takes_requests(step)]
        once_more = self._once_more(steps, failures, now)
        beyond = [step for step in fresh if step not in near]
        at_last = _again(steps, failures, now, _PASSING_AT_LAST) if to_the_end else []
        return [*other, *near, *once_more, *beyond, *at_last]

    def _of_another_kind(self, fresh: list[Step], failures: Failures) -> list[Step]:
        asked = {_kind(step) for step in self.steps if _failures_at(step, failures)}
        return [step for step in fresh if len(asked) == 1 and takes_requests(step) and _kind(step) not in asked]

    def _once_more(self, steps: list[Step], failures: Failures, now: float) -> list[Step]:
        """The asked-for model is worth one retry where it has just failed."""
        own = [step for step in self.steps if step.model == self.steps[0].model]
        if any(len(_failures_at(step, failures)) > 1 for step in own):
            return []
        near = [step for step in steps if step in own and takes_requests(step)]
        return _again(near, failures, now, _PASSING)


def least_seconds(step: Step) -> float:
    """What an answer takes at the least: connecting and asking. An estimate of the way counts, a guess does not."""
    state = step.backend
    measured = state.measured_rtt_ms
    known_ms = measured if measured is not None else state.expected_rtt_ms if state.place else 0.0
    return _ROUND_TRIPS * known_ms / 1000 + _MOMENT_SECONDS


def _kind(step: Step) -> tuple[str, str]:
    return step.backend.facts.kind, step.model


def _failures_at(step: Step, failures: Failures) -> list[AttemptFailed]:
    name, model = step.backend.facts.name, step.model
    return [failure for failure in failures if failure.backend == name and failure.model == model]


def _rules_out(failure: AttemptFailed, step: Step, contexts: Mapping[str, int]) -> bool:
    """Does a failure elsewhere say that this one cannot answer either?"""
    if failure.cause is Cause.UNREACHABLE:
        return failure.backend == step.backend.facts.name and failure.model != step.model
    if failure.cause is Cause.REFUSED:
        return failure.model == step.model
    if failure.cause is Cause.CONTEXT:
        known, needed = contexts.get(step.model), contexts.get(failure.model)
        return failure.model == step.model or (known is not None and needed is not None and known <= needed)
    return False


def _again(steps: list[Step], failures: Failures, now: float, causes: Collection[Cause]) -> list[Step]:
    """Those whose last failure may have passed: whoever failed least goes first, then whoever is ready first."""
    found = []
    for step in steps:
        own = _failures_at(step, failures)
        if own and own[-1].cause in causes and (wait := _wait(own[-1], now)) <= LONGEST_WAIT_SECONDS:
            found.append((len(own), wait, step))
    found.sort(key=lambda entry: entry[:2])
    return [step for _, _, step in found]


def _wait(failure: AttemptFailed, now: float) -> float:
    """What is left of the pause that the backend asked for, in seconds."""
    return max(0.0, failure.failed_at + failure.retry_after - now) if failure.retry_after is not None else 0.0


def _pause(step: Step, failures: Failures, now: float, chance: float) -> float:
    """Before asking again: what the backend asked for, and exponential backoff with full jitter on top of it, so that
    those who were told the same time do not come back all at once."""
    own = _failures_at(step, failures)
    if not own:
        return 0.0
    return _wait(own[-1], now) + chance * min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2.0 ** len(own))
