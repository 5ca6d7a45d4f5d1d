from __future__ import annotations

from math import inf
from typing import Any

import pytest

from isochrone.ledger.book import Book
from isochrone.routing.circuit import OPEN_BASE_SECONDS
from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.plan import Step
from isochrone.routing.probe import Probe
from isochrone.settings import Backend, Price
from isochrone.stores.memory import MemoryLedgerStore
from isochrone.upstream.failure import AttemptFailed, Cause, out_of_time
from isochrone.upstream.visit import Visit
from tests.plans import plan

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


def begin(step: Step, book: Book, **more: Any) -> Visit:
    return Visit(step, 1, request_id="r", tenant="t", book=book, patience=10.0, **more)


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


async def test_ledger_knows_which_answer_was_wanted(step: Step, book: Book) -> None:
    begin(step, book, answer="ab12").succeeded(USAGE)
    begin(step, book).succeeded(USAGE)
    assert [entry["answer"] for entry in await book.recent("t", limit=9)] == [None, "ab12"]


async def test_failure_is_written_down_with_its_reason(step: Step, book: Book) -> None:
    begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    (entry,) = await book.recent("t", limit=9)
    assert (entry["outcome"], entry["detail"], entry["cost"]) == ("broken", "answered 500", 0.0)
    assert step.offer.circuit.failures_in_a_row == 1


async def test_caller_who_leaves_speaks_neither_for_nor_against_a_backend(step: Step, book: Book) -> None:
    begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    visit = begin(step, book)
    visit.answered(streaming=True)
    visit.abandoned()
    assert step.offer.circuit.failures_in_a_row == 1


@pytest.mark.parametrize(
    "cause", [Cause.OVERLOADED, Cause.MISSING, Cause.REFUSED, Cause.CONTEXT, Cause.FILTERED, Cause.DIVERGED]
)
def test_what_is_not_the_backends_fault_leaves_its_health_alone(step: Step, book: Book, cause: Cause) -> None:
    for _ in range(9):
        begin(step, book).failed(AttemptFailed(cause, "why"))
    assert step.offer.standing(0.0) is Standing.HEALTHY


def test_backend_that_dies_in_the_middle_of_every_stream_is_ejected(step: Step, book: Book) -> None:
    for _ in range(3):
        visit = begin(step, book)
        visit.answered(streaming=True)
        visit.failed(AttemptFailed(Cause.CUT, "cut its reply short"))
    assert step.offer.circuit.reason == "cut its reply short"
    assert step.offer.retry_in(0.0) > 0


def test_whole_answer_clears_what_was_held_against_a_backend(step: Step, book: Book) -> None:
    for _ in range(2):
        begin(step, book).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    visit = begin(step, book)
    visit.answered(streaming=False)
    visit.succeeded(None)
    assert step.offer.circuit.failures_in_a_row == 0


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
    step.backend.on_probe(Probe(clock.now, reached=True))
    assert step.offer.standing(clock.now) is standing


def test_stream_that_began_before_an_ejection_ends_well_without_ending_it(step: Step, book: Book, clock: Clock) -> None:
    old = begin(step, book)
    clock.now += 1
    eject(step, book)
    old.succeeded(None)
    assert step.offer.standing(clock.now) is Standing.EJECTED


def on_trial(step: Step, book: Book, clock: Clock) -> Visit:
    """The trial of a circuit that was opened just now."""
    eject(step, book)
    clock.now += OPEN_BASE_SECONDS
    return begin(step, book)


def test_only_the_visit_that_a_half_open_circuit_lets_through_is_a_trial(step: Step, book: Book, clock: Clock) -> None:
    assert not begin(step, book).is_trial
    trial = on_trial(step, book, clock)
    assert trial.is_trial
    assert not step.offer.takes_requests(clock.now)
    assert not begin(step, book).is_trial
    trial.abandoned()
    trial.abandoned()
    assert step.backend.in_flight == 2
    assert step.offer.takes_requests(clock.now)


@pytest.mark.parametrize("cause", [Cause.OVERLOADED, Cause.REFUSED, Cause.OUT_OF_TIME])
def test_neutral_end_of_a_trial_neither_heals_nor_ejects_and_frees_it(
    step: Step, book: Book, clock: Clock, cause: Cause
) -> None:
    on_trial(step, book, clock).failed(AttemptFailed(cause, "why"))
    assert step.offer.standing(clock.now) is Standing.TRIAL
    assert step.offer.takes_requests(clock.now)


def test_trial_that_succeeds_heals_and_one_that_fails_ejects_for_longer(step: Step, book: Book, clock: Clock) -> None:
    on_trial(step, book, clock).succeeded(None)
    assert step.offer.standing(clock.now) is Standing.HEALTHY
    on_trial(step, book, clock).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    assert step.offer.retry_in(clock.now) == 2 * OPEN_BASE_SECONDS


@pytest.mark.parametrize(("waited", "standing"), [(4.9, Standing.TRIAL), (5.0, Standing.EJECTED)])
def test_trial_has_half_the_patience(step: Step, book: Book, clock: Clock, waited: float, standing: Standing) -> None:
    trial = on_trial(step, book, clock)
    clock.now += waited
    trial.abandoned()
    assert step.offer.standing(clock.now) is standing


def test_every_other_trial_has_all_the_patience_so_that_who_is_slow_but_well_comes_back(
    step: Step, book: Book, clock: Clock
) -> None:
    eject(step, book)
    for is_brief in (True, False, True):
        clock.now += step.offer.retry_in(clock.now)
        trial = begin(step, book)
        assert (trial.is_trial, trial.is_brief) == (True, is_brief)
        trial.failed(AttemptFailed(Cause.SILENT, "was silent for too long"))
    assert not begin(step, book).is_brief


class FakePlace:
    """Counts how often it is given back."""

    def __init__(self, *, is_trial: bool) -> None:
        self.is_trial = is_trial
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


def test_place_that_was_found_before_is_given_back_once_and_says_what_is_a_trial(
    step: Step, book: Book, clock: Clock
) -> None:
    on_trial(step, book, clock).abandoned()
    for is_trial in (True, False):
        place = FakePlace(is_trial=is_trial)
        visit = begin(step, book, place=place)
        assert visit.is_trial is is_trial
        assert step.offer.takes_requests(clock.now)
        assert place.given_back == 0
        visit.succeeded(None)
        visit.abandoned()
        assert place.given_back == 1


def test_place_is_given_back_after_the_circuit_has_learnt_of_the_end(step: Step, book: Book) -> None:
    seen = []

    class Place(FakePlace):
        def give_back(self) -> None:
            seen.append(step.offer.circuit.failures_in_a_row)

    begin(step, book, place=Place(is_trial=False)).failed(AttemptFailed(Cause.BROKEN, "answered 500"))
    assert seen == [1]


async def test_attempt_that_lost_a_race_is_booked_as_hedged_and_speaks_like_a_caller_who_left(
    step: Step, book: Book, clock: Clock
) -> None:
    visit = begin(step, book)
    clock.now += 9.9
    visit.outrun({"prompt_tokens": 1})
    visit.abandoned()
    assert step.offer.circuit.failures_in_a_row == 0
    late = begin(step, book)
    clock.now += 10.0
    late.outrun()
    assert step.offer.circuit.failures_in_a_row == 1
    entries = await book.recent("t", limit=9)
    assert [entry["outcome"] for entry in entries] == ["hedged", "hedged"]
    assert sorted(entry["input_tokens"] or 0 for entry in entries) == [0, 1]


async def test_request_that_may_have_been_carried_out_unheard_is_booked_as_ambiguous(step: Step, book: Book) -> None:
    begin(step, book).failed(AttemptFailed(Cause.DROPPED, "closed the connection", ambiguous=True))
    begin(step, book).failed(AttemptFailed(Cause.DROPPED, "closed the connection"))
    assert sorted(entry["ambiguous"] for entry in await book.recent("t", limit=9)) == [False, True]


def test_time_of_an_answer_is_learnt(step: Step, book: Book, clock: Clock) -> None:
    visit = begin(step, book)
    clock.now += 3.0
    visit.succeeded(None)
    assert step.offer.speed.answer_ms == 3000


def test_refusals_break_the_silence_that_callers_who_leave_early_speak_of(step: Step, book: Book, clock: Clock) -> None:
    for _ in range(20):
        visit = begin(step, book)
        clock.now += 4
        visit.abandoned()
        begin(step, book).failed(AttemptFailed(Cause.OVERLOADED, "answered 429"))
    assert step.offer.circuit.failures_in_a_row == 0


def test_backend_that_is_silent_to_all_is_ejected_although_each_caller_leaves_early(
    step: Step, book: Book, clock: Clock
) -> None:
    for _ in range(5):
        visit = begin(step, book)
        clock.now += 4
        visit.abandoned()
    assert step.offer.standing(clock.now) is Standing.EJECTED


def test_backend_that_says_nothing_until_its_callers_give_up_is_ejected(step: Step, book: Book, clock: Clock) -> None:
    for _ in range(3):
        visit = begin(step, book)
        clock.now += 10.0
        visit.abandoned()
    assert step.offer.standing(clock.now) is Standing.EJECTED
    assert step.offer.circuit.reason == "had said nothing for 10 s when its caller left"


@pytest.mark.parametrize(("waited", "answered"), [(9.9, False), (600.0, True)])
async def test_caller_who_leaves_early_or_in_the_middle_of_an_answer_says_nothing_about_a_backend(
    step: Step, book: Book, clock: Clock, waited: float, answered: bool
) -> None:
    visit = begin(step, book)
    if answered:
        visit.answered(streaming=True)
    clock.now += waited
    visit.abandoned()
    assert step.offer.circuit.failures_in_a_row == 0
    (entry,) = await book.recent("t", limit=9)
    assert (entry["outcome"], entry["detail"]) == ("cancelled", None)


@pytest.mark.parametrize(("waited", "failures"), [(9.9, 0), (10.0, 1)])
def test_end_of_a_callers_own_time_is_held_against_a_backend_only_after_a_long_silence(
    step: Step, book: Book, clock: Clock, waited: float, failures: int
) -> None:
    visit = begin(step, book)
    clock.now += waited
    visit.failed(out_of_time())
    assert step.offer.circuit.failures_in_a_row == failures


def test_visit_that_has_failed_is_not_held_against_a_backend_twice(step: Step, book: Book, clock: Clock) -> None:
    visit = begin(step, book)
    clock.now += 10.0
    visit.failed(AttemptFailed(Cause.SILENT, "was silent for too long"))
    visit.abandoned()
    assert step.offer.circuit.failures_in_a_row == 1


@pytest.mark.parametrize(("cause", "busy_for"), [(Cause.OVERLOADED, 7.0), (Cause.REFUSED, None), (Cause.BROKEN, None)])
def test_429_lets_others_go_first_for_as_long_as_it_says(
    step: Step, book: Book, clock: Clock, cause: Cause, busy_for: float | None
) -> None:
    begin(step, book).failed(AttemptFailed(cause, "answered", retry_after=7.0))
    expected = clock.now + busy_for if busy_for else -inf
    assert step.offer.busy_until == expected
