from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.upstream.failure import (
    AttemptFailed,
    Cause,
    failure_of_status,
    out_of_time,
    parse_retry_after,
    told_in_band,
    wait_asked_for,
)

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, Cause.REFUSED),
        (401, Cause.CREDENTIALS),
        (402, Cause.CREDENTIALS),
        (403, Cause.CREDENTIALS),
        (404, Cause.MISSING),
        (501, Cause.MISSING),
        (408, Cause.BROKEN),
        (413, Cause.REFUSED),
        (422, Cause.REFUSED),
        (425, Cause.BROKEN),
        (429, Cause.OVERLOADED),
        (500, Cause.BROKEN),
        (503, Cause.BROKEN),
        (204, Cause.BROKEN),
        (307, Cause.BROKEN),
    ],
)
def test_status_says_what_kind_of_failure_it_is(status: int, cause: Cause) -> None:
    failure = failure_of_status(status, b"body", {}, now=NOW)
    assert (failure.cause, failure.status, failure.body) == (cause, status, b"body")
    assert failure.detail == f"answered {status}"


@pytest.mark.parametrize("cause", Cause)
def test_only_what_a_backend_can_help_speaks_against_it(cause: Cause) -> None:
    neutral = {Cause.OUT_OF_TIME, Cause.OVERLOADED, Cause.MISSING, Cause.REFUSED, Cause.DIVERGED}
    neutral |= {Cause.CONTEXT, Cause.FILTERED}
    assert AttemptFailed(cause, "why").against_health is (cause not in neutral)


def error(message: str = "", *, code: Any = None, type: str = "invalid_request_error") -> bytes:
    return json.dumps({"error": {"message": message, "type": type, "code": code, "param": None}}).encode()


VLLM = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens in the messages."
LLAMA_CPP = "the request exceeds the available context size, try increasing it"
SGLANG = "The input (9000 tokens) is longer than the model's context length (8192 tokens)."


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (400, error(code="context_length_exceeded"), Cause.CONTEXT),
        (400, error(VLLM, code=400, type="BadRequestError"), Cause.CONTEXT),
        (400, error(LLAMA_CPP, code=400, type="exceed_context_size_error"), Cause.CONTEXT),
        (400, error(SGLANG), Cause.CONTEXT),
        (413, error("Your input exceeds the context window of this model."), Cause.CONTEXT),
        (422, error("max_tokens must be below max_model_len"), Cause.CONTEXT),
        (400, error("The prompt is longer than the maximum model length of 4096"), Cause.CONTEXT),
        (400, error(VLLM.upper()), Cause.CONTEXT),
        (500, error(VLLM), Cause.BROKEN),
        (400, error(code="content_filter"), Cause.FILTERED),
        (400, error(code="content_policy_violation"), Cause.FILTERED),
        (400, error("Content Exists Risk"), Cause.FILTERED),
        (400, error(code="data_inspection_failed"), Cause.FILTERED),
        (400, error(code="DataInspectionFailed"), Cause.FILTERED),
        (403, error(code="content_filter"), Cause.FILTERED),
        (422, error(code="content_filter"), Cause.FILTERED),
        (500, error(code="content_filter"), Cause.BROKEN),
        (429, error(code="insufficient_quota"), Cause.CREDENTIALS),
        (429, error(type="insufficient_quota"), Cause.CREDENTIALS),
        (429, error(code="billing_hard_limit_reached"), Cause.CREDENTIALS),
        (400, error("Insufficient Balance"), Cause.CREDENTIALS),
        (400, error(code="insufficient_balance"), Cause.CREDENTIALS),
        (429, error(code="rate_limit_exceeded"), Cause.OVERLOADED),
        (400, error("How the rate_limit works is not known."), Cause.REFUSED),
        (400, error("temperature is wrong"), Cause.REFUSED),
        (400, b'{"error": "maximum context length"}', Cause.CONTEXT),
        (400, b'{"message": "maximum context length is 10"}', Cause.CONTEXT),
        (400, b'{"object": "error", "message": "maximum context length is 10", "code": 400}', Cause.CONTEXT),
        (400, b'{"error": {"message": 7, "code": "context_length_exceeded"}}', Cause.CONTEXT),
        (400, b'{"error": ["maximum context length"]}', Cause.REFUSED),
        (400, b'["maximum context length"]', Cause.REFUSED),
        (400, b"maximum context length", Cause.REFUSED),
        (400, b'{"error": {"param": "maximum context length"}}', Cause.REFUSED),
        (400, b"\xff\xfe", Cause.REFUSED),
        (400, b"[" * 5000, Cause.REFUSED),
        (400, b"", Cause.REFUSED),
    ],
)
def test_words_of_an_error_say_what_its_status_does_not(status: int, body: bytes, cause: Cause) -> None:
    assert failure_of_status(status, body, {}, now=NOW).cause is cause


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (error(code="context_length_exceeded"), Cause.CONTEXT),
        (error(code="content_filter"), Cause.FILTERED),
        (error(code="insufficient_quota"), Cause.CREDENTIALS),
        (error(code="rate_limit_exceeded"), Cause.OVERLOADED),
        (error("Too many requests, slow down."), Cause.OVERLOADED),
        (error(type="too_many_requests"), Cause.OVERLOADED),
        (error("out of memory", code=500), Cause.BROKEN),
        (b"", Cause.BROKEN),
    ],
)
def test_error_that_comes_in_band_after_a_200_is_told_apart_too(body: bytes, cause: Cause) -> None:
    failure = told_in_band(AttemptFailed(Cause.BROKEN, "sent an error in its stream", body=body))
    assert (failure.cause, failure.detail, failure.body) == (cause, "sent an error in its stream", body)


def test_words_of_a_failure_that_was_understood_already_change_nothing() -> None:
    failure = AttemptFailed(Cause.REFUSED, "answered 400", status=400, body=error(code="rate_limit_exceeded"))
    assert told_in_band(failure) is failure


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"retry-after-ms": "0", "Retry-After": "2"}, 0.0),
        ({"retry-after-ms": "-5"}, 0.0),
        ({"retry-after-ms": "soon", "Retry-After": "2"}, 2.0),
        ({"retry-after-ms": "inf", "Retry-After": "2"}, 2.0),
        ({"retry-after-ms": "1e15"}, 86_400.0),
    ],
)
def test_wait_may_be_asked_for_in_milliseconds(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked_for(headers, now=NOW) == seconds
    assert failure_of_status(429, b"", headers, now=NOW).retry_after == seconds


def test_causes_are_named_in_the_ledger_as_they_are_in_the_table() -> None:
    assert [cause.value for cause in Cause] == [cause.name.lower() for cause in Cause]


def test_failure_of_a_request_whose_time_is_over_is_that_and_nobodys_yet() -> None:
    failure = out_of_time()
    assert (failure.cause, str(failure)) == (Cause.OUT_OF_TIME, "was not done when its time was over")
    assert (failure.backend, failure.model, failure.failed_at, failure.ambiguous) == ("", "", 0.0, False)


def test_failure_knows_whose_it_is_and_since_when() -> None:
    failure = AttemptFailed(Cause.BROKEN, "why")
    failure.belongs_to("pool", "m", now=5.0)
    assert (failure.backend, failure.model, failure.failed_at) == ("pool", "m", 5.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        ("-5", 0.0),
        ("soon", None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
        ("Fri, 15 Jan 2027 08:00:30", 30.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 99 Jan 2027 07:00:00 GMT", None),
        ("Fri, 15 Jan 99999 07:00:00 GMT", None),
        ("Fri, 15 Jan 2027 08:00:30 +99999999999999999999", None),
        ("inf", None),
        ("1e999", None),
        ("nan", None),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("Sun, 17 Jan 2027 08:00:00 GMT", 86_400.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds
