"""The prober function of a region: when it runs, what it may do, and where there is none."""

from __future__ import annotations

import inspect
import re

from infra.constructs.prober_function import TABLE_ACTIONS
from isochrone import prober_function
from tests.infra.conftest import BASE, Synthesis, Synthesise, function_of, granted_actions, only, resources


def test_every_minute_is_one_round(app: Synthesis) -> None:
    rule = only(app.edge(), "AWS::Events::Rule")
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    (target,) = rule["Targets"]
    called = app.edge()["Resources"][target["Arn"]["Fn::GetAtt"][0]]
    assert called["Properties"]["FunctionName"] == "iso-prober"


def test_round_that_failed_is_left_to_the_next_minute(app: Synthesis) -> None:
    config = only(app.edge(), "AWS::Lambda::EventInvokeConfig")
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (0, 60)
    assert function_of(app.edge(), "prober")["Timeout"] < 60


def test_schedule_of_this_stack_alone_may_call_it(app: Synthesis) -> None:
    permissions = [p for p in resources(app.edge(), "AWS::Lambda::Permission") if "Prober" in str(p["FunctionName"])]
    (permission,) = permissions
    assert permission["Principal"] == "events.amazonaws.com"
    assert "ProberSchedule" in str(permission["SourceArn"])


def test_prober_may_touch_the_table_that_its_code_opens_and_only_as_declared(app: Synthesis) -> None:
    opened = set(re.findall(r'table_name\(settings, "([a-z]+)"\)', inspect.getsource(prober_function)))
    assert opened == set(TABLE_ACTIONS)
    assert granted_actions(app.edge(), "prober") == TABLE_ACTIONS


def test_prober_may_write_its_log_and_nothing_else_besides(app: Synthesis) -> None:
    """It asks no backend for anything that needs a key."""
    role = function_of(app.edge(), "prober")["Role"]["Fn::GetAtt"][0]
    policies = [p for p in resources(app.edge(), "AWS::IAM::Policy") if {"Ref": role} in p["Roles"]]
    actions = {action for p in policies for s in p["PolicyDocument"]["Statement"] for action in s["Action"]}
    assert {action for action in actions if not action.startswith("dynamodb:")} == {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    assert "ManagedPolicyArns" not in app.edge()["Resources"][role]["Properties"]


def test_prober_has_the_program_and_its_wheels_and_shares_them_with_the_edge(app: Synthesis) -> None:
    edge, prober = (function_of(app.edge(), name) for name in ("edge", "prober"))
    assert len(prober["Layers"]) == 2
    assert [layer for layer in prober["Layers"] if layer not in edge["Layers"]] == []
    assert prober["Environment"]["Variables"] == {"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"}
    assert (prober["Runtime"], prober["Architectures"]) == (edge["Runtime"], edge["Architectures"])


def test_prober_has_a_role_of_its_own(app: Synthesis) -> None:
    roles = [function_of(app.edge(), name)["Role"]["Fn::GetAtt"][0] for name in ("edge", "prober")]
    assert len(set(roles)) == 2


def test_without_probes_or_without_a_table_there_is_none(synthesise: Synthesise) -> None:
    for text in (
        BASE + "\n[routing]\nprobe_interval = 0\n",
        BASE.replace('kind = "dynamodb"', 'kind = "memory"'),
    ):
        edge = synthesise(text).edge()
        assert not list(resources(edge, "AWS::Events::Rule"))
        assert "iso-prober" not in [f["FunctionName"] for f in resources(edge, "AWS::Lambda::Function")]
