from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest

from isochrone.api.errors import (
    ApiError,
    DeadlinePassed,
    NothingAlive,
    Saturated,
    UpstreamFailed,
    UpstreamRefused,
    status_of,
)
from isochrone.api.requests import CHAT, Ask
from isochrone.ledger.book import Book
from isochrone.routing.fleet import Fleet
from isochrone.routing.plan import Step, plan
from isochrone.settings import Backend, Deadlines, Retry
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream import pursuit
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.budget import RetryBudget
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.pursuit import Means, Won, pursue
from isochrone.upstream.visit import Visit

ASK = Ask(CHAT, "m", stream=False, include_usage=False, fields={"model": "m"})
ANSWER = BodyAnswer(b"{}", {})
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")

Outcome = BodyAnswer | AttemptFailed


class Scene:
    """A fleet, the outcome of each attempt in order, and what was done: backends asked, seconds slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome, backends: int = 2, ratio: float = 1.0):
        self.outcomes = list(outcomes)
        self.asked: list[str] = []
        self.slept: list[float] = []
        self.book = Book(MemoryLedgerStore())
        facts = [
            Backend(name=f"pool-{i}", base_url="http://127.0.0.1:9", models={"m": "m"}, region=REGIONS[i])
            for i in range(backends)
        ]
        fleet = Fleet(facts, edge_region="us-east-1")
        self.steps = plan("m", (), fleet, client=None, near="edge", now=0.0)
        self.budget = RetryBudget(ratio)
        monkeypatch.setattr(pursuit, "attempt", self._attempt)
        monkeypatch.setattr("isochrone.upstream.pursuit.asyncio.sleep", self._sleep)

    async def _attempt(self, _: object, step: Step, *__: object, **___: object) -> BodyAnswer:
        self.asked.append(step.backend.facts.name)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, AttemptFailed):
            raise outcome
        return outcome

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def pursue(self, *, attempts: int = 3, ends_in: float = 60.0, **more: Any) -> Won:
        means = Means(
            session=cast(aiohttp.ClientSession, None),
            deadlines=Deadlines(),
            retry=Retry(attempts=attempts),
            budget=self.budget,
            headers_for=lambda _: {},
            chance=lambda: 1.0,
        )
        return await pursue(
            self.steps,
            ASK,
            means,
            visit=self._visit,
            request_id="r",
            ends_at=time.monotonic() + ends_in,
            capture=False,
            **more,
        )

    def _visit(self, step: Step, number: int) -> Visit:
        return Visit(step, number, request_id="r", tenant="t", book=self.book)

    async def verdict(self, **options: Any) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.pursue(**options)
        return caught.value

    @property
    def in_flight(self) -> list[int]:
        return [step.backend.in_flight for step in self.steps]


SceneOf = Callable[..., Scene]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> SceneOf:
    def make(*outcomes: Outcome, **options: Any) -> Scene:
        return Scene(monkeypatch, *outcomes, **options)

    return make


def failed(cause: Cause, **more: Any) -> AttemptFailed:
    return AttemptFailed(cause, f"was {cause.value}", **more)


async def test_first_backend_that_answers_wins(scene: SceneOf) -> None:
    it = scene(ANSWER)
    won = await it.pursue()
    assert (won.answer, won.visit.number, it.asked) == (ANSWER, 1, ["pool-0"])


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.REFUSED])
async def test_next_backend_is_asked_at_once_after_any_failure_but_a_refusal(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause), ANSWER)
    won = await it.pursue()
    assert (won.visit.number, it.asked, it.slept) == (2, ["pool-0", "pool-1"], [])


async def test_refusal_is_the_callers_and_nobody_else_is_asked(scene: SceneOf) -> None:
    it = scene(failed(Cause.REFUSED, status=422, body=b'{"error": {"message": "no"}}'))
    error = await it.verdict()
    assert isinstance(error, UpstreamRefused)
    assert (error.refused_status, it.asked) == (422, ["pool-0"])


async def test_attempts_are_bounded(scene: SceneOf) -> None:
    it = scene(*[failed(Cause.BROKEN)] * 9, backends=3)
    await it.verdict(attempts=2)
    assert it.asked == ["pool-0", "pool-1"]


async def test_backend_whose_failure_may_have_passed_is_asked_again_after_a_pause(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), failed(Cause.BROKEN), ANSWER, backends=1)
    await it.pursue(attempts=3)
    assert it.asked == ["pool-0"] * 3
    assert it.slept == [0.1, 0.2]


@pytest.mark.parametrize("cause", [Cause.SILENT, Cause.OUT_OF_TIME, Cause.CREDENTIALS, Cause.MISSING])
async def test_backend_whose_failure_will_not_pass_is_not_asked_again(scene: SceneOf, cause: Cause) -> None:
    it = scene(failed(cause), backends=1)
    await it.verdict()
    assert it.asked == ["pool-0"]


async def test_backend_is_asked_again_only_when_it_wished_to_be(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=1.5), ANSWER, backends=1)
    await it.pursue()
    assert it.slept == [1.5]


async def test_each_backends_own_wish_counts(scene: SceneOf) -> None:
    it = scene(
        failed(Cause.OVERLOADED, retry_after=1.5), failed(Cause.OVERLOADED, retry_after=0.25), ANSWER, backends=2
    )
    await it.pursue(attempts=3)
    assert (it.asked, it.slept) == (["pool-0", "pool-1", "pool-0"], [1.5])


async def test_backend_that_asks_for_a_long_wait_is_left_alone(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=30.0), backends=1)
    error = await it.verdict()
    assert isinstance(error, Saturated)
    assert (error.retry_after, it.asked, it.slept) == (30.0, ["pool-0"], [])


async def test_spent_budget_ends_a_pursuit(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), ratio=0.0)
    assert isinstance(await it.verdict(), NothingAlive)
    assert it.asked == ["pool-0"]


async def test_no_attempt_begins_that_cannot_finish(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=1.0), backends=1)
    await it.verdict(ends_in=0.5)
    assert (it.asked, it.slept) == (["pool-0"], [])


async def test_attempts_and_failures_of_before_count(scene: SceneOf) -> None:
    it = scene(ANSWER)
    before = failed(Cause.CUT)
    before.backend = "pool-0"
    won = await it.pursue(made=1, failures=[before])
    assert (won.visit.number, it.asked) == (2, ["pool-1"])


async def test_nothing_is_asked_when_all_attempts_are_made(scene: SceneOf) -> None:
    it = scene()
    before = failed(Cause.CUT)
    before.backend = "pool-0"
    await it.verdict(made=3, failures=[before] * 3)
    assert it.asked == []


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ((Cause.OVERLOADED, Cause.OVERLOADED), Saturated),
        ((Cause.OVERLOADED, Cause.BROKEN), NothingAlive),
        ((Cause.BROKEN, Cause.UNREACHABLE), NothingAlive),
        ((Cause.CREDENTIALS, Cause.MISSING), UpstreamFailed),
        ((Cause.CREDENTIALS, Cause.BROKEN), NothingAlive),
        ((Cause.BROKEN, Cause.SILENT), DeadlinePassed),
        ((Cause.BROKEN, Cause.OUT_OF_TIME), DeadlinePassed),
    ],
)
async def test_verdict_says_what_was_wrong_with_all(
    scene: SceneOf, causes: tuple[Cause, Cause], expected: type[ApiError]
) -> None:
    it = scene(*(failed(cause) for cause in causes))
    error = await it.verdict(attempts=2)
    assert type(error) is expected
    assert f"pool-0 was {causes[0].value}; pool-1 was {causes[1].value}" in error.message


async def test_shortest_wish_is_the_callers_hint(scene: SceneOf) -> None:
    it = scene(failed(Cause.OVERLOADED, retry_after=9.0), failed(Cause.OVERLOADED, retry_after=4.0))
    assert (await it.verdict(attempts=2)).retry_after == 4.0


async def test_every_visit_ends_and_is_written_down(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), failed(Cause.OVERLOADED), failed(Cause.BROKEN))
    await it.verdict()
    entries = await it.book.recent("t", limit=9)
    assert sorted((entry["attempt"], entry["outcome"]) for entry in entries) == [
        (1, "broken"),
        (2, "overloaded"),
        (3, "broken"),
    ]
    assert it.in_flight == [0, 0]


async def test_cancellation_ends_the_visit_too(scene: SceneOf) -> None:
    it = scene()
    with pytest.raises(IndexError):  # the script is empty: what a mistake or a cancellation looks like from here
        await it.pursue()
    assert it.in_flight == [0, 0]
    assert (await it.book.recent("t", limit=9))[0]["outcome"] == "cancelled"


def plan_of(*kinds: str, attempts: int = 3) -> str:
    """The order in which a plan of pools, apis and pools of another model is gone through: "p", "a", "f"."""
    facts = [
        Backend(
            name=f"{kind}{i}",
            base_url="http://127.0.0.1:9",
            kind="api" if kind == "a" else "pool",
            models={"fallback" if kind == "f" else "m": "m"},
            region=REGIONS[i % len(REGIONS)],
        )
        for i, kind in enumerate(kinds)
    ]
    steps = plan("m", ("fallback",), Fleet(facts, edge_region="us-east-1"), client=None, near="edge", now=0.0)
    return "".join(step.backend.facts.name[0] for step in pursuit.with_last_resort(steps, attempts))


@pytest.mark.parametrize(
    ("kinds", "order"),
    [("ppp", "ppp"), ("pppa", "ppap"), ("pppf", "ppfp"), ("ppppaf", "ppappf"), ("ppa", "ppa"), ("aaaa", "aaaa")],
)
def test_last_attempt_is_kept_for_what_does_not_fail_with_the_others(kinds: str, order: str) -> None:
    assert plan_of(*kinds) == order


def test_single_attempt_goes_to_the_best_backend() -> None:
    assert plan_of("p", "a", attempts=1) == "pa"


async def test_backend_that_failed_is_not_asked_for_the_fallback_before_others_were_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    it = Scene(monkeypatch, failed(Cause.UNREACHABLE), ANSWER)
    both = Backend(name="both", base_url="http://127.0.0.1:9", models={"m": "m", "chat": "c"}, region=REGIONS[0])
    api = Backend(name="api", base_url="http://127.0.0.1:9", models={"chat": "c"}, kind="api")
    it.steps = plan("m", ("chat",), Fleet([both, api], edge_region=REGIONS[0]), client=None, near="edge", now=0.0)
    await it.pursue(attempts=2)
    assert it.asked == ["both", "api"]


async def test_backend_that_lacks_the_model_is_asked_for_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Scene(monkeypatch, failed(Cause.MISSING), ANSWER)
    both = Backend(name="both", base_url="http://127.0.0.1:9", models={"m": "m", "chat": "c"}, region=REGIONS[0])
    it.steps = plan("m", ("chat",), Fleet([both], edge_region=REGIONS[0]), client=None, near="edge", now=0.0)
    won = await it.pursue()
    assert (it.asked, won.visit.step.model) == (["both", "both"], "chat")


async def test_attempt_that_time_forbids_costs_no_budget(scene: SceneOf) -> None:
    it = scene(failed(Cause.BROKEN), backends=1)
    before = it.budget._left()
    await it.verdict(ends_in=0.01)
    assert it.budget._left() == before


async def test_route_that_no_backend_has_is_refused_as_such_and_speaks_against_none(scene: SceneOf) -> None:
    refusal = b'{"error": {"message": "no embeddings here"}}'
    it = scene(*(failed(Cause.MISSING, status=501, body=refusal) for _ in range(2)))
    error = await it.verdict()
    assert status_of(error) == 501
    assert b"no embeddings here" in error.body()
    assert [step.backend.health.consecutive_failures for step in it.steps] == [0, 0]
