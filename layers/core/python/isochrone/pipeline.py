"""The way of a request, top to bottom:

    identify -> read -> authorize -> obey rules -> admit -> redact -> moderate     (isochrone.front_door)
        -> eligible regions -> look up -> coalesce -> reserve -> plan -> attempt* -> relay -> settle

Each step is a room with a core of its own; this module only says in which order they are asked, and what their
answers become. The doors and the other routes are in `isochrone.edge`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, NamedTuple

from isochrone.answers.completion import Answer
from isochrone.answers.desk import NOTHING_FOUND, Desk, Found
from isochrone.answers.fingerprint import storable
from isochrone.answers.flights import Asker, Flights, Generation
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.known import Known
from isochrone.api.controls import CacheMode, Controls, Recovery, controls_of
from isochrone.api.errors import ApiError, NotCached, NotFound, status_of
from isochrone.api.exchange import Reply, Request
from isochrone.api.requests import Ask, Operation
from isochrone.api.trail import Trail
from isochrone.audit.log import AnyLog
from isochrone.background import Background
from isochrone.errand import Admission, Allowed, Caller, Errand, Permit
from isochrone.front_door import FrontDoor
from isochrone.ledger.book import Book
from isochrone.ledger.counters import Counters
from isochrone.ledger.demand import Demand
from isochrone.ledger.entry import Entry
from isochrone.ledger.savings import Savings
from isochrone.ledger.usage import cost_of, usage_in, usage_of
from isochrone.light.work import Job, LightWork
from isochrone.replies import EVENT_STREAM, JSON, headers_of, told_again
from isochrone.routing import affinity
from isochrone.routing.exchange import Exchange
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Planner, Step, reason
from isochrone.routing.residency import eligible, is_inside, narrowed, not_allowed
from isochrone.settings import Settings
from isochrone.upstream.assembly import asked_of, assemble
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.delivery import Delivery
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.pursuit import BeginVisit, Means, Won, pursue
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.visit import Place, Visit

log = logging.getLogger("isochrone")

# What the header x-isochrone-cache says of an answer that was found there.
_CACHE_OF = {"memory": "hit", "store": "hit", "semantic": "semantic", "curated": "curated"}
# With one of these no backend can answer now; an answer past its time may be better than that.
_NONE_CAN_BE_HAD = frozenset({429, 500, 502, 503, 504})

# How many times longer than for a first token a backend may take for a whole body before a caller who gives up on it
# counts against it.
_BODY_PATIENCE = 6


class Rooms(NamedTuple):
    """What the pipeline asks; wiring puts it together."""

    front: FrontDoor
    desk: Desk
    fleet: Fleet
    planner: Planner
    means: Means
    book: Book
    counters: Counters
    savings: Savings
    demand: Demand
    flights: Flights
    light: LightWork
    audit: AnyLog
    exchange: Exchange | None = None


def _why(step: Step, errand: Errand) -> str:
    """Short and ASCII, for a header."""
    why = reason(step)
    if step.model != errand.ask.model:
        why = f"fallback {step.model}, {why}".encode("ascii", "replace").decode()
    return f"{why}; {errand.why_not}" if errand.why_not else why


def _believed(controls: Controls, caller: Caller) -> Controls:
    """No more urgent than the caller may be."""
    highest = caller.principal.priority
    return controls if controls.priority <= highest else controls._replace(priority=highest)


def _may_take(step: Step, allowed: Allowed) -> bool:
    regions = allowed.get(step.model)
    return regions is None or is_inside(step.backend.facts.region, regions)


def _held(reply: Reply, admission: Admission) -> Reply:
    """The reply, which ends its admission when it is over."""
    if reply.stream is None:
        admission.close()
    else:
        reply.endings.append(lambda _: admission.close())
    return reply


class Pipeline:
    """The way of one edge's generating requests. `now` gives epoch seconds."""

    def __init__(
        self, settings: Settings, rooms: Rooms, background: Background, *, now: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.rooms = rooms
        self._background = background
        self._now = now
        self._refreshing: set[str | None] = set()
        self._regions_of = {model.name: model.regions for model in settings.model}

    async def generate(self, operation: Operation, request: Request, caller: Caller) -> Reply:
        """Answer one generating request, from what is known or from a backend."""
        begun, controls = time.monotonic(), _believed(controls_of(request.headers), caller)
        lasts_until = self._lasts_until(request)
        front, trail = self.rooms.front, request.trail
        ask, request_id = front.read(operation, request), request.headers["x-request-id"]
        job = self.rooms.light.job_of(ask)
        if not job:
            self._check_model(ask)
        allowed = await front.authorize_model(caller, ask, trail, is_light=job is not None)
        allowed = {**allowed, **front.obey_rules(ask, trail)}
        admission = await front.admit(caller, ask)
        try:
            ask, vault, is_private = front.redact(caller, ask, trail)
            await front.moderate(ask, trail)
            if job:
                reply = await self._do_light(job, ask, request_id)
            else:
                reply = await self.answer(
                    caller,
                    ask,
                    controls,
                    request_id=request_id,
                    begun=begun,
                    lasts_until=lasts_until,
                    permit=Permit(trail, allowed, is_private, admission),
                )
            reply.headers.update(admission.headers())
            reply = front.restore(reply, vault)
        except BaseException:
            admission.close()
            raise
        return _held(reply, admission)

    async def answer(
        self,
        caller: Caller,
        ask: Ask,
        controls: Controls,
        *,
        request_id: str,
        begun: float,
        lasts_until: float,
        permit: Permit | None = None,
    ) -> Reply:
        """Answer an admitted request of this caller; `begun` and `lasts_until` are on the event loop's clock. Without a
        `permit` it is the edge's own work."""
        permit = permit or Permit(Trail())
        ends_at = min(lasts_until, begun + (controls.timeout or inf))
        inquiry = self.inquire(caller, ask, controls, permit)
        known, candidate, follow, why_not = await self._look_up(inquiry, ends_at)
        errand = Errand(
            ask=ask,
            caller=caller,
            regions=inquiry.regions,
            request_id=request_id,
            controls=controls,
            begun=begun,
            ends_at=ends_at,
            lasts_until=lasts_until,
            inquiry=inquiry,
            permit=permit,
            candidate=candidate,
            follow=follow,
            why_not=why_not,
        )
        if known and known.stale_for <= inquiry.terms.revalidate:
            return self._replay(known, errand)
        if controls.cache is CacheMode.ONLY:
            raise NotCached("This answer is not known, and x-isochrone-cache: only forbids to generate it.")
        try:
            await self.rooms.front.reserve(permit.admission, ask)
            reply = await self._answer(errand)
        except ApiError as error:
            if known is None or status_of(error) not in _NONE_CAN_BE_HAD:
                raise
            if await self.rooms.desk.is_revoked(inquiry, known):
                raise
            return self._replay(known, errand, instead_of=error)
        if inquiry.may_read and reply.headers["x-isochrone-cache"] != "coalesced":
            self.rooms.savings.miss(inquiry.tenant, now=self._now())
        return reply

    def _check_model(self, ask: Ask) -> None:
        if not self.rooms.fleet.offers(ask.model):
            raise NotFound(
                f"The model {ask.model!r} does not exist; GET /v1/models lists those that do.",
                code="model_not_found",
                param="model",
            )

    async def _do_light(self, job: Job, ask: Ask, request_id: str) -> Reply:
        """Work that needs no backend. Raises BadRequest, NotInstalled."""
        now, why = self._now(), f"light work: {job.task}"
        answer = await self.rooms.light.answer(job, ask, now=now)
        headers = self._counted(headers_of(cache="bypass", backend=answer.backend, attempts=0, why=why))
        return told_again(answer, ask, headers, request_id=request_id, now=now, cached=False)

    def inquire(self, caller: Caller, ask: Ask, controls: Controls, permit: Permit) -> Inquiry:
        """What an admitted request asks of the answers. Raises Forbidden, BadRequest."""
        principal = caller.principal
        regions = eligible(principal.regions, self._regions_of.get(ask.model, ()), controls.regions)
        allowed = permit.allowed.get(ask.model)
        if allowed is not None:
            regions = narrowed(regions, allowed)
            if not regions:
                raise not_allowed("policies allow none of the regions that are left")
        return self.rooms.desk.inquire(
            ask,
            tenant=principal.tenant,
            own=principal.answers,
            private=principal.private or permit.is_private,
            mode=controls.cache,
            regions=regions,
        )

    def _lasts_until(self, request: Request) -> float:
        """When the request must be over, if its caller does not want that sooner: what operator and platform allow."""
        limits = (self.settings.deadlines.total, request.time_left)
        return time.monotonic() + min(limit for limit in limits if limit is not None)

    async def _look_up(self, inquiry: Inquiry, ends_at: float) -> Found:
        """What is known; what is not found in time is not."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends_at):
                return await self.rooms.desk.look_up(inquiry, now=self._now())
        return NOTHING_FOUND

    async def _plan(self, errand: Errand) -> list[Step]:
        """The backends for this request, best first, by what all edges of the region know now. Raises Forbidden."""
        if self.rooms.exchange:
            await self.rooms.exchange.refresh()
        steps = self.rooms.planner.plan(
            errand.ask.model,
            client=errand.caller.location,
            now=time.monotonic(),
            regions=errand.regions,
            affinity=affinity.digest(errand.ask.fields),
        )
        allowed = errand.permit.allowed
        return [step for step in steps if _may_take(step, allowed)] if allowed else steps

    async def _answer(self, errand: Errand) -> Reply:
        """A backend's answer, shared with all who ask the same at this time, or nearly. Raises ApiError."""
        inquiry = errand.inquiry
        if inquiry.mark is None or not inquiry.may_share or errand.controls.recovery is not Recovery.SPLICE:
            return self._relay(await self._attempt(errand), errand)
        mark = errand.follow or inquiry.mark
        flight = mark + await self.rooms.desk.stamp(inquiry, mark) + errand.permit.apart(errand.ask.model)
        reply = await self.rooms.flights.share(self._asker(errand, mark, flight))
        if reply.headers["x-isochrone-cache"] == "coalesced":
            self.rooms.counters.add("cache_coalesced")
        return reply

    def _asker(self, errand: Errand, mark: str, flight: str) -> Asker:
        return Asker(
            mark=flight,
            stream=errand.ask.stream,
            include_usage=errand.ask.include_usage,
            ends_at=errand.ends_at,
            priority=errand.controls.priority,
            generate=partial(self._generate, errand),
            recall=partial(self._recall, errand.inquiry._replace(mark=mark)),
            replay=partial(self._replay_shared, errand, mark),
            landed=partial(self._count, errand, mark, "coalesced"),
            waits=not errand.refresh,
        )

    async def _generate(self, errand: Errand, generation: Generation) -> Reply:
        return self._relay(await self._attempt(errand), errand, generation)

    async def _recall(self, inquiry: Inquiry) -> Answer | None:
        """What another process has kept since we looked."""
        known = await self.rooms.desk.recall(inquiry, now=self._now())
        return known.answer if known else None

    def _replay_shared(self, errand: Errand, mark: str, answer: Answer) -> Reply:
        kept = mark if errand.inquiry.may_keep else None
        headers = headers_of(cache="coalesced", backend=answer.backend, attempts=0, why="shared generation", mark=kept)
        return told_again(answer, errand.ask, headers, request_id=errand.request_id, now=self._now())

    async def _attempt(self, errand: Errand) -> Won:
        won = await self._pursue(errand)
        if errand.ask.stream:
            return won
        return await assemble(won, partial(self._pursue, errand), errand.ask)

    async def _pursue(
        self,
        errand: Errand,
        made: int = 0,
        failures: Sequence[AttemptFailed] = (),
        ask_for: Callable[[Step], Ask] | None = None,
    ) -> Won:
        """The first answer along a plan of now: a stream that dies has met another fleet than is there by then."""
        steps = await self._plan(errand)
        if not made:
            self.rooms.means.deposit(self._now())
        return await pursue(
            steps,
            errand.ask,
            self.rooms.means,
            visit=self._visits_of(errand),
            request_id=errand.request_id,
            ends_at=errand.ends_at,
            capture=errand.inquiry.mark is not None
            or errand.controls.recovery is not Recovery.ERROR
            or not errand.ask.stream,
            gather=errand.inquiry.mark is not None and not storable(errand.ask, sampled=True),
            made=made,
            failures=failures,
            ask_for=ask_for or partial(asked_of, errand.ask),
            priority=errand.controls.priority,
            tenant=errand.caller.principal.tenant,
        )

    def _visits_of(self, errand: Errand) -> BeginVisit:
        """How each attempt is booked. A body comes all at once at the end: its silence means less than a stream's."""

        def begin(step: Step, number: int, *, asked: Ask, place: Place | None) -> Visit:
            first_token = step.offer.deadlines.first_token
            errand.permit.trail.unbooked += 1
            return Visit(
                step,
                number,
                request_id=errand.request_id,
                tenant=errand.caller.principal.tenant,
                book=self.rooms.book,
                patience=first_token if asked.stream else first_token * _BODY_PATIENCE,
                place=place,
                answer=errand.inquiry.mark,
                booked=partial(self._booked, errand),
            )

        return begin

    def _booked(self, errand: Errand, entry: Entry) -> None:
        errand.booked(entry)
        if entry.outcome == "ok" and entry.output_tokens:
            self.rooms.front.learn(entry.model, entry.output_tokens // errand.ask.generations)

    def _relay(self, won: Won, errand: Errand, generation: Generation | None = None) -> Reply:
        inquiry, step = errand.inquiry, won.visit.step
        headers = self._counted(
            headers_of(
                cache="miss" if inquiry.may_keep else "bypass",
                backend=step.backend.facts.name,
                attempts=won.made,
                why=_why(step, errand),
                mark=inquiry.mark if inquiry.may_keep else None,
            )
        )
        if isinstance(won.answer, BodyAnswer):
            self._settle(errand, generation, won, won.answer.body)
            return Reply(status=200, headers={**headers, **JSON}, body=won.answer.raw)
        stream = Delivery(
            won,
            partial(self._pursue, errand),
            recovery=errand.controls.recovery,
            include_usage=errand.ask.include_usage or generation is not None,
            on_complete=partial(self._settle_stream, errand, generation),
            on_broken=partial(self._broken, generation),
        )
        return Reply(status=200, headers={**headers, **EVENT_STREAM}, stream=stream)

    def _broken(self, generation: Generation | None) -> None:
        self.rooms.counters.add("streams_broken")
        if generation:
            generation.broke()

    def _settle_stream(self, errand: Errand, generation: Generation | None, won: Won, transcript: Transcript) -> None:
        # A client can leave with the last word; what the engine says of usage comes behind it, and was not heard then.
        heard_out = transcript.done or transcript.usage
        ask, created = errand.ask, int(self._now())
        if errand.inquiry.mark and transcript.storable and heard_out:
            self._settle(errand, generation, won, transcript.to_body(ask.operation, model=ask.model, created=created))
            return
        won.visit.succeeded(transcript.usage)
        if transcript.storable and self._is_sampled():
            self._look_at(errand, won, transcript.to_body(ask.operation, model=ask.model, created=created))

    def _settle(self, errand: Errand, generation: Generation | None, won: Won, body: dict[str, Any]) -> None:
        """The answer is complete: into the ledger, to those who share it, and into the store where it may be kept."""
        usage = usage_in(body, errand.ask.fields)
        won.visit.succeeded(usage)
        if self._is_sampled():
            self._look_at(errand, won, body)
        if not errand.inquiry.mark:
            return
        answer = self._answer_of(errand, won, body, usage)
        keep = partial(self._keep, errand, answer, won.visit.step.model)
        if generation:
            generation.settle(answer, keep)
        else:
            self._background.start(keep(None))

    def _is_sampled(self) -> bool:
        screen = self.rooms.front.screen
        return screen is not None and screen.looks_at_answers()

    def _look_at(self, errand: Errand, won: Won, body: dict[str, Any]) -> None:
        """Have the moderation see what was told already: it can only be remembered."""
        self._background.start(self._moderated(errand, won.visit.step, body))

    async def _moderated(self, errand: Errand, step: Step, body: dict[str, Any]) -> None:
        screen, request_id = self.rooms.front.screen, errand.request_id
        if screen and (rule := await screen.look_at(body)):
            log.warning("request %s: its answer was flagged: %s", request_id, rule)
            tenant, backend = errand.caller.principal.tenant, step.backend.facts.name
            self.rooms.audit.flag(request_id, rule, tenant=tenant, model=step.model, backend=backend)

    async def _keep(self, errand: Errand, answer: Answer, model: str, fence: int | None) -> bool:
        """Can others find it now? A fallback's answer is not kept: it would go on answering for the model long after
        that is back."""
        if model != errand.ask.model or not self.rooms.front.may_keep(errand.caller, answer.body):
            return False
        if errand.candidate:
            self._background.start(self.rooms.desk.learn(errand.candidate, answer))
        return await self.rooms.desk.keep(errand.inquiry, answer, fence=fence)

    def _answer_of(self, errand: Errand, won: Won, body: dict[str, Any], usage: dict[str, Any]) -> Answer:
        facts = won.visit.step.backend.facts
        return Answer(
            operation=errand.ask.operation.name,
            backend=facts.name,
            created=self._now(),
            body={**body, "usage": usage},
            model=errand.ask.model,
            question=errand.inquiry.text or "",
            seconds=time.monotonic() - errand.begun,
            cost=cost_of(facts.price, *usage_of(usage)),
            request=errand.asked() if self.settings.answers.warm else None,
        )

    def _replay(self, known: Known, errand: Errand, *, instead_of: ApiError | None = None) -> Reply:
        """A known answer, in the form that was asked for. One past its time says so, and why it is given."""
        answer, now = known.answer, self._now()
        cache = _CACHE_OF[known.tier]
        headers = self._counted(
            headers_of(cache=cache, backend=answer.backend, attempts=0, why=known.why, mark=known.mark)
        )
        self._count(errand, known.mark, known.tier, answer)
        if known.stale_for:
            headers["age"] = str(max(0, int(now - answer.created)))
            headers["x-isochrone-stale"] = "error" if instead_of else "revalidating"
        if not instead_of and (known.stale_for or errand.candidate):
            self._background.start(self._refresh(errand))
        return told_again(answer, errand.ask, headers, request_id=errand.request_id, now=self._now())

    def _count(self, errand: Errand, mark: str, tier: str, answer: Answer) -> None:
        tenant, now = errand.inquiry.tenant, self._now()
        self.rooms.savings.hit(tenant, tier, answer, took=time.monotonic() - errand.begun, now=now)
        if tier != "curated":  # nobody makes those anew
            self.rooms.demand.asked(tenant, mark, now)

    async def _refresh(self, errand: Errand) -> None:
        """A new answer in place of one past its time, or to check one; one at a time, and nobody waits for it. It uses
        what its caller may use."""
        mark, admission = errand.inquiry.mark, errand.permit.admission
        if mark in self._refreshing or errand.controls.cache is CacheMode.ONLY:
            return
        self._refreshing.add(mark)
        try:
            with suppress(ApiError):
                await self.rooms.front.reserve(admission, errand.ask)
                await self._answer(errand.for_nobody())
        finally:
            admission.close()
            self._refreshing.discard(mark)

    def _counted(self, headers: dict[str, str]) -> dict[str, str]:
        self.rooms.counters.add("cache_" + headers["x-isochrone-cache"])
        return headers
