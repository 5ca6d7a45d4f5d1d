"""From a plan to an answer: one backend after the other, until one answers or the request's means are spent.

    who is next (itinerary) -> the retry budget pays -> a pause, if asked again -> a place there -> the attempt

One owner of retries, bounded three ways: `retry.attempts` in all, the fleet's retry budget, and the request's time. A
backend without room costs no attempt; when all are full, the request waits for a place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

import aiohttp
from msgspec import Struct

from isochrone.api.errors import ApiError
from isochrone.api.requests import Ask
from isochrone.routing.daily import DailyCaps, all_spent
from isochrone.routing.fleet import BackendState, Offer
from isochrone.routing.health import Standing
from isochrone.routing.places import Place, Places
from isochrone.routing.plan import Step
from isochrone.settings import Retry
from isochrone.upstream.attempt import BodyAnswer, attempt
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.hedge import race
from isochrone.upstream.itinerary import Itinerary, Stop
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.verdict import crowded, is_final, refusal_of, verdict_on
from isochrone.upstream.visit import Visit

STANDARD_PRIORITY = 5
# A backend may be unable to go on from a given text, or have no room for it; without that text it is asked as usual.
_UNFIT_TO_CONTINUE = frozenset({Cause.REFUSED, Cause.CONTEXT, Cause.MISSING})
_UNKNOWN: Mapping[str, int] = MappingProxyType({})
_NEVER: Mapping[str, float] = MappingProxyType({})
# What a backend says when it does not take our key; a 402 says that the account is empty.
_KEY_REFUSED = frozenset({401, 403})


async def _no_others(_step: Step, _refused: Mapping[str, str]) -> None:
    return None


class Means(NamedTuple):
    """What every attempt of an edge needs. `headers_for` gives a backend's own headers, `headers_after_refusal` others
    to try at once where it refused these, None if there are none; `chance` is in [0, 1).

    By public model name: `contexts` are lengths in tokens, `hedge_after` the seconds of silence before a second attempt
    that `hedges` pays for. `max_wait` is how many seconds a request may wait for a place.
    """

    session: aiohttp.ClientSession
    retry: Retry
    budget: RetryBudget
    headers_for: Callable[[Step], Mapping[str, str]]
    chance: Callable[[], float]
    hedges: RetryBudget
    places: Places
    contexts: Mapping[str, int] = _UNKNOWN
    hedge_after: Mapping[str, float] = _NEVER
    max_wait: float = 10.0
    caps: DailyCaps | None = None
    headers_after_refusal: Callable[[Step, Mapping[str, str]], Awaitable[Mapping[str, str] | None]] = _no_others

    async def may_ask(self, backend: BackendState) -> bool:
        """Counts a request to it, unless it has had those of its day."""
        return self.caps is None or await self.caps.take(backend)

    def deposit(self, now: float) -> None:
        """A request came in, at `now` of epoch seconds: it pays for a share of further attempts."""
        self.budget.deposit(now)
        if self.hedge_after:
            self.hedges.deposit(now)


Answer = BodyAnswer | StreamAnswer


class Won(NamedTuple):
    """The attempt that answered `ask`, its bookkeeping still open, and what failed before it. `made` counts the
    attempts so far, those too that began after this one."""

    answer: Answer
    visit: Visit
    ask: Ask
    made: int
    failures: Sequence[AttemptFailed] = ()


class BeginVisit(Protocol):
    """Opens the bookkeeping of the attempt `number` at a step, which is `asked` so and holds `place` until it ends."""

    def __call__(self, step: Step, number: int, *, asked: Ask, place: Place) -> Visit: ...


async def pursue(
    steps: Sequence[Step],
    ask: Ask,
    means: Means,
    *,
    visit: BeginVisit,
    request_id: str,
    ends_at: float,
    capture: bool,
    gather: bool = False,
    made: int = 0,
    failures: Sequence[AttemptFailed] = (),
    ask_for: Callable[[Step], Ask] | None = None,
    priority: int = STANDARD_PRIORITY,
    tenant: str = "",
) -> Won:
    """The first answer along the plan. Raises ApiError: what the caller is told when there was none.

    `made` attempts with these `failures` came before: a stream that died is pursued further like any other failure.
    `ask_for` says what one step is asked instead of `ask`: some can go on from a text that was told already. One that
    refuses to is asked for `ask` at once, within the same attempt. If `ask` is for a body, a step that is asked for a
    stream may answer with a body, too.
    """
    return await _Pursuit(
        itinerary=Itinerary(steps, means.retry.attempts, ends_at, means.contexts),
        ask=ask,
        means=means,
        begin_visit=visit,
        request_id=request_id,
        capture=capture,
        gather=gather,
        ask_for=ask_for or (lambda _: ask),
        priority=priority,
        tenant=tenant,
        made=made,
        failures=list(failures),
        is_paid=not made,
    ).run()


class _Seat(NamedTuple):
    """A step, and the place that was found there."""

    step: Step
    place: Place


class _Pursuit(Struct, kw_only=True):
    """One request on its way along its plan. `made` counts its attempts, `failures` are those that have ended;
    `is_paid` says that the next one may be made. It waited in vain for a place at those who are `crowded`, and for
    another request's trial to end at those `on_trial`; those who are `spent` have had their requests of the day."""

    itinerary: Itinerary
    ask: Ask
    means: Means
    begin_visit: BeginVisit
    request_id: str
    capture: bool
    gather: bool
    ask_for: Callable[[Step], Ask]
    priority: int
    tenant: str
    made: int
    failures: list[AttemptFailed]
    is_paid: bool
    is_won: bool = False
    crowded: Sequence[Offer] = ()
    on_trial: Sequence[Offer] = ()
    spent: list[BackendState] = []

    async def run(self) -> Won:
        while seat := await self.next_seat():
            if won := await self.ask_at(seat):
                return won
        raise self.verdict()

    async def next_seat(self) -> _Seat | None:
        """Whoever is next and has room; None when nobody is left, or no further attempt is to be had."""
        full: dict[Offer, Step] = {}
        while stop := self.next_stop(full):
            if not self.pay():
                return None
            if stop.pause:
                await asyncio.sleep(stop.pause)
            if seat := await self.take(stop.step):
                return seat
            if stop.step.backend not in self.spent:
                full[stop.step.offer] = stop.step
        return await self.wait_for_room(full) if full else None

    def next_stop(self, full: Collection[Offer]) -> Stop | None:
        chance = self.means.chance() if self.failures else 0.0
        return self.itinerary.next_stop(self.failures, made=self.made, now=time.monotonic(), chance=chance, full=full)

    def pay(self) -> bool:
        """The first attempt is free. Each further one is paid for once, however many have no room for it."""
        self.is_paid = self.is_paid or self.means.budget.withdraw(time.time())
        return self.is_paid

    async def take(self, step: Step) -> _Seat | None:
        place = await self.means.places.take(step.offer, priority=self.priority, tenant=self.tenant)
        return await self.seat_at(step, place) if place else None

    async def seat_at(self, step: Step, place: Place) -> _Seat | None:
        """The place is good for a request only while its backend takes one more today."""
        may_ask = False
        try:
            may_ask = await self.means.may_ask(step.backend)
        finally:
            if not may_ask:
                place.give_back()
        if may_ask:
            return _Seat(step, place)
        self.spent.append(step.backend)
        self.itinerary = self.itinerary.without(step.backend)
        return None

    async def wait_for_room(self, full: Mapping[Offer, Step]) -> _Seat | None:
        latest = max(map(self.itinerary.latest_start, full.values()))
        until = min(latest, time.monotonic() + self.means.max_wait)
        place = await self.means.places.wait(list(full), priority=self.priority, until=until, tenant=self.tenant)
        if place:
            return await self.seat_at(full[place.offer], place)
        now = time.monotonic()  # who was sick when the plan was made may have come back while we waited
        self.crowded = [one for one, step in full.items() if Standing.HEALTHY in (step.standing, one.standing(now))]
        self.on_trial = [offer for offer in full if offer not in self.crowded]
        return None

    async def ask_at(self, seat: _Seat) -> Won | None:
        """One attempt or, where the model is hedged, perhaps two side by side."""
        after = self.means.hedge_after.get(seat.step.model)
        first = self.attempt(seat)
        if after is None or not self.ask_for(seat.step).stream:
            return await first
        return await race(first, partial(self.rival_to, seat.step), after=after, discard=_discard)

    async def rival_to(self, step: Step) -> Won | None:
        """A second attempt while the one at `step` is silent, if there are the means for it."""
        rival = self.itinerary.rival_of(step, self.failures, made=self.made, now=time.monotonic())
        seat = await self.take(rival) if rival else None
        if seat and not self.means.hedges.withdraw(time.time()):
            seat.place.give_back()
            seat = None
        return await self.attempt(seat) if seat else None

    async def attempt(self, seat: _Seat) -> Won | None:
        """One attempt, begun and booked; None when it failed or came too late. Raises ApiError for a final refusal."""
        self.made += 1
        self.is_paid = False
        asked = self.ask_for(seat.step)
        visit = self.begin_visit(seat.step, self.made, asked=asked, place=seat.place)
        try:
            answer, asked = await self.call(seat.step, asked, visit)
        except AttemptFailed as failure:
            visit.failed(failure)
            self.note(failure)
            return None
        except BaseException:
            self.call_off(visit)
            raise
        if self.is_won:
            self.call_off(visit)
            await _let_go(answer)
            return None
        self.is_won = True
        visit.answered(streaming=isinstance(answer, StreamAnswer))
        return Won(answer, visit, asked, self.made, tuple(self.failures))

    def call_off(self, visit: Visit) -> None:
        """Nobody waits for it any more, because another attempt was answered or because the client left."""
        if self.is_won:
            visit.outrun()
        else:
            visit.abandoned()

    async def call(self, step: Step, asked: Ask, visit: Visit) -> tuple[Answer, Ask]:
        """A step's answer, and what it was asked in the end. A key that was rotated costs no attempt."""
        headers = self.means.headers_for(step)
        try:
            return await self.call_with(headers, step, asked, visit)
        except AttemptFailed as failure:
            if failure.cause is not Cause.CREDENTIALS or failure.status not in _KEY_REFUSED:
                raise
            others = await self.means.headers_after_refusal(step, headers)
            if others is None:
                raise
            visit.asked_again(failure.detail)
        return await self.call_with(others, step, asked, visit)

    async def call_with(self, headers: Mapping[str, str], step: Step, asked: Ask, visit: Visit) -> tuple[Answer, Ask]:
        """The same with these headers for the backend."""
        once = partial(
            attempt,
            self.means.session,
            step,
            headers={**headers, "X-Request-Id": self.request_id},
            ends_at=self.itinerary.ends_at,
            capture=self.capture,
            gather=self.gather,
            body_will_do=not self.ask.stream,
        )
        try:
            return await once(asked, impatient=visit.is_brief), asked
        except AttemptFailed as failure:
            if asked.continues and failure.cause in _UNFIT_TO_CONTINUE:
                asked, impatient = self.ask, visit.is_brief
            elif stream := self.stream_instead(step, asked, failure):
                asked, impatient = stream, True
            else:
                raise
            if not await self.means.may_ask(step.backend):
                raise
            visit.asked_again(failure.detail)
        return await once(asked, impatient=impatient), asked

    def stream_instead(self, step: Step, asked: Ask, failure: AttemptFailed) -> Ask | None:
        """A body that is late where answers come soon may only be a long one: asked for as a stream, it shows."""
        if asked.stream or failure.cause is not Cause.SILENT:
            return None
        step.offer.speed.on_late(time.monotonic())
        stream = self.ask_for(step)
        return stream if stream.stream else None

    def note(self, failure: AttemptFailed) -> None:
        """Keep a failure for those that come after it. Raises ApiError where nothing may come after it."""
        self.failures.append(failure)
        if is_final(failure, self.ask.model):
            raise refusal_of(failure) from None

    def verdict(self) -> ApiError:
        if self.crowded:
            wait = self.means.places.retry_after(self.crowded, priority=self.priority, tenant=self.tenant)
            return crowded(self.failures, self.ask.model, retry_after=wait)
        if self.spent and not self.failures:
            return all_spent(self.spent, self.ask.model, now=time.monotonic())
        is_too_late = self.itinerary.is_too_late(time.monotonic())
        on_trial = [offer.backend.facts.name for offer in self.on_trial]
        return verdict_on(self.failures, self.ask.model, out_of_time=is_too_late, on_trial=on_trial)


async def _let_go(answer: Answer) -> None:
    if isinstance(answer, StreamAnswer):
        await answer.release()


async def _discard(won: Won) -> None:
    """An answer that came as its caller left."""
    won.visit.abandoned()
    await _let_go(won.answer)
