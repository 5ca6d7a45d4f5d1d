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

# Every wildcard that the app grants, with its reason. The fleet's ARN has an id that is not known before the fleet.
WILDCARDS = (r'"autoScalingGroup:\*:autoScalingGroupName/iso-pool-eu"', r'"secret:iso/[a-z-]+-\?{6}"')


def _statements(app: Synthesis) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, template in app.templates.items():
        for id_, resource in template["Resources"].items():
            properties = resource.get("Properties", {})
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            documents += [properties["PolicyDocument"]] if resource["Type"] == "AWS::IAM::Policy" else []
            for document in documents:
                yield from ((f"{name}/{id_}", statement) for statement in document["Statement"])


def test_no_action_and_no_resource_is_a_star(app: Synthesis) -> None:
    starred = []
    for where, statement in _statements(app):
        if "*" in json.dumps(statement["Action"]):
            starred.append((where, statement["Action"]))
        text = json.dumps(statement["Resource"])
        for known in WILDCARDS:
            text = re.sub(known.strip('"'), "", text)
        if re.search(r"[*?]", text):
            starred.append((where, statement["Resource"]))
    assert starred == []


def test_statements_are_found_at_all(app: Synthesis) -> None:
    places = {where.split("/")[0] for where, _ in _statements(app)}
    assert places == {"iso-pool-eu-west-1", *(name for name in app.templates if "-edge-" in name)}


def test_every_function_has_a_role_of_its_own(app: Synthesis) -> None:
    for template in app.templates.values():
        roles = [
            r["Properties"]["Role"] for r in template["Resources"].values() if r["Type"] == "AWS::Lambda::Function"
        ]
        assert len({json.dumps(role) for role in roles}) == len(roles)


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


@pytest.mark.parametrize("dns", ["latency", "geolocation", "geoproximity"])
def test_cfn_lint_finds_no_error(synthesise: Synthesise, dns: str) -> None:
    templates = synthesise(BASE.replace('dns = "latency"', f'dns = "{dns}"')).files()
    lint = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", *map(str, templates)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    findings = [(f["Rule"]["Id"], f["Message"]) for f in json.loads(done.stdout)]
    # W3005: the CDK names a dependency that a reference implies already.
    assert [finding for finding in findings if finding[0] != "W3005"] == []


def test_finding_of_cdk_nag_that_nobody_acknowledged_stops_the_synthesis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.constructs.edge_function.acknowledge", lambda *_args, **_reasons: None)
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
