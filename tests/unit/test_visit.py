from __future__ import annotations

import pytest

from isochrone.ledger.book import Book
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import EJECTION_BASE_SECONDS, Standing
from isochrone.routing.plan import Step, plan
from isochrone.settings import Backend, Price
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream.failure import AttemptFailed, Cause, out_of_time
from isochrone.upstream.visit import Visit

USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 2_000_000}


@pytest.fixture
def step() -> Step:
    facts = Backend(name="b", base_url="http://127.0.0.1:9", models={"m": "m"}, price=Price(input=1.0, output=2.0))
    return plan("m", (), Fleet([facts], edge_region="us-east-1"), client=None, near="edge", now=0.0)[0]


@pytest.fixture
def book() -> Book:
    return Book(MemoryLedgerStore())


class Clock:
    """The clock of visits, set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("isochrone.upstream.visit.time.monotonic", clock)
    return clock


def begin(step: Step, book: Book) -> Visit:
    return Visit(step, 1, request_id="r", tenant="t", book=book, patience=10.0)


def eject(step: Step, book: Book) -> None:
    for _ in range(3):
        begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))


async def test_place_is_held_until_the_end_and_given_back_once(step: Step, book: Book) -> None:
    visit = begin(step, book)
    assert step.backend.in_flight == 1
    visit.succeeded(USAGE)
    visit.abandoned()
    visit.failed(AttemptFailed(Cause.CUT, "cut"))
    assert step.backend.in_flight == 0
    (entry,) = await book.recent("t", limit=9)
    assert (entry["outcome"], entry["input_tokens"], entry["output_tokens"]) == ("ok", 1_000_000, 2_000_000)
    assert entry["cost"] == 5.0


async def test_failure_is_written_down_with_its_reason(step: Step, book: Book) -> None:
    begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    (entry,) = await book.recent("t", limit=9)
    assert (entry["outcome"], entry["detail"], entry["cost"]) == ("broken", "answered 500", 0.0)
    assert step.backend.health.consecutive_failures == 1


async def test_caller_who_leaves_speaks_neither_for_nor_against_a_backend(step: Step, book: Book) -> None:
    begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    visit = begin(step, book)
    visit.answered(streaming=True)
    visit.abandoned()
    assert step.backend.health.consecutive_failures == 1


@pytest.mark.parametrize("cause", [Cause.OVERLOADED, Cause.MISSING, Cause.REFUSED, Cause.DIVERGED])
def test_what_is_not_the_backends_fault_leaves_its_health_alone(step: Step, book: Book, cause: Cause) -> None:
    for _ in range(9):
        begin(step, book).failed(AttemptFailed(cause, "why"))
    assert step.backend.health.standing(0.0) is Standing.HEALTHY


def test_backend_that_dies_in_the_middle_of_every_stream_is_ejected(step: Step, book: Book) -> None:
    for _ in range(3):
        visit = begin(step, book)
        visit.answered(streaming=True)
        visit.failed(AttemptFailed(Cause.CUT, "cut its reply short"))
    assert step.backend.health.reason == "cut its reply short"
    assert step.backend.health.retry_in(0.0) > 0


def test_whole_answer_clears_what_was_held_against_a_backend(step: Step, book: Book) -> None:
    for _ in range(2):
        begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    visit = begin(step, book)
    visit.answered(streaming=False)
    visit.succeeded(None)
    assert step.backend.health.consecutive_failures == 0


def test_only_streams_say_how_fast_a_first_token_is(step: Step, book: Book) -> None:
    visit = begin(step, book)
    visit.answered(streaming=False)
    assert visit.first_token_ms is None
    visit.answered(streaming=True)
    assert visit.first_token_ms is not None


@pytest.mark.parametrize(
    ("cause", "standing"),
    [
        (Cause.UNREACHABLE, Standing.HEALTHY),
        (Cause.DROPPED, Standing.EJECTED),
        (Cause.SILENT, Standing.EJECTED),
        (Cause.BROKEN, Standing.EJECTED),
    ],
)
def test_probe_clears_only_what_it_has_tried_itself(
    step: Step, book: Book, clock: Clock, cause: Cause, standing: Standing
) -> None:
    """A probe connects; an engine that accepts connections and then hangs would be let back in at once."""
    for _ in range(3):
        begin(step, book).failed(AttemptFailed(cause, "why"))
    step.backend.health.on_probe(clock.now, reached=True)
    assert step.backend.health.standing(clock.now) is standing


def test_stream_that_began_before_an_ejection_ends_well_without_ending_it(step: Step, book: Book, clock: Clock) -> None:
    old = begin(step, book)
    clock.now += 1
    eject(step, book)
    old.succeeded(None)
    assert step.backend.health.standing(clock.now) is Standing.EJECTED


def test_only_visits_of_a_backend_on_trial_are_trials(step: Step, book: Book, clock: Clock) -> None:
    begin(step, book)
    eject(step, book)
    begin(step, book)
    clock.now += EJECTION_BASE_SECONDS
    assert step.backend.trials == 0
    trial = begin(step, book)
    assert step.backend.trials == 1
    trial.abandoned()
    trial.abandoned()
    assert (step.backend.trials, step.backend.in_flight) == (0, 2)


def test_backend_that_says_nothing_until_its_callers_give_up_is_ejected(step: Step, book: Book, clock: Clock) -> None:
    for _ in range(3):
        visit = begin(step, book)
        clock.now += 10.0
        visit.abandoned()
    assert step.backend.health.standing(clock.now) is Standing.EJECTED
    assert step.backend.health.reason == "had said nothing for 10 s when its caller left"


@pytest.mark.parametrize(("waited", "answered"), [(9.9, False), (600.0, True)])
async def test_caller_who_leaves_early_or_in_the_middle_of_an_answer_says_nothing_about_a_backend(
    step: Step, book: Book, clock: Clock, waited: float, answered: bool
) -> None:
    visit = begin(step, book)
    if answered:
        visit.answered(streaming=True)
    clock.now += waited
    visit.abandoned()
    assert step.backend.health.consecutive_failures == 0
    (entry,) = await book.recent("t", limit=9)
    assert (entry["outcome"], entry["detail"]) == ("cancelled", None)


@pytest.mark.parametrize(("waited", "failures"), [(9.9, 0), (10.0, 1)])
def test_end_of_a_callers_own_time_is_held_against_a_backend_only_after_a_long_silence(
    step: Step, book: Book, clock: Clock, waited: float, failures: int
) -> None:
    visit = begin(step, book)
    clock.now += waited
    visit.failed(out_of_time())
    assert step.backend.health.consecutive_failures == failures


def test_visit_that_has_failed_is_not_held_against_a_backend_twice(step: Step, book: Book, clock: Clock) -> None:
    visit = begin(step, book)
    clock.now += 10.0
    visit.failed(AttemptFailed(Cause.SILENT, "was silent for too long"))
    visit.abandoned()
    assert step.backend.health.consecutive_failures == 1
