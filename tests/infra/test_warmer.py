"""The warmer function of a region: when it runs, what it may do, and where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from infra.constructs.edge_function import TABLE_ACTIONS
from tests.infra.conftest import (
    BASE,
    Synthesis,
    Synthesise,
    Template,
    function_of,
    granted_actions,
    only,
    resources,
)

WARM = BASE + "\n[answers]\nwarm = true\n\n[warm]\ninterval = 610\n"


@pytest.fixture
def warm(synthesise: Synthesise) -> Template:
    return synthesise(WARM).edge()


def _rule(template: Template) -> dict[str, Any]:
    (rule,) = [rule for rule in resources(template, "AWS::Events::Rule") if "warmer" in rule["Name"]]
    return rule


def test_it_runs_as_often_as_the_configuration_says_in_whole_minutes(warm: Template) -> None:
    rule = _rule(warm)
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(11 minutes)", "ENABLED")
    (target,) = rule["Targets"]
    called = warm["Resources"][target["Arn"]["Fn::GetAtt"][0]]
    assert called["Properties"]["FunctionName"] == "iso-warmer"


def test_a_run_that_failed_is_left_to_the_next_one(warm: Template) -> None:
    configs = [c for c in resources(warm, "AWS::Lambda::EventInvokeConfig") if "Warmer" in str(c["FunctionName"])]
    assert [(c["MaximumRetryAttempts"], c["MaximumEventAgeInSeconds"]) for c in configs] == [(0, 660)]


def test_schedule_of_this_stack_alone_may_call_it(warm: Template) -> None:
    (permission,) = [p for p in resources(warm, "AWS::Lambda::Permission") if "Warmer" in str(p["FunctionName"])]
    assert permission["Principal"] == "events.amazonaws.com"
    assert "WarmerSchedule" in str(permission["SourceArn"])


def test_it_may_what_an_edge_may_by_a_role_of_its_own(warm: Template) -> None:
    assert granted_actions(warm, "warmer") == TABLE_ACTIONS == granted_actions(warm, "edge")
    roles = [function_of(warm, name)["Role"]["Fn::GetAtt"][0] for name in ("edge", "warmer", "prober")]
    assert len(set(roles)) == 3
    secrets = [_may_read(warm, name) for name in ("edge", "warmer")]
    assert secrets[0] == secrets[1] != []


def _may_read(template: Template, name: str) -> list[Any]:
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    policies = [p for p in resources(template, "AWS::IAM::Policy") if {"Ref": role} in p["Roles"]]
    statements = [s for p in policies for s in p["PolicyDocument"]["Statement"]]
    return [s["Resource"] for s in statements if "secretsmanager:GetSecretValue" in s["Action"]]


def test_it_has_the_program_and_its_wheels_and_no_door(warm: Template) -> None:
    edge, warmer = (function_of(warm, name) for name in ("edge", "warmer"))
    assert len(warmer["Layers"]) == 2
    assert [layer for layer in warmer["Layers"] if layer not in edge["Layers"]] == []
    assert warmer["Environment"]["Variables"] == {"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"}
    assert warmer["Timeout"] == 900


def test_where_nothing_is_warmed_or_there_is_no_table_there_is_none(app: Synthesis, synthesise: Synthesise) -> None:
    without_table = synthesise(WARM.replace('kind = "dynamodb"', 'kind = "memory"')).edge()
    for edge in (app.edge(), without_table):
        assert "iso-warmer" not in [f["FunctionName"] for f in resources(edge, "AWS::Lambda::Function")]


def test_an_edge_without_a_warmer_has_one_rule_and_it_is_the_probers(app: Synthesis) -> None:
    assert only(app.edge(), "AWS::Events::Rule")["Name"] == "iso-prober-schedule"
