"""The rotator function: which secrets it makes anew and when, what it may do, and where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from infra.constructs.pool import GRACE_SECONDS, REFRESH_SECONDS
from infra.constructs.rotation import TIMEOUT
from isochrone.rotator_function import ACCEPTED_AFTER_SECONDS
from tests.infra.conftest import BASE, Synthesis, Synthesise, Template, function_of, only, resources
from tests.infra.test_encryption import ENCRYPTED, KEY, through


@pytest.fixture(scope="module")
def shared(app: Synthesis) -> Template:
    return app.templates["iso-global"]


def secret_named(template: Template, name: str) -> str:
    """The logical id of the secret of that name."""
    secrets = {id_: r for id_, r in template["Resources"].items() if r["Type"] == "AWS::SecretsManager::Secret"}
    found: list[str] = [id_ for id_, secret in secrets.items() if secret["Properties"]["Name"] == name]
    return found[0]


def statements_of(template: Template) -> list[dict[str, Any]]:
    """What the rotator's role may do."""
    role = function_of(template, "rotator")["Role"]["Fn::GetAtt"][0]
    policies = [policy for policy in resources(template, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def test_key_of_a_pool_that_is_built_here_is_made_anew_and_no_other(shared: Template) -> None:
    schedule = only(shared, "AWS::SecretsManager::RotationSchedule")
    assert schedule["SecretId"] == {"Ref": secret_named(shared, "iso/pool-eu")}
    assert schedule["RotationRules"] == {"AutomaticallyAfterDays": 30}


def test_how_often_is_a_setting(synthesise: Synthesise) -> None:
    weekly = synthesise(BASE.replace("create = true", "create = true\nrotate_days = 7"))
    schedule = only(weekly.templates["iso-global"], "AWS::SecretsManager::RotationSchedule")
    assert schedule["RotationRules"] == {"AutomaticallyAfterDays": 7}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("create = true", "create = false"),
        ('api_key_secret = "iso/official"', 'api_key_secret = "iso/pool-eu"'),
    ],
    ids=["no pool is built", "an API has the same key"],
)
def test_key_whose_other_side_cannot_be_told_is_left_alone(synthesise: Synthesise, old: str, new: str) -> None:
    shared = synthesise(BASE.replace(old, new)).templates["iso-global"]
    assert not list(resources(shared, "AWS::SecretsManager::RotationSchedule"))
    assert not list(resources(shared, "AWS::Lambda::Function"))


def test_rotator_may_do_four_things_with_that_secret_and_write_its_log(shared: Template) -> None:
    log, own = statements_of(shared)
    assert log["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert own["Resource"] == {"Ref": secret_named(shared, "iso/pool-eu")}
    assert [action.removeprefix("secretsmanager:") for action in own["Action"]] == [
        "DescribeSecret",
        "GetSecretValue",
        "PutSecretValue",
        "UpdateSecretVersionStage",
    ]


def test_with_a_key_of_ones_own_it_may_use_it_through_secrets_manager_alone(synthesise: Synthesise) -> None:
    statements = statements_of(synthesise(ENCRYPTED).templates["iso-global"])
    (use,) = [statement for statement in statements if "kms:" in str(statement["Action"])]
    assert (use["Action"], use["Resource"]) == (["kms:Decrypt", "kms:GenerateDataKey"], KEY)
    assert use["Condition"] == {"StringEquals": {"kms:ViaService": through("secretsmanager", "us-east-1")}}


def test_only_secrets_manager_of_this_account_may_call_it(shared: Template) -> None:
    permission = only(shared, "AWS::Lambda::Permission")
    assert permission["Principal"] == "secretsmanager.amazonaws.com"
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}
    schedule = next(r for r in shared["Resources"].values() if r["Type"] == "AWS::SecretsManager::RotationSchedule")
    (permission_id,) = [id_ for id_, r in shared["Resources"].items() if r["Type"] == "AWS::Lambda::Permission"]
    assert permission_id in schedule["DependsOn"], "or the first rotation would not be allowed"


def test_rotator_has_the_program_and_its_wheels_and_no_more(shared: Template) -> None:
    function = function_of(shared, "rotator")
    assert len(function["Layers"]) == len(list(resources(shared, "AWS::Lambda::LayerVersion"))) == 2
    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])


def test_rotation_that_fails_calls_for_help(shared: Template) -> None:
    alarm = only(shared, "AWS::CloudWatch::Alarm")
    assert alarm["AlarmName"] == "iso-RotationFailed"
    assert (alarm["MetricName"], alarm["Threshold"], len(alarm["AlarmActions"])) == ("Errors", 0, 1)
    (dimension,) = alarm["Dimensions"]
    assert "RotatorFunction" in str(dimension["Value"])


def test_emulator_builds_no_pool_and_rotates_none(synthesise: Synthesise) -> None:
    shared = synthesise(BASE, "local").templates["iso-global"]
    assert not list(resources(shared, "AWS::Lambda::Function"))


def test_every_node_has_looked_before_the_new_key_is_tried_and_edges_have_a_day() -> None:
    assert 2 * REFRESH_SECONDS < ACCEPTED_AFTER_SECONDS < TIMEOUT.to_seconds() - 60
    assert GRACE_SECONDS == 24 * 3600
