"""Rules over the whole app: least privilege, the two linters, the same templates every time, no network."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import bundled_node
from infra.layers import ROOT
from tests.infra.conftest import BASE, Synthesis, Synthesise, synthesise_into

KMS_KEY = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234567890abcdef1234567890abcdef"
# All that the app can build, and the least of it.
EVERYTHING = (
    BASE.replace('kind = "dynamodb"', f'kind = "dynamodb"\nkms_key = "{KMS_KEY}"').replace(
        'api_key_secret = "iso/official"', 'api_key_parameter = "/iso/official"'
    )
    + """
[answers]
semantic = true
warm = true

[audit]
to = "firehose"
object_lock = true

[waf]
reputation = true
block_countries = ["KP"]

[limits]
body_bytes = 1000000
"""
)
LEAST = BASE.replace("create = true", "create = false").replace('kind = "dynamodb"', 'kind = "memory"')
APPS = {"usual": (BASE, "aws"), "everything": (EVERYTHING, "aws"), "least": (LEAST, "aws"), "local": (BASE, "local")}

# Every wildcard that the app grants, with its reason.
WILDCARDS = {
    r"autoScalingGroup:\*:autoScalingGroupName/iso-pool-eu": "the fleet's ARN has an id that is not known before it",
    r"secret:iso/[a-z-]+-\?{6}": "Secrets Manager adds six characters to a name, and stacks know secrets by name",
    r"(requests|errors)/\*": "the keys of objects in the bucket of the audit log, which Firehose makes up",
}
Statement = dict[str, Any]


@pytest.fixture(params=list(APPS))
def any_app(request: pytest.FixtureRequest, synthesise: Synthesise) -> Synthesis:
    """Each of APPS in turn."""
    return synthesise(*APPS[request.param])


def _of_type(app: Synthesis, *types: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where, and the properties of, every resource of these types."""
    for name, template in app.templates.items():
        for id_, resource in template["Resources"].items():
            if resource["Type"] in types:
                yield f"{name}/{id_}", resource.get("Properties", {})


def _statements(app: Synthesis) -> Iterator[tuple[str, Statement]]:
    """What roles are allowed, by policies of their own and attached ones."""
    for where, properties in _of_type(app, "AWS::IAM::Role", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
        for document in documents:
            yield from ((where, statement) for statement in document["Statement"])


def test_no_action_and_no_resource_is_a_star(any_app: Synthesis) -> None:
    starred = []
    for where, statement in _statements(any_app):
        assert not {"NotAction", "NotResource"} & set(statement), where
        if re.search(r"[*?]", json.dumps(statement["Action"])):
            starred.append((where, statement["Action"]))
        text = json.dumps(statement["Resource"])
        for known in WILDCARDS:
            text = re.sub(known, "", text)
        if re.search(r"[*?]", text):
            starred.append((where, statement["Resource"]))
    assert starred == []


def test_every_wildcard_that_has_a_reason_is_still_granted(synthesise: Synthesise) -> None:
    granted = json.dumps([statement["Resource"] for _, statement in _statements(synthesise(EVERYTHING))])
    assert [known for known in WILDCARDS if not re.search(known, granted)] == []


def test_statements_are_found_at_all(app: Synthesis) -> None:
    places = {where.split("/")[0] for where, _ in _statements(app)}
    assert places == set(app.templates)


def test_every_function_has_a_role_of_its_own_that_only_lambda_takes_on(any_app: Synthesis) -> None:
    for template in any_app.templates.values():
        functions = [r["Properties"] for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
        roles = [function["Role"]["Fn::GetAtt"][0] for function in functions]
        assert len(set(roles)) == len(roles)
        for role in roles:
            assert _who_takes_it_on(template["Resources"][role]["Properties"]) == ["lambda.amazonaws.com"]


def _who_takes_it_on(role: dict[str, Any]) -> list[str]:
    """The services that may assume a role."""
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
    return [statement["Principal"]["Service"]]


def test_every_role_is_for_one_service_of_aws_and_for_nobody_else(any_app: Synthesis) -> None:
    services = {service for _, role in _of_type(any_app, "AWS::IAM::Role") for service in _who_takes_it_on(role)}
    assert services
    assert services <= {"lambda.amazonaws.com", "ec2.amazonaws.com", "apigateway.amazonaws.com"} | {
        "firehose.amazonaws.com",
        "vpc-flow-logs.amazonaws.com",
    }


def test_only_a_service_of_aws_may_call_a_function_and_only_for_a_source_that_is_named(any_app: Synthesis) -> None:
    permissions = list(_of_type(any_app, "AWS::Lambda::Permission"))
    assert permissions
    for where, permission in permissions:
        assert permission["Principal"].endswith(".amazonaws.com"), where
        assert {"SourceArn", "SourceAccount"} & set(permission), where


def test_no_bucket_is_public_and_each_takes_tls_alone(any_app: Synthesis) -> None:
    policies = json.dumps([policy for _, policy in _of_type(any_app, "AWS::S3::BucketPolicy")])
    for where, bucket in _of_type(any_app, "AWS::S3::Bucket"):
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}, where
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4, where
        assert "BucketEncryption" in bucket, where
        assert f'{{"Ref": "{where.split("/")[1]}"}}' in policies, where
    for where, policy in _of_type(any_app, "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"):
        _denies_plain_http(where, policy["PolicyDocument"]["Statement"])


def _denies_plain_http(where: str, statements: list[Statement]) -> None:
    secure = {"Bool": {"aws:SecureTransport": "false"}}
    assert any((s["Effect"], s.get("Condition")) == ("Deny", secure) for s in statements), where
    open_to_all = [s for s in statements if s["Effect"] == "Allow" and s["Principal"] in ("*", {"AWS": "*"})]
    assert open_to_all == [], where


def test_buckets_are_looked_at_where_there_are_any(synthesise: Synthesise) -> None:
    assert list(_of_type(synthesise(EVERYTHING), "AWS::S3::Bucket"))


def test_every_log_is_kept_for_a_time_that_is_named(any_app: Synthesis) -> None:
    groups = list(_of_type(any_app, "AWS::Logs::LogGroup"))
    assert groups
    assert [where for where, group in groups if not group.get("RetentionInDays")] == []


def test_every_function_writes_to_a_log_of_its_own(any_app: Synthesis) -> None:
    for where, function in _of_type(any_app, "AWS::Lambda::Function"):
        assert function["LoggingConfig"]["LogGroup"], where


def _imported(folder: str) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names} | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module
    }


def test_app_knows_of_the_program_only_its_settings_and_tables_and_how_curated_answers_are_checked() -> None:
    ours = {name for name in _imported("infra") if name.split(".")[0] in ("isochrone", "functions", "scripts", "local")}
    checks_curated = {"isochrone.answers.curated.shelf", "isochrone.ledger.usage"}
    assert ours == {"isochrone.settings", "isochrone.stores.tables", "isochrone.toml_errors"} | checks_curated


def test_functions_know_nothing_of_the_app() -> None:
    assert not {name for name in _imported("functions") if name.split(".")[0] in ("infra", "aws_cdk")}


LINTED = {dns: BASE.replace('dns = "latency"', f'dns = "{dns}"') for dns in ("latency", "geolocation", "geoproximity")}


@pytest.mark.parametrize("text", [*LINTED.values(), EVERYTHING], ids=[*LINTED, "everything"])
def test_cfn_lint_finds_no_error(synthesise: Synthesise, text: str) -> None:
    templates = synthesise(text).files()
    lint = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", *map(str, templates)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    findings = [(f["Rule"]["Id"], f["Message"]) for f in json.loads(done.stdout)]
    # W3005: the CDK names a dependency that a reference implies already.
    assert [finding for finding in findings if finding[0] != "W3005"] == []


def test_finding_of_cdk_nag_that_nobody_acknowledged_stops_the_synthesis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.constructs.own_function.acknowledge", lambda *_args, **_reasons: None)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        synthesise_into(tmp_path)


def test_templates_are_the_same_in_another_process(app: Synthesis, tmp_path: Path) -> None:
    again = f"from pathlib import Path; from tests.infra.conftest import *; synthesise_into(Path({str(tmp_path)!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", again], cwd=ROOT, env=environment, check=True, capture_output=True)
    here = {path.name: path.read_text() for path in app.files()}
    there = {path.name: path.read_text() for path in (tmp_path / "cdk.out").rglob("*.template.json")}
    assert there == here


def test_command_line_needs_neither_account_nor_lookups(tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(BASE)
    node = bundled_node()
    assert node is not None
    command = [str(node), "node_modules/aws-cdk/bin/cdk", "synth", "--quiet", "--lookups=false", "--no-notices"]
    command += ["--no-version-reporting", "--output", str(tmp_path / "out"), "--context", f"config={config}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    environment |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HTTPS_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.template.json"))) == 5
    assert "dummy" not in "".join(path.read_text() for path in (tmp_path / "out").rglob("*.template.json"))
