"""One edge: its routes, and the one place where an error becomes a reply. `handle` is the entrance for all doors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from isochrone import __version__, status
from isochrone.api.controls import request_id
from isochrone.api.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, status_of
from isochrone.api.exchange import Outcome, Reply, Request, Watched
from isochrone.api.head import normalise
from isochrone.api.requests import OPERATIONS, Operation
from isochrone.api.trail import Trail
from isochrone.audit.entry import entry_of
from isochrone.audit.log import NoLog
from isochrone.background import Background
from isochrone.edge_answers import PATHS as ANSWER_PATHS
from isochrone.edge_answers import AnswerRoutes
from isochrone.errand import Caller
from isochrone.faults import wordless
from isochrone.pipeline import Pipeline
from isochrone.replies import JSON
from isochrone.routes import NOBODY, Route, opened
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone")

PRIVATE = {"cache-control": "private, no-store", "vary": "authorization"}
_MAX_LEDGER_PAGE = 1000
# Counters that say nothing of what a tenant asked.
_FOR_ALL_TO_SEE = ("answered_", "status_", "streams_")

Hook = Callable[[], Awaitable[None]]


class Edge:
    """`start` and `close` bracket its life; `clock` is the event loop's, in seconds, `now` epoch seconds.

    `with_metrics` opens GET /metrics, which asks for no key: only for an edge that nobody but its operator reaches.
    """

    def __init__(
        self,
        region: str,
        pipeline: Pipeline,
        background: Background,
        *,
        on_start: Hook,
        on_flush: Hook,
        on_close: Hook,
        with_metrics: bool,
        answers: AnswerRoutes | None = None,
        new_id: Callable[[], str],
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.region = region
        self.pipeline = pipeline
        self.ready = False
        self._rooms = pipeline.rooms
        self._background = background
        self._on_start, self._on_flush, self._on_close = on_start, on_flush, on_close
        self._answers = answers
        self._new_id = new_id
        self._audit = pipeline.rooms.audit
        self._is_audited = not isinstance(self._audit, NoLog)
        self._clock = clock
        self._now = now
        self._routes = self._route_table(with_metrics=with_metrics)
        self._every_reply = {"x-isochrone-edge": region, **PRIVATE}

    def _route_table(self, *, with_metrics: bool) -> dict[str, dict[str, Route]]:
        """Only what stands here as open can be asked without being identified."""
        routes: dict[str, dict[str, Route]] = {
            "/healthz": {"GET": opened(self.show_health)},
            "/readyz": {"GET": opened(self.show_readiness)},
            "/v1/models": {"GET": Route(self.list_models, "read")},
            "/v1/status": {"GET": Route(self.show_status, "read")},
            "/v1/ledger": {"GET": Route(self.list_ledger, "read")},
        }
        if with_metrics:
            routes["/metrics"] = {"GET": opened(self.show_metrics)}
        for operation in OPERATIONS:
            routes["/v1" + operation.path] = {"POST": Route(partial(self._generate, operation))}
        return routes

    async def _generate(self, operation: Operation, request: Request, caller: Caller) -> Reply:
        """The pipeline's answer, counted apart from what probes and consoles ask: `status_200` has those in it too."""
        try:
            reply = await self.pipeline.generate(operation, request, caller)
        except Exception as error:
            self._rooms.counters.add(f"answered_{status_of(error) if isinstance(error, ApiError) else 500}")
            raise
        self._rooms.counters.add(f"answered_{reply.status}")
        return reply

    async def start(self) -> None:
        """Fetch what must be there before the first request (secrets), then be ready."""
        await self._on_start()
        self.ready = True

    def healthy_pools(self) -> int | None:
        """How many pools are known to take requests; None while none of them has been tried."""
        now = self._clock()
        pools = [state.offers for state in self._rooms.fleet.states if state.facts.kind == "pool"]
        if not any(offer.was_tried for offers in pools for offer in offers):
            return None
        return sum(any(offer.was_tried and offer.takes_requests(now) for offer in offers) for offers in pools)

    def saved(self) -> dict[str, float]:
        """What known answers saved since the last call, by the names of metrics."""
        return self._rooms.savings.news()

    def refused(self) -> int:
        """How much of the directory nobody can obey: revocations, and its policies, which are refused together."""
        policies, revoked = self._rooms.front.policies, self._rooms.desk.revoked(None)
        refused = bool(policies and policies.status()["refused"])
        return refused + (revoked["unreadable"] if revoked else 0)

    async def flush(self) -> None:
        """Finish what was left to the background and do the chores that are due: a Lambda calls this before it lets
        itself be frozen. Side by side: it pays for the time, and a slow table must not cost the others their turn."""
        unwritten, _ = await asyncio.gather(self._settle(), self._background.finish())
        if len(self._rooms.book) > unwritten:  # an answer was made meanwhile, for nobody who waits
            await self._settle()

    async def _settle(self) -> int:
        """How many entries the ledger did not take."""
        await asyncio.gather(self._rooms.book.flush(), self._audit.flush(), self._on_flush())
        return len(self._rooms.book)

    async def close(self) -> None:
        """Stop being ready, call off what is still generated, finish the background, write the ledger's last entries,
        close every connection."""
        self.ready = False
        self._rooms.flights.call_off()
        await self._background.finish()
        await self._on_close()

    async def handle(self, request: Request) -> Reply:
        """Answer any request; whatever is wrong becomes an error reply. Only cancellation passes through."""
        begun, own_id = self._clock(), request_id(request.headers.get("x-request-id")) or self._new_id()
        request.headers = {**request.headers, "x-request-id": own_id}
        trail = request.trail
        trail.at, trail.request_id, trail.method, trail.path = self._now(), own_id, request.method, request.path
        try:
            normalise(request, self.pipeline.settings.limits)
            route = self._route(request)
            reply = await (route.handler(request, NOBODY) if route.is_open else self._let_in(route, request))
        except ApiError as error:
            return self._remembered(self.refuse(error, own_id), request, begun, error)
        except asyncio.CancelledError:
            self._over(trail, begun, "left")
            raise
        except Exception as error:
            log.error("request %s failed inside the edge", own_id, exc_info=wordless(error))
            fault = ApiError("Something went wrong inside the edge; its log has the request id.")
            return self._remembered(self.refuse(fault, own_id), request, begun, fault)
        reply = self._signed(reply, own_id)
        return reply if route.is_open else self._remembered(reply, request, begun)

    async def _let_in(self, route: Route, request: Request) -> Reply:
        """Only who is known, and may: what is allowed of a generation is decided when it was read."""
        front = self._rooms.front
        caller = await front.identify(request)
        if route.action:
            await front.authorize(caller, route.action, request.trail)
        return await route.handler(request, caller)

    def _remembered(self, reply: Reply, request: Request, begun: float, error: ApiError | None = None) -> Reply:
        """The reply, of which there is an entry in the audit when its last byte is out."""
        trail = request.trail
        trail.answered(reply.status, reply.headers)
        if error:
            trail.fail(error)
            if not trail.address:
                self._rooms.front.locate(request)
        if reply.stream is None:
            self._over(trail, begun, "complete")
            return reply
        self._note(trail)
        reply.stream = Watched(reply.stream, (*reply.endings, partial(self._over, trail, begun)))
        return reply

    def _over(self, trail: Trail, begun: float, outcome: Outcome) -> None:
        if not self._is_audited:
            return
        trail.latency_ms = (self._clock() - begun) * 1000
        trail.outcome = outcome
        if trail.unbooked and not trail.is_noted:
            self._note(trail)
        trail.when_booked(lambda: self._audit.record(entry_of(trail, edge=self.region)))

    def _note(self, trail: Trail) -> None:
        """What is known by now, should nothing else become known: the process may end before the request does."""
        if not self._is_audited:
            return
        trail.is_noted = True
        self._audit.begin(entry_of(trail, edge=self.region))

    def refuse(self, error: ApiError, own_id: str | None = None) -> Reply:
        """The reply for an error, also for one that a door found before there was a whole request."""
        reply = Reply(status=status_of(error), headers=error.headers(), body=error.body())
        return self._signed(reply, own_id or self._new_id())

    def _signed(self, reply: Reply, own_id: str) -> Reply:
        reply.headers.update(self._every_reply)
        reply.headers["x-request-id"] = own_id
        self._rooms.counters.add(f"status_{reply.status}")
        return reply

    def _route(self, request: Request) -> Route:
        methods = self._routes.get(request.path)
        if methods is None and request.path.startswith("/v1/models/"):
            methods = {"GET": Route(self.show_model, "read")}
        if methods is None and self._answers:
            methods = self._answers.methods(request.path)
        if methods is None:
            raise NotFound(f"There is no {request.path[:200]!r} here; the API is below /v1.", code="unknown_url")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            allow = ", ".join(methods)
            raise MethodNotAllowed(f"{request.path} takes {allow}, not {request.method[:20]}.", allow=allow)
        return methods[method]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path below which there is something, `{id}` where a name is to be put."""
        return (*self._routes, "/v1/models/{id}", *(ANSWER_PATHS if self._answers else ()))

    # -- what is not generated ---------------------------------------------------------------------------------------

    async def show_health(self, _: Request, __: Caller) -> Reply:
        """The process is alive; asks nobody."""
        return _json({"status": "ok"})

    async def show_readiness(self, _: Request, __: Caller) -> Reply:
        """200 when requests may come, 503 while starting or draining."""
        return _json({"status": "ready" if self.ready else "not ready"}, status=200 if self.ready else 503)

    async def show_metrics(self, request: Request, _: Caller) -> Reply:
        """Counters of this process, for Prometheus."""
        self._rooms.front.check_stranger(request)
        text = self._rooms.counters.exposition() + self._rooms.savings.exposition()
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return Reply(status=200, headers=headers, body=text.encode())

    async def list_models(self, _: Request, __: Caller) -> Reply:
        """Every public model name, in the order of the configuration, and those of light work."""
        return _json({"object": "list", "data": [_model(name) for name in self._models()]})

    def _models(self) -> tuple[str, ...]:
        return (*self._rooms.fleet.models, *self._rooms.light.models)

    async def show_model(self, request: Request, _: Caller) -> Reply:
        """One model."""
        name = request.path.removeprefix("/v1/models/")
        if name not in self._models():
            raise NotFound(f"The model {name[:200]!r} does not exist.", code="model_not_found", param="model")
        return _json(_model(name))

    async def show_status(self, _: Request, caller: Caller) -> Reply:
        """The fleet as this edge sees it and why, and the client as this edge sees it."""
        counters = self._shown_counters()
        about = {"edge": self.region, "version": __version__, "ready": self.ready, "counters": counters}
        only_own = self.pipeline.settings.auth.required
        return _json({**about, **status.of(self._rooms, caller, now=self._clock(), only_own=only_own)})

    def _shown_counters(self) -> dict[str, int]:
        """Where there are tenants, none may see by a count that another one's answer was known, or one like it."""
        counts = self._rooms.counters.as_dict()
        if self.pipeline.settings.auth.required:
            return {name: count for name, count in counts.items() if name.startswith(_FOR_ALL_TO_SEE)}
        return counts

    async def list_ledger(self, request: Request, caller: Caller) -> Reply:
        """The own tenant's newest entries, newest first; `?limit=` up to 1000."""
        limit = _limit(request.query.get("limit"))
        try:
            entries = await self._rooms.book.recent(caller.principal.tenant, limit=limit)
        except StoreUnavailable:
            raise ApiError("The ledger cannot be read now; nothing is lost.", code="ledger_unavailable") from None
        return _json({"object": "list", "data": entries})


def _limit(value: str | None) -> int:
    try:
        limit = int(value or 100)
    except ValueError:
        limit = 0
    if not 1 <= limit <= _MAX_LEDGER_PAGE:
        raise BadRequest(f"'limit' must be a whole number from 1 to {_MAX_LEDGER_PAGE}.", param="limit")
    return limit


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "isochrone"}


def _json(data: Any, *, status: int = 200) -> Reply:
    return Reply(status=status, headers=dict(JSON), body=msgspec.json.encode(data))
