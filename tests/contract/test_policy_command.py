"""`isochrone policy` on the directory table that edges read."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from isochrone.admission.policies.examples import Request, asking
from isochrone.admission.policies.shared import SharedPolicies
from isochrone.background import Background
from isochrone.cli import main
from isochrone.settings import load, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from tests.contract.conftest import PATIENT

REGIONS = ("eu-west-1", "us-east-1")
CONFIG = """
[service]
name = "{name}"
[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"
[auth]
policies = true
[[region]]
name = "eu-west-1"
default = true
[[region]]
name = "us-east-1"
[[backend]]
name = "pool"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
[[policy]]
id = "fixed"
effect = "deny"
principal.tenant = ["nobody"]
"""


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=ministack))
    assert run("tables", "create", "--config", str(config)).exit_code == 0
    return config


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def policy(config: Path, command: str, *arguments: str) -> Result:
    return run("policy", command, *arguments, "--config", str(config))


def put(config: Path, text: str, name: str = "rules.toml") -> Result:
    file = config.parent / name
    file.write_text(text)
    return policy(config, "put", str(file))


async def allowed_at(config: Path, region: str, tenant: str) -> bool:
    settings = load(config)
    async with connect(region, endpoint_url=settings.state.endpoint_url, timeouts=PATIENT) as client:
        store = DynamoDirectoryStore(client, table_name(settings, "directory"))
        edge = SharedPolicies(
            settings, store, clock=time.time, monotonic=time.monotonic, background=Background(), count=print
        )
        await edge.refresh()
        return edge.decide(asking(Request(tenant=tenant, model="m")), "generate", model="m").allowed


def allowed(config: Path, tenant: str) -> list[bool]:
    return [asyncio.run(allowed_at(config, region, tenant)) for region in REGIONS]


def test_rules_that_are_put_are_obeyed_in_every_region_until_they_are_removed(config: Path) -> None:
    assert allowed(config, "team-a") == [False, False]
    done = put(
        config,
        '[[policy]]\nid = "all"\neffect = "allow"\n\n[[policy]]\nid = "b"\neffect = "deny"\nprincipal.tenant = ["b"]',
    )
    assert (done.exit_code, done.output) == (0, "put: all, b\n")
    assert allowed(config, "team-a") == [True, True]
    assert allowed(config, "b") == [False, False]
    assert policy(config, "list").output == (
        "deny  fixed (configuration)\nallow all (directory)\ndeny  b (directory)\n"
    )
    assert policy(config, "explain", "--tenant", "b", "--directory").output.startswith("denied: rule 'b' denies it\n")
    assert json.loads(policy(config, "remove", "b", "--json").output) == {"removed": ["b"]}
    assert allowed(config, "b") == [True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id = "fixed"\neffect = "allow"', "rules.toml:2: policy[0].id: stands in the configuration"),
        ('id = "a"\neffect = "deny"\nresource.model = ["x"]', "policy[0].resource.model: nothing here is called 'x'"),
        (
            'id = "a"\neffect = "allow"\nprincipal.tenant = ["nobody"]',
            "policy[0].effect: never matches: 'fixed' denies",
        ),
        (
            'id = "a"\neffect = "allow"\ncondition.time.before = 2001-01-01T00:00:00Z',
            "before: never matches: it is over",
        ),
        ('id = "a"\neffect = "allow"\n[[policy]]\nid = "a"\neffect = "deny"', "policy[1].id: 'a' stands twice"),
    ],
)
def test_a_rule_that_would_not_do_what_is_meant_is_not_put(config: Path, text: str, message: str) -> None:
    done = put(config, f"[[policy]]\n{text}\n")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "directory" not in policy(config, "list").output


def test_one_that_no_edge_can_obey_is_named_and_can_be_removed(config: Path) -> None:
    asyncio.run(poison(config))
    why = "policy 'bad': no JSON: "
    assert why in policy(config, "list").stderr
    assert "remove it first: " + why in put(config, '[[policy]]\nid = "all"\neffect = "allow"').stderr
    assert policy(config, "remove", "bad").exit_code == 0
    assert put(config, '[[policy]]\nid = "all"\neffect = "allow"').exit_code == 0


async def poison(config: Path) -> None:
    settings = load(config)
    async with connect(REGIONS[0], endpoint_url=settings.state.endpoint_url, timeouts=PATIENT) as client:
        await DynamoDirectoryStore(client, table_name(settings, "directory")).put("policy", "bad", {"text": "{"})


def test_removing_what_is_not_there_takes_out_nothing(config: Path) -> None:
    put(config, '[[policy]]\nid = "all"\neffect = "allow"')
    done = policy(config, "remove", "all", "none")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: there is no rule 'none' in the directory; nothing was taken out\n",
    )
    assert "all" in policy(config, "list").output


def test_a_table_that_is_not_there_is_one_line(tmp_path: Path, ministack: str) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=ministack))
    done = policy(config, "list")
    assert done.exit_code == 1
    assert "the directory table does not answer: " in done.stderr
    assert done.stderr.count("\n") == 1
