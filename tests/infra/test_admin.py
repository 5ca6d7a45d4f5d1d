"""The admin function of a region: who reaches it, what it may do, and where there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.constructs.admin_function import PARTITIONS
from isochrone.admission.key_record import PARTITION
from tests.infra.conftest import (
    BASE,
    Synthesis,
    Synthesise,
    Template,
    actions_of,
    function_of,
    granted_actions,
    resources,
)


@pytest.fixture
def edge(app: Synthesis) -> Template:
    return app.edge()


def _paths(template: Template) -> dict[str, str]:
    """The path of every resource of the API, by its logical id."""
    parts = {
        id_: resource["Properties"]
        for id_, resource in template["Resources"].items()
        if resource["Type"] == "AWS::ApiGateway::Resource"
    }

    def path(id_: str) -> str:
        above = parts[id_]["ParentId"]
        return (path(above["Ref"]) if "Ref" in above else "") + "/" + str(parts[id_]["PathPart"])

    return {id_: path(id_) for id_ in parts}


def _methods(template: Template) -> dict[str, dict[str, Any]]:
    """The methods of the API by the path that they stand on."""
    paths = _paths(template)
    return {
        paths.get(method["ResourceId"].get("Ref"), "/"): method
        for method in resources(template, "AWS::ApiGateway::Method")
    }


def _statements(template: Template, name: str) -> list[dict[str, Any]]:
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    policies = [policy for policy in resources(template, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def test_every_admin_method_asks_for_an_iam_identity_and_no_other_method_is_below_admin(edge: Template) -> None:
    methods = _methods(edge)
    assert {path: method["AuthorizationType"] for path, method in methods.items()} == {
        "/": "NONE",
        "/{proxy+}": "NONE",
        "/admin/{proxy+}": "AWS_IAM",
    }
    called = json.dumps(methods["/admin/{proxy+}"]["Integration"]["Uri"])
    assert "AdminFunction" in called
    assert "ResponseTransferMode" not in methods["/admin/{proxy+}"]["Integration"]


def test_no_policy_of_the_api_lets_in_another_account(edge: Template) -> None:
    assert [api.get("Policy") for api in resources(edge, "AWS::ApiGateway::RestApi")] == [None]


def test_only_this_api_may_call_it_and_only_below_admin(edge: Template) -> None:
    permissions = [
        permission
        for permission in resources(edge, "AWS::Lambda::Permission")
        if "AdminFunction" in str(permission["FunctionName"])
    ]
    assert {permission["Principal"] for permission in permissions} == {"apigateway.amazonaws.com"}
    assert all("/admin/*" in json.dumps(permission["SourceArn"]) for permission in permissions)


def test_it_may_lay_down_keys_and_nothing_else(edge: Template) -> None:
    assert PARTITIONS == (PARTITION,)
    tables = [s for s in _statements(edge, "admin") if "dynamodb:" in json.dumps(s["Action"])]
    (statement,) = tables
    assert actions_of(statement) == ["dynamodb:PutItem", "dynamodb:Query"]
    assert ":table/iso-directory" in json.dumps(statement["Resource"])
    assert statement["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["key"]}}
    assert granted_actions(edge, "admin") == {}


def test_edge_itself_cannot_write_a_key(edge: Template) -> None:
    writing = [s for s in _statements(edge, "edge") if "dynamodb:PutItem" in actions_of(s)]
    assert writing
    for statement in writing:
        may_be = statement.get("Condition", {}).get("ForAllValues:StringEquals", {}).get("dynamodb:LeadingKeys", [])
        assert "directory" not in json.dumps(statement["Resource"]) or set(may_be) == {"revoked"}


def test_it_has_a_role_of_its_own(edge: Template) -> None:
    roles = [function_of(edge, name)["Role"]["Fn::GetAtt"][0] for name in ("edge", "prober", "admin")]
    assert len(set(roles)) == 3


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        (BASE.replace('kind = "dynamodb"', 'kind = "memory"'), "aws"),
        (BASE + "\n[auth]\nkeys = false\n", "aws"),
        (BASE + "\n[auth]\nkeys = false\npolicies = true\n", "aws"),
        (BASE, "local"),
    ],
)
def test_where_no_key_is_laid_down_or_nobody_vouches_for_identities_there_is_none(
    synthesise: Synthesise, text: str, profile: str
) -> None:
    edge = synthesise(text, profile).edge()
    assert "iso-admin" not in [f["FunctionName"] for f in resources(edge, "AWS::Lambda::Function")]
    assert not any("admin" in path for path in _paths(edge).values())
