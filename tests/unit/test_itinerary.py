"""Who is asked next: plans are written as words like "A:m B:m X:m/api F:f", attempts as what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from isochrone.routing.fleet import Fleet
from isochrone.routing.health import Standing
from isochrone.routing.plan import Step
from isochrone.settings import Backend
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.itinerary import Itinerary, least_seconds
from tests.plans import plan

NOW = 1000.0
PASSING = [Cause.DROPPED, Cause.BROKEN, Cause.OVERLOADED, Cause.CUT]
LASTING = [Cause.SILENT, Cause.OUT_OF_TIME, Cause.CREDENTIALS, Cause.MISSING, Cause.DIVERGED]


def steps_of(words: str) -> list[Step]:
    """ "A:m" is a pool, "X:m/api" an API, "A:m!" is ejected, "A:m?" on trial; one name may serve several models."""
    served: dict[str, dict[str, str]] = {}
    for word in words.split():
        name, _, model = word.rstrip("!?").removesuffix("/api").partition(":")
        served.setdefault(name, {})[model] = model
    apis = {word.partition(":")[0] for word in words.split() if word.rstrip("!?").endswith("/api")}
    facts = [
        Backend(name=name, base_url="http://127.0.0.1:9", kind="api" if name in apis else "pool", models=models)
        for name, models in served.items()
    ]
    fleet = Fleet(facts, edge_region="us-east-1")
    models = list(dict.fromkeys(model for models in served.values() for model in models))
    planned = plan(models[0], models[1:], fleet, client=None, near="edge", now=NOW)
    known = {f"{step.backend.facts.name}:{step.model}": step for step in planned}
    return [_stood(known[word.rstrip("!?").removesuffix("/api")], word[-1]) for word in words.split()]


def _stood(step: Step, sign: str) -> Step:
    if sign == "!":
        return msgspec.structs.replace(step, standing=Standing.EJECTED, is_fit=False)
    return msgspec.structs.replace(step, standing=Standing.TRIAL) if sign == "?" else step


def itinerary(words: str, *, attempts: int = 3, ends_in: float = 60.0, **contexts: int) -> Itinerary:
    return Itinerary(steps_of(words), attempts, NOW + ends_in, contexts)


def failed(where: str, cause: Cause = Cause.BROKEN, *, at: float = NOW, **more: Any) -> AttemptFailed:
    failure = AttemptFailed(cause, cause.value, **more)
    name, _, model = where.partition(":")
    failure.belongs_to(name, model, now=at)
    return failure


def name_of(step: Step) -> str:
    return f"{step.backend.facts.name}:{step.model}"


def next_of(
    it: Itinerary, failures: Sequence[AttemptFailed] = (), *, full: str = "", now: float = NOW, chance: float = 0.0
) -> tuple[str, float] | None:
    offers = {step.offer for step in it.steps if name_of(step) in full.split()}
    stop = it.next_stop(failures, made=len(failures), now=now, chance=chance, full=offers)
    return (name_of(stop.step), stop.pause) if stop else None


def pause_of(it: Itinerary, failures: Sequence[AttemptFailed], *, chance: float) -> float:
    found = next_of(it, failures, chance=chance)
    assert found
    return found[1]


def walk(it: Itinerary, cause: Mapping[str, Cause] | Cause = Cause.BROKEN) -> str:
    """Everybody who is asked when each attempt fails, in order."""
    failures: list[AttemptFailed] = []
    while found := next_of(it, failures):
        name = found[0]
        failures.append(failed(name, cause if isinstance(cause, Cause) else cause.get(name, Cause.BROKEN)))
    return " ".join(f"{failure.backend}:{failure.model}" for failure in failures)


@pytest.mark.parametrize(
    ("words", "attempts", "order"),
    [
        # others of the same model first, then one of them once more, then the fallback
        ("A:m", 1, "A:m"),
        ("A:m", 3, "A:m A:m A:m"),
        ("A:m B:m", 3, "A:m B:m A:m"),
        ("A:m B:m", 4, "A:m B:m A:m B:m"),
        ("A:m B:m C:m", 3, "A:m B:m C:m"),
        ("A:m F:f", 3, "A:m A:m F:f"),
        ("A:m F:f", 4, "A:m A:m F:f F:f"),
        ("A:m F:f", 5, "A:m A:m F:f F:f A:m"),
        ("A:m F:f G:g", 4, "A:m A:m F:f G:g"),
        ("A:m B:m F:f", 4, "A:m B:m A:m F:f"),
        ("A:m B:m F:f", 5, "A:m B:m A:m F:f B:m"),
        # the last attempt is kept for another kind
        ("A:m F:f", 2, "A:m F:f"),
        ("A:m B:m F:f", 2, "A:m F:f"),
        ("A:m B:m F:f", 3, "A:m B:m F:f"),
        ("A:m B:m C:m F:f", 3, "A:m B:m F:f"),
        ("A:m B:m C:m X:m/api", 3, "A:m B:m X:m"),
        ("A:m B:m C:m X:m/api F:f", 3, "A:m B:m X:m"),
        ("A:m X:m/api F:f", 3, "A:m X:m A:m"),
        ("A:m B:m X:m/api F:f", 3, "A:m B:m X:m"),
        ("A:m F:f", 1, "A:m"),
        # one backend that serves both is asked for the other model as well
        ("A:m A:f", 3, "A:m A:m A:f"),
        # what is ejected goes last, not away; it is not worth a second try
        ("A:m B:m!", 3, "A:m A:m B:m"),
        ("A:m F:f B:m!", 4, "A:m A:m F:f B:m"),
        ("A:m! B:m!", 3, "A:m B:m A:m"),
        ("A:m B:m F:f!", 3, "A:m B:m A:m"),
        ("F:f A:m!", 3, "F:f F:f A:m"),
    ],
)
def test_order_in_which_a_plan_is_gone_through_while_everybody_fails(words: str, attempts: int, order: str) -> None:
    steps = itinerary(words, attempts=attempts)
    assert walk(steps) == order


@pytest.mark.parametrize("cause", PASSING)
def test_offer_whose_failure_may_have_passed_is_asked_once_more(cause: Cause) -> None:
    assert walk(itinerary("A:m F:f", attempts=3), {"A:m": cause}) == "A:m A:m F:f"


@pytest.mark.parametrize("cause", LASTING)
def test_offer_whose_failure_will_not_pass_is_left_alone(cause: Cause) -> None:
    assert walk(itinerary("A:m F:f", attempts=9), {"A:m": cause, "F:f": cause}) == "A:m F:f"
    assert walk(itinerary("A:m B:m F:f", attempts=3), {"A:m": cause}) == "A:m B:m F:f"


def test_passing_failure_of_one_is_not_held_against_another_that_will_not_pass() -> None:
    assert walk(itinerary("A:m B:m F:f", attempts=4), {"A:m": Cause.SILENT}) == "A:m B:m B:m F:f"


def test_second_failure_that_will_not_pass_ends_the_asking_there() -> None:
    failures = [failed("A:m"), failed("A:m", Cause.SILENT)]
    assert next_of(itinerary("A:m"), failures) is None


def test_closed_port_is_tried_again_only_when_nobody_else_is_left() -> None:
    assert walk(itinerary("A:m F:f", attempts=4), {"A:m": Cause.UNREACHABLE}) == "A:m F:f A:m F:f"


def test_unreachable_backend_is_not_asked_for_its_other_models() -> None:
    it = itinerary("A:m A:f B:f", attempts=3)
    assert walk(it, {"A:m": Cause.UNREACHABLE}) == "A:m B:f A:m"
    assert walk(it, {"A:m": Cause.MISSING, "A:f": Cause.UNREACHABLE}) == "A:m A:f B:f"


def test_refusal_by_a_fallback_rules_out_only_that_model() -> None:
    causes = {"A:m": Cause.SILENT, "F:f": Cause.REFUSED}
    assert walk(itinerary("A:m F:f G:f H:h", attempts=3), causes) == "A:m F:f H:h"


@pytest.mark.parametrize(
    ("contexts", "order"),
    [
        ({}, "A:m F:f G:g"),
        ({"m": 8192}, "A:m F:f G:g"),
        ({"f": 100, "g": 100}, "A:m F:f"),
        ({"m": 8192, "f": 8192}, "A:m G:g"),
        ({"m": 8192, "f": 8193, "g": 4096}, "A:m F:f"),
        ({"m": 8192, "f": 1, "g": 1}, "A:m"),
    ],
)
def test_prompt_too_long_for_one_model_goes_on_to_longer_ones_only(contexts: dict[str, int], order: str) -> None:
    it = itinerary("A:m B:m F:f G:g", attempts=9, **contexts)
    assert walk(it, Cause.CONTEXT) == order


def test_nothing_is_asked_when_all_attempts_are_made() -> None:
    it = itinerary("A:m B:m", attempts=2)
    assert next_of(it, [failed("A:m")]) == ("B:m", 0.0)
    assert next_of(it, [failed("A:m"), failed("A:m")]) is None


def test_last_attempt_is_counted_with_those_that_did_not_fail_too() -> None:
    it = itinerary("A:m B:m F:f", attempts=3)
    stop = it.next_stop([failed("A:m")], made=2, now=NOW, chance=0.0)
    assert stop
    assert name_of(stop.step) == "F:f"


# -- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "longest"), [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 2.0), (9, 2.0)])
def test_pause_before_asking_again_grows_up_to_a_cap_with_full_jitter(times: int, longest: float) -> None:
    it = itinerary("A:m", attempts=20)
    failures = [failed("A:m")] * times
    assert [pause_of(it, failures, chance=chance) for chance in (1.0, 0.5, 0.0)] == pytest.approx(
        [longest, longest / 2, 0.0]
    )


def test_somebody_new_is_asked_without_a_pause() -> None:
    assert next_of(itinerary("A:m B:m"), [failed("A:m", retry_after=5.0)], chance=1.0) == ("B:m", 0.0)


def test_wait_that_was_asked_for_is_kept_and_spread() -> None:
    it = itinerary("A:m F:f")
    busy = [failed("A:m", Cause.OVERLOADED, retry_after=1.5)]
    assert next_of(it, busy) == ("A:m", 1.5)
    assert pause_of(it, busy, chance=1.0) == pytest.approx(1.6)


def test_wait_counts_from_when_it_was_asked_for() -> None:
    busy = [failed("A:m", Cause.OVERLOADED, at=NOW - 1.0, retry_after=1.5)]
    assert next_of(itinerary("A:m"), busy) == ("A:m", 0.5)
    assert next_of(itinerary("A:m"), busy, now=NOW + 5.0) == ("A:m", 0.0)


@pytest.mark.parametrize(("wait", "found"), [(10.0, ("A:m", 10.0)), (10.01, ("F:f", 0.0))])
def test_long_wait_sends_the_request_to_the_fallback(wait: float, found: tuple[str, float]) -> None:
    assert next_of(itinerary("A:m F:f"), [failed("A:m", Cause.OVERLOADED, retry_after=wait)]) == found


def test_whoever_is_ready_first_is_asked_again_first() -> None:
    busy = [failed("A:m", retry_after=3.0), failed("B:m", retry_after=1.0), failed("C:m", retry_after=2.0)]
    assert next_of(itinerary("A:m B:m C:m", attempts=4), busy) == ("B:m", 1.0)


def test_whoever_failed_least_is_asked_again_first() -> None:
    failures = [failed("A:m"), failed("B:m", retry_after=1.0), failed("A:m")]
    assert next_of(itinerary("A:m B:m", attempts=4), failures) == ("B:m", 1.0)


# -- time ------------------------------------------------------------------------------------------------------------


def test_no_attempt_begins_that_cannot_finish() -> None:
    it = itinerary("A:m", ends_in=1.0)
    least = least_seconds(it.steps[0])
    assert next_of(it, now=NOW + 1.0 - least - 0.001) == ("A:m", 0.0)
    assert next_of(it, now=NOW + 1.0 - least + 0.001) is None


def test_latest_moment_to_ask_is_one_too_late() -> None:
    it = itinerary("A:m", ends_in=1.0)
    latest = it.latest_start(it.steps[0])
    assert latest == pytest.approx(NOW + 0.99)
    assert it.is_in_time(it.steps[0], latest - 1e-6)
    assert not it.is_in_time(it.steps[0], latest)


def test_wait_for_which_there_is_no_time_sends_the_request_on() -> None:
    it = itinerary("A:m F:f", ends_in=2.0)
    assert next_of(it, [failed("A:m", Cause.OVERLOADED, retry_after=3.0)]) == ("F:f", 0.0)


def test_far_backend_is_passed_over_when_only_a_near_one_can_answer_in_time() -> None:
    it = itinerary("A:m B:m", ends_in=0.5)
    it.steps[0].backend.on_rtt(250.0)
    assert next_of(it) == ("B:m", 0.0)


def test_least_time_is_two_round_trips_and_a_moment() -> None:
    unknown, measured = steps_of("A:m B:m")
    measured.backend.on_rtt(40.0)
    assert least_seconds(unknown) == pytest.approx(0.01)
    assert least_seconds(measured) == pytest.approx(0.09)


def test_estimate_of_the_way_counts_where_nothing_was_measured() -> None:
    facts = Backend(name="far", base_url="http://127.0.0.1:9", models={"m": "m"}, region="ap-southeast-1")
    step = plan("m", (), Fleet([facts], edge_region="us-east-1"), client=None, near="edge", now=NOW)[0]
    assert least_seconds(step) == pytest.approx(2 * step.backend.expected_rtt_ms / 1000 + 0.01)
    assert step.backend.expected_rtt_ms > 100


def test_it_is_too_late_when_nobody_could_answer_any_more() -> None:
    it = itinerary("A:m B:m", ends_in=0.5)
    it.steps[0].backend.on_rtt(250.0)
    assert [it.is_too_late(NOW + passed) for passed in (0.0, 0.48, 0.495, 0.5)] == [False, False, True, True]
    assert not Itinerary([], 3, NOW + 1, {}).is_too_late(NOW)
    assert Itinerary([], 3, NOW, {}).is_too_late(NOW)


# -- room ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "full", "found"),
    [
        ("A:m B:m", "A:m", "B:m"),
        ("A:m F:f", "A:m", "F:f"),
        ("A:m B:m", "A:m B:m", None),
        # it is better to wait for a healthy one than to ask an ejected one
        ("A:m B:m!", "A:m", None),
        # nobody waits for the end of another request's trial while somebody else could be asked
        ("A:m? B:m!", "A:m", "B:m"),
        ("A:m? B:m!", "A:m B:m", None),
        ("A:m! B:m!", "A:m", "B:m"),
    ],
)
def test_full_backend_is_passed_over(words: str, full: str, found: str | None) -> None:
    expected = (found, 0.0) if found else None
    assert next_of(itinerary(words), full=full) == expected


def test_second_try_is_better_than_waiting_but_a_third_is_not() -> None:
    it = itinerary("A:m B:m", attempts=4)
    assert next_of(it, [failed("A:m")], full="B:m") == ("A:m", 0.0)
    assert next_of(it, [failed("A:m"), failed("A:m")], full="B:m") is None


def test_nobody_waits_for_room_where_the_prompt_is_too_long() -> None:
    it = itinerary("A:m B:m F:f!")
    assert next_of(it, [failed("A:m", Cause.CONTEXT)], full="B:m") == ("F:f", 0.0)


# -- hedges ----------------------------------------------------------------------------------------------------------


def rival(it: Itinerary, failures: Sequence[AttemptFailed] = (), *, made: int = 1, now: float = NOW) -> str | None:
    found = it.rival_of(it.steps[0], failures, made=made, now=now)
    return name_of(found) if found else None


@pytest.mark.parametrize(
    ("words", "expected"),
    [("A:m B:m C:m", "B:m"), ("A:m", None), ("A:m F:f", None), ("A:m B:m! C:m", "C:m"), ("A:m F:f B:m", "B:m")],
)
def test_rival_is_the_next_that_serves_the_same_model(words: str, expected: str | None) -> None:
    assert rival(itinerary(words)) == expected


def test_rival_has_not_failed_this_request_and_has_an_attempt_and_time_left() -> None:
    it = itinerary("A:m B:m C:m", ends_in=1.0)
    assert rival(it, [failed("B:m")]) == "C:m"
    assert rival(it, [failed("B:m", Cause.CONTEXT)]) is None
    assert rival(it, made=2) == "B:m"
    assert rival(it, made=3) is None
    assert rival(it, now=NOW + 0.995) is None


@pytest.mark.parametrize("words", ["A:m", "A:m B:m", "A:m F:f", "A:m B:m! F:f", "A:m X:m/api A:f", "A:m? B:m?"])
@pytest.mark.parametrize("cause", [*LASTING, Cause.CONTEXT, Cause.REFUSED])
def test_nobody_is_asked_twice_whose_failure_will_not_pass(words: str, cause: Cause) -> None:
    asked = walk(itinerary(words, attempts=9), cause).split()
    assert len(set(asked)) == len(asked)
