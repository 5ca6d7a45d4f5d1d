"""What an entry holds of a request, and what it never holds."""

from __future__ import annotations

import json

import msgspec

from isochrone.api.errors import Forbidden, LimitReached
from isochrone.api.trail import Trail
from isochrone.audit.entry import QUESTION_CHARS, entry_of
from isochrone.audit.report import line_of
from tests.audits import entry


def trail() -> Trail:
    return Trail(
        at=1_795_000_000.1234,
        request_id="r",
        method="POST",
        path="/v1/chat/completions",
        address="192.0.2.1",
        country="DE",
        key_id="k",
        tenant="t",
        kind="key",
        action="generate",
        model="m",
        parameters={"stream": True, "temperature": 0.7, "n": 2, "seed": None, "response_format": "json_object"},
        latency_ms=12.34567,
        status=200,
    )


def test_time_is_in_milliseconds_and_parameters_are_texts_of_one_type() -> None:
    told = json.loads(msgspec.json.encode(entry_of(trail(), edge="eu-west-1")))
    assert told["time"] == 1_795_000_000_123
    assert told["parameters"] == {
        "stream": "true",
        "temperature": "0.7",
        "n": "2",
        "response_format": "json_object",
    }
    assert (told["address"], told["country"], told["latency_ms"]) == ("192.0.2.1", "DE", 12.346)


def test_what_is_not_known_is_left_out() -> None:
    told = json.loads(msgspec.json.encode(entry_of(Trail(at=1.0, request_id="r"), edge="e")))
    assert {*told} == {"record", "time", "request_id", "edge", "method", "path", "decision", "status", "latency_ms"}


def test_decision_says_whether_it_was_denied_or_too_much() -> None:
    denied, limited = trail(), trail()
    denied.fail(Forbidden("no", code="policy_denied"))
    limited.fail(LimitReached("too much", retry_after=3))
    made = [entry_of(one, edge="e") for one in (trail(), denied, limited)]
    assert [(one.decision, one.reason) for one in made] == [
        ("allowed", ""),
        ("denied", "policy_denied"),
        ("limited", "rate_limit_exceeded"),
    ]


def test_what_a_caller_writes_is_bounded() -> None:
    long = trail()
    long.path = "/" + "x" * 10_000
    long.model = "m" * 10_000
    long.question = "q" * 100_000
    long.parameters = {"stop": "s" * 10_000}
    made = entry_of(long, edge="e")
    assert len(msgspec.json.encode(made)) < QUESTION_CHARS + 2_000


def test_line_for_people_cannot_steer_a_terminal() -> None:
    shown = line_of(entry(1, model="m\x1b[2J\n", reason="policy_denied", rule="night", decision="denied", status=403))
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert "denied  403" in shown
    assert "policy_denied rule night" in shown
