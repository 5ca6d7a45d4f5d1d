"""Keys of backends in SSM's parameter store: who may read which, and with whose key of KMS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import BASE, Synthesis, Synthesise, function_of, resources
from tests.infra.test_encryption import ENCRYPTED, key_in, key_statements, through

OLD, NEW = 'api_key_secret = "iso/official"', 'api_key_parameter = "/iso/official"'


def reading(app: Synthesis, name: str) -> list[dict[str, Any]]:
    """What the role of that function may do with parameters."""
    role = function_of(app.edge(), name)["Role"]["Fn::GetAtt"][0]
    policies = [policy for policy in resources(app.edge(), "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    statements = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    return [statement for statement in statements if "ssm:" in str(statement["Action"])]


def test_edge_may_read_the_very_parameter_of_its_region_and_nothing_else(synthesise: Synthesise) -> None:
    (statement,) = reading(synthesise(BASE.replace(OLD, NEW)), "edge")
    assert statement["Action"] == "ssm:GetParameter"
    arn = statement["Resource"]["Fn::Join"][1]
    assert "".join(part if isinstance(part, str) else "REFERENCE" for part in arn) == (
        "arn:aws:ssm:eu-west-1:REFERENCE:parameter/iso/official"
    )


@pytest.mark.parametrize("name", ["edge", "prober"])
def test_without_such_a_backend_nobody_reads_parameters(app: Synthesis, name: str) -> None:
    assert reading(app, name) == []


def test_prober_reads_none(synthesise: Synthesise) -> None:
    assert reading(synthesise(BASE.replace(OLD, NEW)), "prober") == []


def test_key_of_ones_own_may_be_used_to_read_it_through_ssm_alone(synthesise: Synthesise) -> None:
    statements = key_statements(synthesise(ENCRYPTED.replace(OLD, NEW)).edge(), "edge")
    assert {
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": key_in("eu-west-1"),
        "Condition": {"StringEquals": {"kms:ViaService": through("ssm", "eu-west-1")}},
    } in statements


def test_parameter_is_the_operators_and_not_made_here(synthesise: Synthesise) -> None:
    app = synthesise(BASE.replace(OLD, NEW))
    made = [secret["Name"] for secret in resources(app.templates["iso-global"], "AWS::SecretsManager::Secret")]
    assert made == ["iso/pool-eu"]
    assert not [t for t in app.templates.values() if list(resources(t, "AWS::SSM::Parameter"))]
