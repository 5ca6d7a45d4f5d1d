"""A whole pursuit, its attempts scripted: who is asked, what is waited for and paid, what the caller is told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import aiohttp
import pytest

from isochrone.api.errors import (
    ApiError,
    NothingAlive,
    Saturated,
    UpstreamRefused,
    status_of,
)
from isochrone.api.requests import CHAT, Ask
from isochrone.ledger.book import Book
from isochrone.routing.fleet import Fleet, Offer
from isochrone.routing.health import Standing
from isochrone.routing.places import Place, Places
from isochrone.routing.plan import Step
from isochrone.settings import Backend, Retry
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream import pursuit
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.pursuit import Answer, Means, Won, pursue
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.visit import Visit
from tests.plans import plan

ASK = Ask(CHAT, "m", stream=False, include_usage=False, fields={"model": "m"})
STREAM = ASK._replace(stream=True)
REST = ASK._replace(continues=True)
ANSWER = BodyAnswer(b"{}", {})
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")

Outcome = BodyAnswer | AttemptFailed | asyncio.Event


def pool(name: str, region: str = REGIONS[0], **more: Any) -> Backend:
    return Backend(name=name, base_url="http://127.0.0.1:9", **{"models": {"m": "m"}, "region": region, **more})


class Scene:
    """A fleet, the outcome of each attempt in order, and what was done: backends asked, seconds slept.

    An outcome that is an event is a backend that says nothing until it is set, and then answers; where the scene
    `streams`, with a stream.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *outcomes: Outcome,
        backends: int | Sequence[Backend] = 2,
        fallback: Sequence[str] = (),
        ratio: float = 1.0,
        hedge_ratio: float = 1.0,
    ) -> None:
        self.outcomes = deque(outcomes)
        self.asked: list[str] = []
        self.asks: list[Ask] = []
        self.options: list[dict[str, Any]] = []
        self.slept: list[float] = []
        self.book = Book(MemoryLedgerStore())
        facts = (
            [pool(f"pool-{i}", REGIONS[i]) for i in range(backends)] if isinstance(backends, int) else list(backends)
        )
        self.steps = plan("m", fallback, Fleet(facts, edge_region=REGIONS[0]), client=None, near="edge", now=0.0)
        self.budget = RetryBudget(ratio)
        self.hedges = RetryBudget(hedge_ratio, floor=0, name="hedges")
        self.places = FewPlaces(**{facts.name: 99 for facts in facts})
        self.hung = 0
        self.streams = False
        self.open_streams = 0
        monkeypatch.setattr(pursuit, "attempt", self._attempt)
        monkeypatch.setattr("isochrone.upstream.pursuit.asyncio.sleep", self._sleep)

    async def _attempt(self, _: object, step: Step, ask: Ask, **options: Any) -> Answer:
        self.asked.append(step.backend.facts.name)
        self.asks.append(ask)
        self.options.append(options)
        outcome = self.outcomes.popleft()
        if isinstance(outcome, asyncio.Event):
            self.hung += 1
            try:
                await outcome.wait()
            finally:
                self.hung -= 1
            return self._stream() if self.streams else ANSWER
        if isinstance(outcome, AttemptFailed):
            raise outcome
        return outcome

    def _stream(self) -> StreamAnswer:
        async def nothing(_: float) -> bytes:
            return b""

        def close() -> None:
            self.open_streams -= 1

        self.open_streams += 1
        return StreamAnswer(nothing, Transcript(capture=False), stall=1.0, ends_at=0.0, close=close)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def pursue(
        self,
        ask: Ask = ASK,
        *,
        attempts: int = 3,
        ends_in: float = 60.0,
        chance: float = 0.0,
        hedge_after: float | None = None,
        max_wait: float = 10.0,
        **more: Any,
    ) -> Won:
        means = Means(
            session=cast(aiohttp.ClientSession, None),
            retry=Retry(attempts=attempts),
            budget=self.budget,
            headers_for=lambda step: {"Authorization": step.backend.facts.name},
            chance=lambda: chance,
            hedges=self.hedges,
            places=cast(Places, self.places),
            hedge_after={} if hedge_after is None else {"m": hedge_after},
            max_wait=max_wait,
        )
        ends_at = time.monotonic() + ends_in
        return await pursue(
            self.steps, ask, means, visit=self._visit, request_id="r", ends_at=ends_at, capture=False, **more
        )

    def _visit(self, step: Step, number: int, *, asked: Ask, place: Place) -> Visit:
        return Visit(step, number, request_id="r", tenant="t", book=self.book, place=place)

    async def verdict(self, ask: Ask = ASK, **options: Any) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.pursue(ask, **options)
        return caught.value

    @property
    def in_flight(self) -> list[int]:
        return [step.backend.in_flight for step in self.steps]

    async def outcomes_in_ledger(self) -> list[tuple[int, str]]:
        entries = await self.book.recent("t", limit=99)
        return sorted((entry["attempt"], entry["outcome"]) for entry in entries)


class FewPlaces:
    """So many places at each backend by name; `asked` are those of whom a place was wanted, `waited` how the waiting
    room was asked. A request in it gets what `coming` says."""

    def __init__(self, **free: int) -> None:
        self.free = {name.replace("_", "-"): count for name, count in free.items()}
        self.asked: list[tuple[str, int]] = []
        self.waited: list[tuple[list[str], int, float]] = []
        self.tenants: set[str] = set()
        self.coming = ""

    async def take(self, offer: Offer, *, priority: int, tenant: str) -> OnePlace | None:
        self.tenants.add(tenant)
        name = offer.backend.facts.name
        self.asked.append((name, priority))
        if not self.free[name]:
            return None
        self.free[name] -= 1
        return OnePlace(self, offer)

    async def wait(self, offers: Sequence[Offer], *, priority: int, until: float, tenant: str) -> OnePlace | None:
        self.tenants.add(tenant)
        names = [offer.backend.facts.name for offer in offers]
        self.waited.append((names, priority, round(until - time.monotonic(), 1)))
        return next((OnePlace(self, offer) for offer in offers if offer.backend.facts.name == self.coming), None)

    def retry_after(self, offers: Sequence[Offer], *, priority: int, tenant: str) -> float:
        self.tenants.add(tenant)
        return 10.0 * len(offers) + priority


class OnePlace:
    is_trial = False

    def __init__(self, places: FewPlaces, offer: Offer) -> None:
        self.offer = offer
        self._places = places

    def give_back(self) -> None:
        self._places.free[self.offer.backend.facts.name] += 1


SceneOf = Callable[..., Scene]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> SceneOf:
    def make(*outcomes: Outcome, **options: Any) -> Scene:
        return Scene(monkeypatch, *outcomes, **options)

    return make


def failed(cause: Cause, **more: Any) -> AttemptFailed:
    return AttemptFailed(cause, f"was {cause.value}", **more)


def failed_before(backend: str, cause: Cause = Cause.CUT) -> AttemptFailed:
    failure = failed(cause)
    failure.belongs_to(backend, "m", now=0.0)
    return failure


async def test_first_backend_that_answers_wins(scene: SceneOf) -> None:
    it = scene(ANSWER)
    won = await it.pursue()
    assert (won.answer, won.ask, won.visit.number, it.asked) == (ANSWER, ASK, 1, ["pool-0"])


async def test_attempt_is_given_the_backends_headers_the_request_id_and_the_end(scene: SceneOf) -> None:
    it = scene(ANSWER)
    await it.pursue(ends_in=60.0)
    (options,) = it.options
    assert options["headers"] == {"Authorization": "pool-0", "X-Request-Id": "r"}
    assert 59 < options["ends_at"] - time.monotonic() <= 60
    assert (options["capture"], options["impatient"], options["body_will_do"]) == (False, False, True)


async def test_caller_of_a_stream_is_not_served_with_a_body(scene: SceneOf) -> None:
    it = scene(ANSWER)
    await it.pursue(STREAM)
    assert it.options[0]["body_will_do"] is False


FINAL = (Cause.REFUSED, Cause.FILTERED, Cause.CONTEXT)


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in FINAL])
async def test_next_backend_is_asked_at_once_after_any_failure_but_a_refusal(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause), ANSWER)
    won = await it.pursue(chance=0.9)
    assert (won.visit.number, won.made, it.asked, it.slept) == (2, 2, ["pool-0", "pool-1"], [])


@pytest.mark.parametrize("cause", FINAL)
async def test_refusal_is_the_callers_and_nobody_else_is_asked_for_that_model(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause, status=422, body=b'{"error": {"message": "no"}}'))
    error = await it.verdict()
    assert isinstance(error, UpstreamRefused)
    assert (error.refused_status, error.upstream_body, it.asked) == (422, b'{"error": {"message": "no"}}', ["pool-0"])
    assert await it.outcomes_in_ledger() == [(1, cause.value)]


async def test_refusal_by_a_fallback_is_not_the_callers(scene: SceneOf) -> None:
    backends = [pool("pool"), pool("api", models={"chat": "c"}), pool("other", models={"more": "c"})]
    it = scene(failed(Cause.SILENT), failed(Cause.REFUSED), ANSWER, backends=backends, fallback=("chat", "more"))
    won = await it.pursue()
    assert (it.asked, won.visit.step.model) == (["pool", "api", "other"], "more")


async def test_content_filter_of_a_fallback_is_the_callers_to_hear(scene: SceneOf) -> None:
    backends = [pool("pool"), pool("api", models={"chat": "c"})]
    it = scene(failed(Cause.SILENT), failed(Cause.FILTERED, status=400), backends=backends, fallback=("chat",))
    assert isinstance(await it.verdict(), UpstreamRefused)


async def test_attempts_are_bounded(scene: SceneOf) -> None:
    it = scene(*[failed(Cause.BROKEN)] * 9, backends=3)
    await it.verdict(attempts=2)
    assert it.asked == ["pool-0", "pool-1"]


async def test_backend_whose_failure_may_have_passed_is_asked_again_after_a_pause(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), failed(Cause.BROKEN), ANSWER, backends=1)
    await it.pursue(attempts=3, chance=1.0)
    assert it.asked == ["pool-0"] * 3
    assert it.slept == [0.1, 0.2]


async def test_backend_is_asked_again_only_when_it_wished_to_be(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=1.5), ANSWER, backends=1)
    await it.pursue()
    assert it.slept == [pytest.approx(1.5, abs=0.1)]


async def test_backend_that_asks_for_a_long_wait_is_left_alone(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=30.0), backends=1)
    error = await it.verdict()
    assert isinstance(error, Saturated)
    assert (error.retry_after, it.asked, it.slept) == (30.0, ["pool-0"], [])


async def test_asked_for_model_is_worth_one_retry_before_the_fallback(scene: SceneOf) -> None:
    backends = [pool("pool", models={"m": "m", "chat": "c"})]
    it = scene(failed(Cause.BROKEN), failed(Cause.BROKEN), ANSWER, backends=backends, fallback=("chat",))
    won = await it.pursue()
    assert (it.asked, won.visit.step.model, won.visit.number) == (["pool"] * 3, "chat", 3)


async def test_spent_budget_ends_a_pursuit_before_its_pause(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), ratio=0.0, backends=1)
    assert isinstance(await it.verdict(chance=1.0), NothingAlive)
    assert (it.asked, it.slept) == (["pool-0"], [])


async def test_first_attempt_is_free_and_each_further_one_is_paid_for_once(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), failed(Cause.BROKEN), ANSWER, backends=3)
    before = it.budget._left()
    await it.pursue()
    assert it.budget._left() == before - 2


async def test_attempt_that_time_forbids_costs_no_budget(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=1.0), backends=1)
    before = it.budget._left()
    await it.verdict(ends_in=0.5)
    assert (it.asked, it.slept, it.budget._left()) == (["pool-0"], [], before)


async def test_request_without_time_asks_nobody(scene: SceneOf) -> None:
    it = scene(ANSWER)
    error = await it.verdict(ends_in=0.0)
    assert (status_of(error), it.asked) == (504, [])


async def test_attempts_and_failures_of_before_count(scene: SceneOf) -> None:
    it = scene(ANSWER)
    before = it.budget._left()
    won = await it.pursue(made=1, failures=[failed_before("pool-0")])
    assert (won.visit.number, it.asked, it.budget._left()) == (2, ["pool-1"], before - 1)


async def test_failures_of_before_are_not_changed(scene: SceneOf) -> None:
    it = scene(failed(Cause.SILENT), failed(Cause.SILENT))
    failures = [failed_before("pool-0")]
    await it.verdict(made=1, failures=failures)
    assert len(failures) == 1


async def test_nothing_is_asked_when_all_attempts_are_made(scene: SceneOf) -> None:
    it = scene()
    await it.verdict(made=3, failures=[failed_before("pool-0")] * 3)
    assert it.asked == []


async def test_every_visit_ends_and_is_written_down(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), failed(Cause.OVERLOADED), failed(Cause.BROKEN))
    await it.verdict()
    assert await it.outcomes_in_ledger() == [(1, "broken"), (2, "overloaded"), (3, "broken")]
    assert it.in_flight == [0, 0]


async def test_mistake_ends_the_visit_too(scene: SceneOf) -> None:
    it = scene()
    with pytest.raises(IndexError):  # the script is empty
        await it.pursue()
    assert it.in_flight == [0, 0]
    assert await it.outcomes_in_ledger() == [(1, "cancelled")]


async def test_backend_that_lacks_the_model_is_asked_for_the_fallback(scene: SceneOf) -> None:
    backends = [pool("both", models={"m": "m", "chat": "c"})]
    it = scene(failed(Cause.MISSING), ANSWER, backends=backends, fallback=("chat",))
    won = await it.pursue()
    assert (it.asked, won.visit.step.model) == (["both", "both"], "chat")


async def test_route_that_no_backend_has_is_refused_as_such_and_speaks_against_none(scene: SceneOf) -> None:
    refusal = b'{"error": {"message": "no embeddings here"}}'
    it = scene(*(failed(Cause.MISSING, status=501, body=refusal) for _ in range(2)))
    error = await it.verdict()
    assert status_of(error) == 501
    assert b"no embeddings here" in error.body()
    assert {step.offer.standing(time.monotonic()) for step in it.steps} == {Standing.HEALTHY}


async def test_empty_plan_is_503(scene: SceneOf) -> None:
    it = scene(backends=())
    error = await it.verdict()
    assert (status_of(error), error.message) == (503, "No backend for this model could answer: none is left.")


# -- going on from a text --------------------------------------------------------------------------------------------


async def test_winner_knows_what_failed_before_it(scene: SceneOf) -> None:
    before, now = failed_before("pool-0"), failed(Cause.BROKEN)
    won = await scene(now, ANSWER, backends=3).pursue(made=1, failures=[before])
    assert list(won.failures) == [before, now]


async def test_first_token_of_a_stream_is_timed_and_a_body_has_none(scene: SceneOf) -> None:
    answered = asyncio.Event()
    answered.set()
    it = scene(answered, answered)
    assert (await it.pursue()).visit.first_token_ms is None
    it.streams = True
    assert (await it.pursue(STREAM)).visit.first_token_ms is not None


def once_late_a_stream(it: Scene, first: Ask) -> Callable[[Step], Ask]:
    """What steps are asked: `first`, and a stream as soon as an attempt was made."""
    return lambda _: STREAM if it.asked else first


async def test_body_that_is_late_is_asked_for_as_a_stream_within_the_same_attempt(scene: SceneOf) -> None:
    it = scene(failed(Cause.SILENT), ANSWER)
    before = it.budget._left()
    won = await it.pursue(ask_for=once_late_a_stream(it, ASK))
    assert (it.asked, it.asks, won.ask) == (["pool-0", "pool-0"], [ASK, STREAM], STREAM)
    assert [options["impatient"] for options in it.options] == [False, True]
    assert (won.made, list(won.failures), it.budget._left()) == (1, [], before)
    won.visit.succeeded(None)
    (entry,) = await it.book.recent("t", limit=9)
    assert (entry["outcome"], "was silent" in entry["detail"]) == ("ok", True)


@pytest.mark.parametrize(("first", "cause"), [(STREAM, Cause.SILENT), (ASK, Cause.BROKEN), (ASK, Cause.UNREACHABLE)])
async def test_only_a_late_body_is_asked_for_anew(scene: SceneOf, first: Ask, cause: Cause) -> None:
    it = scene(failed(cause), ANSWER)
    won = await it.pursue(ask_for=once_late_a_stream(it, first))
    assert (it.asked, won.made) == (["pool-0", "pool-1"], 2)


async def test_late_body_that_can_be_no_stream_is_asked_for_elsewhere(scene: SceneOf) -> None:
    it = scene(failed(Cause.SILENT), ANSWER)
    assert (await it.pursue()).made == 2
    assert (it.asked, it.asks) == (["pool-0", "pool-1"], [ASK, ASK])


async def test_each_step_is_asked_in_its_own_words(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), ANSWER)
    won = await it.pursue(ask_for=lambda step: ASK if step.backend.facts.name == "pool-0" else REST)
    assert (it.asks, won.ask) == ([ASK, REST], REST)


@pytest.mark.parametrize("cause", [Cause.REFUSED, Cause.CONTEXT, Cause.MISSING])
async def test_backend_that_refuses_to_go_on_is_asked_anew_in_the_same_attempt(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause, status=400), ANSWER)
    won = await it.pursue(ask_for=lambda _: REST)
    assert (it.asked, it.asks, won.ask, won.visit.number) == (["pool-0"] * 2, [REST, ASK], ASK, 1)
    won.visit.succeeded(None)
    assert await it.outcomes_in_ledger() == [(1, "ok")]


async def test_refusal_to_go_on_never_masks_what_is_wrong_with_the_request(scene: SceneOf) -> None:
    it = scene(failed(Cause.REFUSED, status=400, body=b"no prefill"), failed(Cause.REFUSED, status=422, body=b"wrong"))
    error = await it.verdict(ask_for=lambda _: REST)
    assert isinstance(error, UpstreamRefused)
    assert (error.refused_status, error.upstream_body) == (422, b"wrong")


@pytest.mark.parametrize("cause", [Cause.BROKEN, Cause.OVERLOADED, Cause.SILENT])
async def test_failure_that_has_nothing_to_do_with_going_on_is_like_any_other(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause), ANSWER)
    won = await it.pursue(ask_for=lambda _: REST)
    assert (it.asked, it.asks, won.visit.number) == (["pool-0", "pool-1"], [REST, REST], 2)


# -- places ----------------------------------------------------------------------------------------------------------


async def test_full_backend_is_passed_over_without_an_attempt_or_a_payment(scene: SceneOf) -> None:
    it = scene(ANSWER)
    it.places = FewPlaces(pool_0=0, pool_1=1)
    before = it.budget._left()
    won = await it.pursue(priority=9)
    assert (it.asked, won.visit.number, it.budget._left()) == (["pool-1"], 1, before)
    assert it.places.asked == [("pool-0", 9), ("pool-1", 9)]
    assert await it.outcomes_in_ledger() == []


async def test_place_is_held_until_the_visit_ends(scene: SceneOf) -> None:
    it = scene(ANSWER)
    it.places = FewPlaces(pool_0=1, pool_1=1)
    won = await it.pursue()
    assert it.places.free == {"pool-0": 0, "pool-1": 1}
    won.visit.succeeded(None)
    assert it.places.free == {"pool-0": 1, "pool-1": 1}


async def test_request_waits_for_a_place_when_all_are_full(scene: SceneOf) -> None:
    it = scene(ANSWER)
    it.places = FewPlaces(pool_0=0, pool_1=0)
    it.places.coming = "pool-1"
    won = await it.pursue(priority=2, max_wait=3.0)
    assert (it.asked, won.visit.number) == (["pool-1"], 1)
    assert it.places.waited == [(["pool-0", "pool-1"], 2, 3.0)]
    won.visit.succeeded(None)
    assert it.places.free == {"pool-0": 0, "pool-1": 1}


async def test_places_are_sought_in_the_name_of_the_tenant(scene: SceneOf) -> None:
    it = scene()
    it.places = FewPlaces(pool_0=0, pool_1=0)
    with pytest.raises(Saturated):
        await it.pursue(tenant="acme")
    assert it.places.tenants == {"acme"}


async def test_nobody_waits_for_a_place_beyond_the_requests_time(scene: SceneOf) -> None:
    it = scene(ANSWER)
    it.places = FewPlaces(pool_0=0, pool_1=0)
    it.places.coming = "pool-0"
    it.steps[0].backend.on_rtt(200.0)
    it.steps[1].backend.on_rtt(400.0)
    await it.pursue(max_wait=10.0, ends_in=2.0)
    assert it.places.waited[0][2] == 1.6


async def test_saturated_fleet_is_429_and_says_when_there_may_be_room(scene: SceneOf) -> None:
    it = scene()
    it.places = FewPlaces(pool_0=0, pool_1=0)
    error = await it.verdict(priority=3)
    assert (status_of(error), error.code, error.retry_after) == (429, "fleet_saturated", 23.0)
    assert error.message == "Every backend for this model is full."
    assert it.asked == []


async def test_saturated_fleet_says_who_failed_before(scene: SceneOf) -> None:
    it = scene(failed(Cause.SILENT))
    it.places = FewPlaces(pool_0=1, pool_1=0)
    error = await it.verdict()
    assert (status_of(error), error.message) == (
        429,
        "Every backend for this model is full; pool-0 was silent.",
    )


async def test_retry_that_finds_no_room_is_paid_for_only_once(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), ANSWER, backends=3)
    it.places = FewPlaces(pool_0=1, pool_1=0, pool_2=1)
    before = it.budget._left()
    await it.pursue()
    assert (it.asked, it.budget._left()) == (["pool-0", "pool-2"], before - 1)


# -- hedges ----------------------------------------------------------------------------------------------------------


def with_credit(it: Scene, requests: int = 10) -> Scene:
    for _ in range(requests):
        it.hedges.deposit(time.time())
    return it


async def test_second_attempt_starts_when_the_first_stays_silent_and_the_faster_one_wins(scene: SceneOf) -> None:
    it = with_credit(scene(asyncio.Event(), ANSWER))
    won = await it.pursue(STREAM, hedge_after=0.01)
    assert (it.asked, won.visit.step.backend.facts.name, won.visit.number) == (["pool-0", "pool-1"], "pool-1", 2)
    assert it.hung == 0
    assert await it.outcomes_in_ledger() == [(1, "hedged")]
    assert it.in_flight == [0, 1]


async def test_first_attempt_may_still_win_against_its_rival(scene: SceneOf) -> None:
    first, rival = asyncio.Event(), asyncio.Event()
    it = with_credit(scene(first, rival))
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.01))
    await until(lambda: it.hung == 2)
    first.set()
    won = await pursuing
    assert (won.visit.number, won.made, it.hung) == (1, 2, 0)
    assert await it.outcomes_in_ledger() == [(2, "hedged")]


async def test_both_answering_at_once_leaves_one_winner(scene: SceneOf) -> None:
    both = asyncio.Event()
    it = with_credit(scene(both, both))
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.01))
    await until(lambda: it.hung == 2)
    both.set()
    won = await pursuing
    won.visit.succeeded(None)
    assert sorted(outcome for _, outcome in await it.outcomes_in_ledger()) == ["hedged", "ok"]
    assert it.in_flight == [0, 0]


async def test_stream_that_comes_when_another_has_won_is_closed(scene: SceneOf) -> None:
    both = asyncio.Event()
    it = with_credit(scene(both, both))
    it.streams = True
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.01))
    await until(lambda: it.hung == 2)
    both.set()
    won = await pursuing
    assert it.open_streams == 1
    assert isinstance(won.answer, StreamAnswer)
    await won.answer.release()
    assert it.open_streams == 0


async def test_rival_goes_on_alone_when_the_first_fails(scene: SceneOf) -> None:
    answer = asyncio.Event()
    it = with_credit(scene(asyncio.Event(), answer))
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.01))
    await until(lambda: it.hung == 2)
    answer.set()
    assert (await pursuing).visit.number == 2


async def test_failure_of_a_rival_leaves_the_first_its_time(scene: SceneOf) -> None:
    first = asyncio.Event()
    it = with_credit(scene(first, failed(Cause.BROKEN)))
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.01))
    await until(lambda: len(it.asked) == 2)
    first.set()
    assert (await pursuing).visit.number == 1
    assert await it.outcomes_in_ledger() == [(2, "broken")]


async def test_quick_failure_needs_no_hedge(scene: SceneOf) -> None:
    it = with_credit(scene(failed(Cause.BROKEN), ANSWER))
    await it.pursue(STREAM, hedge_after=30.0)
    assert await it.outcomes_in_ledger() == [(1, "broken")]


async def test_refusal_of_a_rival_ends_the_race(scene: SceneOf) -> None:
    it = with_credit(scene(asyncio.Event(), failed(Cause.REFUSED, status=400)))
    assert isinstance(await it.verdict(STREAM, hedge_after=0.01), UpstreamRefused)
    assert (it.hung, it.in_flight) == (0, [0, 0])
    assert await it.outcomes_in_ledger() == [(1, "cancelled"), (2, "refused")]


@pytest.mark.parametrize("why", ["no budget", "no stream", "no setting", "no other backend", "no room", "last attempt"])
async def test_no_hedge_without_the_means_for_one(scene: SceneOf, why: str) -> None:
    first = asyncio.Event()
    it = with_credit(scene(first, ANSWER, backends=1 if why == "no other backend" else 2), why != "no budget")
    if why == "no room":
        it.places = FewPlaces(pool_0=1, pool_1=0)
    free = dict(it.places.free)
    pursuing = asyncio.create_task(
        it.pursue(
            ASK if why == "no stream" else STREAM,
            hedge_after=None if why == "no setting" else 0.0,
            attempts=1 if why == "last attempt" else 3,
        )
    )
    await until(lambda: it.hung == 1)
    for _ in range(20):
        await asyncio.wait([pursuing], timeout=0)
    first.set()
    (await pursuing).visit.succeeded(None)
    assert it.asked == ["pool-0"]
    assert it.places.free == free


async def test_hedges_cost_nothing_of_the_retry_budget(scene: SceneOf) -> None:
    it = with_credit(scene(asyncio.Event(), ANSWER))
    before = it.budget._left(), it.hedges._left()
    await it.pursue(STREAM, hedge_after=0.01)
    assert (it.budget._left(), it.hedges._left()) == (before[0], before[1] - 1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.wait([asyncio.ensure_future(_turn())])


async def _turn() -> None:
    """One turn of the event loop; the scene has taken sleep for itself."""


@pytest.mark.parametrize("turns", range(14))
async def test_caller_who_leaves_at_any_moment_leaves_nothing_behind(scene: SceneOf, turns: int) -> None:
    both = asyncio.Event()
    it = with_credit(scene(both, both, backends=2))
    it.streams = True
    it.places = FewPlaces(pool_0=1, pool_1=1)
    known = asyncio.all_tasks()
    pursuing = asyncio.create_task(it.pursue(STREAM, hedge_after=0.0))
    for turn in range(turns):
        if turn == 6:
            both.set()
        await asyncio.wait([asyncio.ensure_future(_turn())])
    pursuing.cancel()
    outcome = (await asyncio.gather(pursuing, return_exceptions=True))[0]
    if isinstance(outcome, Won):
        assert isinstance(outcome.answer, StreamAnswer)
        outcome.visit.abandoned()
        await outcome.answer.release()
    assert (it.in_flight, it.hung, it.open_streams) == ([0, 0], 0, 0)
    assert it.places.free == {"pool-0": 1, "pool-1": 1}
    assert asyncio.all_tasks() == known
