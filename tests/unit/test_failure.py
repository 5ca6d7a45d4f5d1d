from __future__ import annotations

import pytest

from isochrone.upstream.failure import AttemptFailed, Cause, failure_of_status, parse_retry_after

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
    failure = failure_of_status(status, b"body", None, now=NOW)
    assert (failure.cause, failure.status, failure.body) == (cause, status, b"body")


@pytest.mark.parametrize("cause", Cause)
def test_only_what_a_backend_can_help_speaks_against_it(cause: Cause) -> None:
    neutral = {Cause.OUT_OF_TIME, Cause.OVERLOADED, Cause.MISSING, Cause.REFUSED, Cause.DIVERGED}
    assert AttemptFailed(cause, "why").against_health is (cause not in neutral)


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
        ("inf", None),
        ("1e999", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds
