from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from isochrone.api.errors import ApiError, DeadlinePassed, NothingAlive, Saturated, UpstreamFailed, UpstreamRefused
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.verdict import crowded, is_final, refusal_of, verdict_on


def failed(cause: Cause, backend: str = "pool", model: str = "m", **more: Any) -> AttemptFailed:
    failure = AttemptFailed(cause, f"was {cause.value}", **more)
    failure.belongs_to(backend, model, now=0.0)
    return failure


def verdict(failures: Sequence[AttemptFailed], *, out_of_time: bool = False) -> ApiError:
    return verdict_on(failures, "m", out_of_time=out_of_time)


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        ([], NothingAlive),
        ([Cause.OVERLOADED], Saturated),
        ([Cause.OVERLOADED, Cause.OVERLOADED], Saturated),
        ([Cause.OVERLOADED, Cause.BROKEN], NothingAlive),
        ([Cause.BROKEN, Cause.UNREACHABLE], NothingAlive),
        ([Cause.CREDENTIALS], UpstreamFailed),
        ([Cause.CREDENTIALS, Cause.MISSING], UpstreamFailed),
        ([Cause.CREDENTIALS, Cause.BROKEN], NothingAlive),
        ([Cause.BROKEN, Cause.SILENT], DeadlinePassed),
        ([Cause.BROKEN, Cause.OUT_OF_TIME], DeadlinePassed),
        ([Cause.SILENT, Cause.BROKEN], NothingAlive),
        ([Cause.OVERLOADED, Cause.SILENT], DeadlinePassed),
    ],
)
def test_verdict_says_what_was_wrong_with_all(causes: list[Cause], expected: type[ApiError]) -> None:
    assert type(verdict([failed(cause) for cause in causes])) is expected


def test_every_backend_is_named_with_its_reason_and_the_model_if_it_was_another() -> None:
    failures = [failed(Cause.BROKEN, "a"), failed(Cause.DROPPED, "b", ""), failed(Cause.BROKEN, "c", "chat")]
    assert verdict(failures).message == (
        "No backend for this model could answer: a was broken; b was dropped; c, asked for chat, was broken."
    )


def test_end_of_the_requests_time_goes_before_what_was_wrong_with_the_backends() -> None:
    error = verdict([failed(Cause.OVERLOADED)], out_of_time=True)
    assert isinstance(error, DeadlinePassed)
    assert error.message == "No answer within the deadline: pool was overloaded."
    assert verdict([], out_of_time=True).message == "No answer within the deadline: no time was left."


@pytest.mark.parametrize("causes", [[Cause.OVERLOADED] * 2, [Cause.BROKEN] * 2, [Cause.BROKEN, Cause.SILENT]])
def test_shortest_wish_is_the_callers_hint(causes: list[Cause]) -> None:
    waits = zip(causes, (9.0, 4.0), strict=True)
    assert verdict([failed(cause, retry_after=wait) for cause, wait in waits]).retry_after == 4.0
    assert verdict([failed(cause) for cause in causes]).retry_after == 5.0


def test_crowd_at_every_backend_is_told() -> None:
    message = verdict([failed(Cause.OVERLOADED)]).message
    assert message == "Every backend for this model is busy: pool was overloaded."
    assert verdict([]).message == "No backend for this model could answer: none is left."


def test_wish_not_to_wait_at_all_is_one() -> None:
    assert verdict([failed(Cause.OVERLOADED, retry_after=0.0)]).retry_after == 0.0


def test_wrong_set_up_is_not_mended_by_waiting() -> None:
    error = verdict([failed(Cause.MISSING)])
    assert error.message == "The backends for this model are set up wrongly: pool was missing."
    assert error.retry_after is None


def test_prompt_too_long_for_the_model_is_the_callers_to_hear_whatever_became_of_fallbacks() -> None:
    too_long = failed(Cause.CONTEXT, status=400, body=b"too long")
    error = verdict([failed(Cause.BROKEN), too_long, failed(Cause.SILENT, model="chat")], out_of_time=True)
    assert isinstance(error, UpstreamRefused)
    assert (error.refused_status, error.upstream_body) == (400, b"too long")


def test_prompt_too_long_for_a_fallback_only_is_not() -> None:
    assert isinstance(verdict([failed(Cause.BROKEN), failed(Cause.CONTEXT, model="chat")]), NothingAlive)


def test_route_that_nobody_has_is_passed_on() -> None:
    error = verdict([failed(Cause.MISSING, status=501, body=b"first"), failed(Cause.MISSING, status=501, body=b"last")])
    assert isinstance(error, UpstreamRefused)
    assert (error.refused_status, error.upstream_body) == (501, b"last")
    mixed = [failed(Cause.MISSING, status=501), failed(Cause.MISSING, status=404)]
    assert isinstance(verdict(mixed), UpstreamFailed)


@pytest.mark.parametrize("cause", Cause)
def test_only_a_refusal_by_the_model_asked_for_or_a_content_filter_ends_a_pursuit(cause: Cause) -> None:
    assert is_final(failed(cause), "m") is (cause in (Cause.REFUSED, Cause.FILTERED))
    assert is_final(failed(cause, model="chat"), "m") is (cause is Cause.FILTERED)


def test_refusal_that_came_in_band_is_a_400() -> None:
    assert refusal_of(failed(Cause.FILTERED, body=b"no")).refused_status == 400
    assert refusal_of(failed(Cause.FILTERED, status=403)).refused_status == 403


def test_crowd_is_told_who_else_failed_and_when_to_come_back() -> None:
    error = crowded([failed(Cause.BROKEN), failed(Cause.BROKEN, "api", "chat")], "m", retry_after=7.0)
    assert (type(error), error.retry_after) == (Saturated, 7.0)
    assert error.message == ("Every backend for this model is full; pool was broken; api, asked for chat, was broken.")
    assert crowded([], "m", retry_after=7.0).message == "Every backend for this model is full."


def test_backend_that_another_request_tries_just_now_is_named() -> None:
    error = verdict_on([failed(Cause.BROKEN)], "m", out_of_time=False, on_trial=["spare"])
    assert isinstance(error, NothingAlive)
    assert error.message == (
        "No backend for this model could answer: pool was broken; spare was sick and is being tried."
    )
