"""What AWS itself would write down of a request is known, and holds no key, no query and no text."""

from __future__ import annotations

import re

import pytest

from tests.infra.conftest import BASE, Synthesis, Synthesise, resources

CONTEXT = re.compile(r"\$context\.[A-Za-z.]+")
# Where the query, headers, the authorizer's and the identity's secrets, and bodies would be.
TELLING = re.compile(
    r"query|header|authorizer|apiKey|accessKey|user|requestOverride|body|error\.message", re.IGNORECASE
)


@pytest.fixture
def app(synthesise: Synthesise) -> Synthesis:
    return synthesise(BASE + '\n[audit]\nto = "firehose"\n')


def test_access_logs_hold_nothing_that_a_caller_keeps_secret(app: Synthesis) -> None:
    stages = [stage for template in app.templates.values() for stage in resources(template, "AWS::ApiGateway::Stage")]
    assert len(stages) == 3
    for stage in stages:
        told = CONTEXT.findall(stage["AccessLogSetting"]["Format"])
        assert "$context.path" in told
        assert [name for name in told if TELLING.search(name)] == []


def test_api_gateway_writes_no_bodies_and_no_headers_into_its_own_log(app: Synthesis) -> None:
    for template in app.templates.values():
        for stage in resources(template, "AWS::ApiGateway::Stage"):
            assert [one.get("DataTraceEnabled", False) for one in stage["MethodSettings"]] == [False]
            assert {one["LoggingLevel"] for one in stage["MethodSettings"]} == {"ERROR"}


def test_nothing_is_traced(app: Synthesis) -> None:
    """X-Ray would keep paths with their queries and what a function annotates."""
    for template in app.templates.values():
        for stage in resources(template, "AWS::ApiGateway::Stage"):
            assert not stage.get("TracingEnabled")
        for function in resources(template, "AWS::Lambda::Function"):
            assert "TracingConfig" not in function


def test_no_failed_call_of_a_function_is_kept_with_its_event(app: Synthesis) -> None:
    """A dead-letter queue or a destination for failures would hold the events of requests."""
    for template in app.templates.values():
        for invoked in resources(template, "AWS::Lambda::EventInvokeConfig"):
            assert "DestinationConfig" not in invoked
        for function in resources(template, "AWS::Lambda::Function"):
            assert "DeadLetterConfig" not in function
