"""What the code asks AWS for, read from its source, is what its roles are granted: nothing missing, nothing more."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

import isochrone
from tests.infra.conftest import Synthesise, Template, actions_of, function_of, resources
from tests.infra.test_rules import EVERYTHING

SOURCE = Path(isochrone.__file__).parent
# The operations of DynamoDB, Firehose, Secrets Manager and SSM that any module names.
OPERATION = re.compile(
    r"^((Get|Put|Update|Delete)(Item|SecretValue|Parameter|SecretVersionStage)|PutRecordBatch|"
    r"(Batch|Transact)(Get|Write)\w+|Describe\w+|Query|Scan|SearchVectors)$"
)
STORES = {
    "answers": ("stores/dynamodb/answers.py", "stores/dynamodb/similar.py"),
    "directory": ("stores/dynamodb/directory.py",),
    "fleet": ("stores/dynamodb/fleet.py",),
    "ledger": ("stores/dynamodb/checkpoints.py", "stores/dynamodb/ledger.py", "stores/dynamodb/rollups.py"),
}
"""The modules that ask each table. That there is no other is tested below."""
OF_COMMANDS = {"ledger": {"Scan"}}
"""What only commands ask, with the rights of who gives them: `isochrone report` of all tenants."""


def operations(*modules: str) -> set[str]:
    """The operations that these modules name."""
    nodes = [node for module in modules for node in ast.walk(ast.parse((SOURCE / module).read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if OPERATION.match(text)}


def asked_methods(module: str, store: str) -> set[str]:
    """The methods that the module calls of `self.<store>`."""
    nodes = ast.walk(ast.parse((SOURCE / module).read_text()))
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == store
    }


def granted(template: Template, name: str, service: str) -> dict[str, set[str]]:
    """The actions of a service that the role of a function has, by the end of what they are granted on."""
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    found: dict[str, set[str]] = defaultdict(set)
    for policy in resources(template, "AWS::IAM::Policy"):
        if {"Ref": role} not in policy["Roles"]:
            continue
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = {action.split(":")[1] for action in actions_of(statement) if action.startswith(service + ":")}
            for end in re.findall(r'table/iso-([a-z]+)|deliverystream/([a-z-]+)"', json.dumps(statement["Resource"])):
                found["".join(end)] |= actions
    return {end: actions for end, actions in found.items() if actions}


@pytest.fixture(scope="module")
def edge(synthesise: Synthesise) -> Template:
    return synthesise(EVERYTHING).edge("us-east-1")


def test_no_other_module_asks_aws_for_anything() -> None:
    known = {module for modules in STORES.values() for module in modules}
    others = {"stores/firehose.py", "stores/secrets.py", "rotator_function.py"}
    making = {"stores/dynamodb/tables.py"}  # makes the tables of an emulator
    modules = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py")}
    assert {module for module in modules if operations(module)} == known | others | making


@pytest.mark.parametrize("name", ["edge", "warmer"])
def test_edge_is_granted_every_call_that_its_stores_make_and_no_other(edge: Template, name: str) -> None:
    called = {table: operations(*modules) - OF_COMMANDS.get(table, set()) for table, modules in STORES.items()}
    assert granted(edge, name, "dynamodb") == called
    assert granted(edge, name, "firehose") == {"iso-audit": operations("stores/firehose.py")}


def test_prober_is_granted_every_call_of_the_one_store_that_it_has(edge: Template) -> None:
    assert granted(edge, "prober", "dynamodb") == {"fleet": operations(*STORES["fleet"])}


def test_admin_function_is_granted_the_calls_of_the_methods_that_it_uses(edge: Template) -> None:
    calls = {"items": "Query", "put": "PutItem", "delete": "DeleteItem"}
    assert set(calls.values()) == operations(*STORES["directory"])
    used = {calls[method] for method in asked_methods("admin.py", "_store")}
    assert granted(edge, "admin", "dynamodb") == {"directory": used}


def test_secrets_are_read_and_rotated_with_the_calls_that_are_granted(synthesise: Synthesise) -> None:
    app = synthesise(EVERYTHING)
    reading = {action for action in _of_secrets(app.edge(), "edge") if not action.startswith("kms")}
    assert reading == operations("stores/secrets.py")
    rotating = _of_secrets(app.templates["iso-global"], "rotator")
    assert rotating == operations("rotator_function.py")


def _of_secrets(template: Template, name: str) -> set[str]:
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    policies = [policy for policy in resources(template, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    actions = [a for p in policies for s in p["PolicyDocument"]["Statement"] for a in actions_of(s)]
    return {action.split(":")[1] for action in actions if action.startswith(("secretsmanager:", "ssm:"))}
