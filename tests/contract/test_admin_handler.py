"""The handler of the admin function, loaded as Lambda loads it, on the tables that edges read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from isochrone.cli import main

ROOT = Path(__file__).parents[2]
CONFIG = """
[service]
name = "{name}"
[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
"""

INVOKED = """
import json, sys
from handler import handler
print(json.dumps([handler(event, None) for event in json.load(sys.stdin)]))
"""


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    path = tmp_path / "isochrone.toml"
    path.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=ministack))
    assert CliRunner().invoke(main, ["tables", "create", "--config", str(path)]).exit_code == 0
    return path


def invoked(config: Path, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What the function replies to these events, in a process of its own."""
    environ = os.environ | {"ISOCHRONE_CONFIG": str(config), "AWS_REGION": "eu-west-1"}
    done = subprocess.run(
        [sys.executable, "-c", INVOKED],
        cwd=ROOT / "functions/admin",
        env=environ,
        input=json.dumps(events),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    replies: list[dict[str, Any]] = json.loads(done.stdout)
    assert "isk_" not in done.stderr
    return replies


def listed(config: Path) -> dict[str, Any]:
    told = CliRunner().invoke(main, ["keys", "list", "--config", str(config), "--json"])
    key: dict[str, Any] = json.loads(told.stdout)
    return key


def event(method: str, path: str, body: Any = None) -> dict[str, Any]:
    """As a REST API's proxy integration sends it behind IAM authorization."""
    return {
        "resource": "/admin/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": {"host": "llm.example.com"},
        "queryStringParameters": None,
        "pathParameters": {"proxy": path.removeprefix("/admin/")},
        "requestContext": {
            "stage": "live",
            "identity": {"sourceIp": "203.0.113.9", "userArn": "arn:aws:iam::111122223333:user/ann"},
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def test_key_that_is_made_here_is_listed_here_and_by_the_command_until_it_is_taken_back(config: Path) -> None:
    made, all_keys = invoked(
        config, event("POST", "/admin/keys", {"tenant": "t", "id": "k"}), event("GET", "/admin/keys")
    )
    assert made["statusCode"] == 201
    assert [(key["id"], key["state"]) for key in json.loads(all_keys["body"])["data"]] == [("k", "active")]
    assert listed(config)["by"] == "arn:aws:iam::111122223333:user/ann"
    (gone,) = invoked(config, event("POST", "/admin/keys/revoke", {"key": json.loads(made["body"])["key"]}))
    assert gone["statusCode"] == 200
    assert listed(config)["state"] == "revoked"
